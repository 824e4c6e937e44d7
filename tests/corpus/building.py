"""From a specimen to a plugin's folder, its bundle, and its place in a daemon."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plugind.provenance import bundle
from plugind.provenance.keys import PrivateKey
from plugind_client import Client
from tests.corpus.loader import Specimen
from tests.support.plugins import attested

VERSION = "1.0.0"


def write(specimen: Specimen, target: Path, *, version: str = VERSION) -> Path:
    """Its folder, as an author has it."""
    files = {
        "plugin.toml": as_toml(manifest(specimen, version)).encode(),
        "schemas/input.json": json.dumps(specimen.input_schema).encode(),
        "schemas/output.json": json.dumps(specimen.output_schema).encode(),
        specimen.entry: specimen.source.encode(),
        **specimen.extra_files,
    }
    for path, data in files.items():
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        (target / path).write_bytes(data)
    if specimen.entry.endswith(".sh"):
        (target / specimen.entry).chmod(0o755)
    return target


def manifest(specimen: Specimen, version: str) -> dict[str, Any]:
    """Its plugin.toml: what its header says, and for the rest the least that a manifest needs."""
    program = specimen.entry.endswith(".sh")
    least = {
        "schema": 1,
        "name": specimen.name,
        "version": version,
        "summary": "A specimen of the corpus",
        "license": "MIT",
        "origin": "authored",
        "runtime": "exec" if program else "python",
        "entrypoint": specimen.entry if program else f"{specimen.name}:run",
        "stages": ["*"],
    }
    return least | dict(specimen.manifest or {})


def built(specimen: Specimen, *, version: str = VERSION) -> bytes:
    """Its bundle."""
    with tempfile.TemporaryDirectory() as parent:
        return bundle.build(write(specimen, Path(parent, specimen.name), version=version))


def submit(client: Client, specimen: Specimen, data: bytes) -> str:
    """Hand it in with the evidence that its tier needs; its digest. Raises what the client raises."""
    keys = [PrivateKey.generate(), PrivateKey.generate()] if specimen.tier == 1 else []
    pems = [key.public.to_pem().decode() for key in keys]
    submitted = client.submit(data, attested(data, *keys) if keys else b"", development_public_keys=pems)
    assert submitted.tier == specimen.tier, submitted
    return submitted.digest


def approve(client: Client, specimen: Specimen, *, version: str = VERSION) -> None:
    """Approve as its header says, and make it active."""
    if specimen.approve == "none":
        return
    declared = specimen.approve == "declared"
    stages = () if declared else tuple(manifest(specimen, version)["stages"])
    client.approve(
        specimen.name, version, tier=specimen.tier, as_declared=declared, stages=stages, reason="of the corpus"
    )
    client.activate(specimen.name, version)


def as_toml(table: Mapping[str, Any], path: str = "") -> str:
    """TOML of a table whose values JSON can say. Source: toml.io v1.0.0."""
    plain = {key: value for key, value in table.items() if not _is_table(value)}
    lines = [f"{key} = {_inline(value)}" for key, value in plain.items()]
    for key, value in table.items():
        inner = f"{path}.{key}" if path else key
        if isinstance(value, dict):
            lines += [f"[{inner}]", as_toml(value, inner)]
        elif _is_table(value):
            lines += [line for each in value for line in (f"[[{inner}]]", as_toml(each, inner))]
    return "\n".join(lines) + "\n"


def _inline(value: object) -> str:
    """JSON says it in the same way, but for surrogate pairs, which TOML has not, and DEL, which it wants escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _is_table(value: object) -> bool:
    return isinstance(value, dict) or (
        isinstance(value, list) and bool(value) and all(isinstance(each, dict) for each in value)
    )
