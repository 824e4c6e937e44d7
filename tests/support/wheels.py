"""Small valid wheels, made of a dict of files. Source: PyPA's "Binary distribution format"."""

import base64
import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Wheel:
    path: Path
    name: str
    version: str
    sha256: str

    @property
    def line(self):
        """As it stands in a lock."""
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}"


def wheel(folder, name, version="1.0", files=None, *, commands=None, requires=(), tag="py3-none-any"):
    """A wheel in a folder. `files`: path → text or bytes, by default a module; `commands`: name → MODULE:FUNCTION."""
    contents = {f"{name.replace('-', '_')}.py": "VALUE = 1\n"} if files is None else dict(files)
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    needed = "".join(f"Requires-Dist: {other}\n" for other in requires)
    contents[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needed}"
    contents[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n"
    if commands:
        lines = [f"{command} = {function}" for command, function in commands.items()]
        contents[f"{info}/entry_points.txt"] = "\n".join(["[console_scripts]", *lines, ""])
    encoded = {path: data.encode() if isinstance(data, str) else data for path, data in contents.items()}
    rows = [f"{path},sha256={_base64(data)},{len(data)}" for path, data in encoded.items()]
    encoded[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,", ""]).encode()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name.replace('-', '_')}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in encoded.items():
            archive.writestr(zipfile.ZipInfo(member), data)  # a fixed time: the same files are the same wheel
    return Wheel(path, name, version, hashlib.sha256(path.read_bytes()).hexdigest())


def lock(path, *wheels):
    """A lock of these wheels."""
    path.write_text("".join(f"{each.line}\n" for each in wheels))
    return path


def _base64(data):
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
