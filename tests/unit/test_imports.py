"""What the import contracts in pyproject.toml cannot say: "nothing but"."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
INSIDE = [
    *REPOSITORY.glob("daemon/plugind/sandbox/inside/*.py"),
    *(REPOSITORY / f"daemon/plugind/linux/{name}.py" for name in ("__init__", "constants", "syscalls")),
]
CLIENT = list(REPOSITORY.glob("client/plugind_client/*.py"))  # without cli/


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_allowed(name, packages):
    return name.split(".")[0] in sys.stdlib_module_names or any(f"{name}.".startswith(f"{p}.") for p in packages)


@pytest.mark.parametrize("path", INSIDE, ids=lambda path: path.stem)
def test_what_runs_in_the_jail_imports_the_standard_library_only(path):
    ours = ("plugind.linux", "plugind.sandbox.inside")
    assert [name for name in imports_of(path) if not is_allowed(name, ours)] == []


@pytest.mark.parametrize("path", CLIENT, ids=lambda path: path.stem)
def test_client_library_imports_what_its_base_dependencies_bring(path):
    base = ("grpc", "google.protobuf", "plugind_proto", "plugind_client")
    outside = [name for name in imports_of(path) if not is_allowed(name, base)]
    assert outside == []
    assert not any(f"{name}.".startswith("plugind_client.cli.") for name in imports_of(path))


def test_what_the_launcher_is_forked_from_has_imported_nothing_heavy():
    """Its pages are the launcher's and the notifier's too, and a library in there is a library that is root."""
    code = "import sys, plugind.__main__, plugind.app; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {"plugind", "pyseccomp"} <= loaded
    assert not loaded & {"asyncio", "ssl", "logging", "grpc", "google", "cryptography", "jsonschema_rs", "sqlite3"}
