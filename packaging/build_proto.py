"""Generates the Python code and the type stubs of proto/**/*.proto, beside each .proto.

Called by hatchling whenever a wheel or an editable install is built, and by `make setup` when a .proto changed.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

GENERATED = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi")


class ProtoBuildHook(BuildHookInterface[Any]):
    """The hook that pyproject.toml names."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Runs before the files of a wheel are collected."""
        generate(Path(self.root) / "proto")
        # Not for an editable install: its copy of the profiles would go stale while somebody edits the real ones.
        if version == "standard":
            build_data["shared_data"]["profiles"] = "share/plugind/profiles"


def generate(proto_root: Path) -> None:
    """Replaces every generated file under `proto_root`; exits with protoc's message if a .proto is wrong."""
    sources = sorted(proto_root.rglob("*.proto"))
    if not sources:
        sys.exit(f"{proto_root}: expected .proto files, found none")
    # Into a folder of its own first: whoever imports the old files meanwhile keeps seeing whole files.
    with tempfile.TemporaryDirectory(prefix=".generated-", dir=proto_root) as folder:
        out = Path(folder)
        run_protoc(proto_root, out, sources)
        made = {path.relative_to(out) for path in out.rglob("*") if path.is_file()}
        for relative in made:
            (out / relative).replace(proto_root / relative)
    for stale in {path for pattern in GENERATED for path in proto_root.rglob(pattern)}:
        if stale.relative_to(proto_root) not in made:
            stale.unlink()


def run_protoc(proto_root: Path, out: Path, sources: list[Path]) -> None:
    """Messages and services as Python, and stubs for both: protoc's own --pyi_out knows no services."""
    command = [
        *(sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={proto_root}"),
        *(f"--python_out={out}", f"--grpc_python_out={out}"),
        *(f"--mypy_out=quiet:{out}", f"--mypy_grpc_out=quiet:{out}"),
        *(str(source.relative_to(proto_root)) for source in sources),
    ]
    # protoc looks for its plugins on PATH; a virtual environment that is not activated is not on it.
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)])
    done = subprocess.run(command, check=False, env={**os.environ, "PATH": path})
    if done.returncode != 0:
        sys.exit(f"protoc failed with status {done.returncode}")


if __name__ == "__main__":
    generate(Path(__file__).resolve().parent.parent / "proto")
