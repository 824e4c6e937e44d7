"""What the jail's root shows of the host, as far as it can be said without mounting anything."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import plugind
from plugind.errors import IsolationUnavailableError
from plugind.sandbox import rootfs
from plugind.sandbox.rootfs import Interpreter

PACKAGE = Path(plugind.__file__).parent


def copied(folder):
    rootfs._copy_runtime(folder)
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_what_is_copied_into_the_jail_is_closed_under_imports(tmp_path) -> None:
    there = {name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in copied(tmp_path)}
    wanted = set()
    for path in tmp_path.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                wanted |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                wanted |= {name if name in there else str(node.module) for name in names}
    foreign = {name for name in wanted if name.split(".")[0] not in sys.stdlib_module_names}
    assert foreign  # it does import something of ours
    assert foreign <= there


def test_what_is_copied_imports_without_the_rest(tmp_path) -> None:
    copied(tmp_path)
    modules = "plugind.sandbox.inside.zygote, plugind.sandbox.inside.setup, plugind.sandbox.inside.runner"
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import {modules}; print(sys.modules['plugind'].__file__)"
    )
    shown = subprocess.run([sys.executable, "-I", "-S", "-B", "-c", code], capture_output=True, text=True, check=False)
    assert shown.stdout.strip() == str(tmp_path / "plugind/__init__.py"), shown.stderr


def test_what_is_copied_is_readable_by_all_and_writable_by_none(tmp_path) -> None:
    assert "plugind/sandbox/inside/zygote.py" in copied(tmp_path)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_file()} == {0o444}
    for name in copied(tmp_path.with_name("again")):
        assert (tmp_path / name).read_bytes() == (PACKAGE.parent / name).read_bytes()


def test_the_current_interpreter_is_the_real_one() -> None:
    found = Interpreter.current()
    assert Path(found.executable).is_file()
    assert not Path(found.executable).is_symlink()
    assert Path(found.prefix).is_dir()


@pytest.mark.parametrize("prefix", ["/tmp", "/tmp/python", "/proc/x", "/code", "/runtime/py", "/etc/alternatives/py"])
def test_an_interpreter_where_the_jail_has_something_else(prefix) -> None:
    with pytest.raises(IsolationUnavailableError, match="rootfs: the interpreter lies at"):
        rootfs.check_place(Interpreter(f"{prefix}/bin/python3", prefix))


@pytest.mark.parametrize(
    "prefix", ["/usr", "/opt/python", "/root/.pyenv/versions/3.11.7", "/tmpfs/python", "/home/u/x"]
)
def test_an_interpreter_elsewhere(prefix) -> None:
    assert rootfs.check_place(Interpreter(f"{prefix}/bin/python3", prefix)).prefix == prefix


def test_what_is_shown_of_the_host() -> None:
    system = list(rootfs.library_trees(Interpreter("/usr/bin/python3.11", "/usr"), programs=False))
    assert Path("/usr/bin/python3.11") in system
    assert Path("/usr/lib") in system
    own = list(rootfs.library_trees(Interpreter("/opt/py/bin/python3", "/opt/py"), programs=False))
    assert own[0] == Path("/opt/py")
    for trees in (system, own):
        assert not {Path("/"), Path("/usr"), Path("/usr/bin"), Path("/home"), Path("/etc"), Path("/root")} & set(trees)
        assert all(tree.exists() for tree in trees[1:])
    assert Path("/usr/bin") in list(rootfs.library_trees(Interpreter("/opt/py/bin/python3", "/opt/py"), programs=True))


def test_packages_that_are_not_the_standard_library_are_covered() -> None:
    hidden = list(rootfs._foreign_packages(Interpreter.current()))
    assert all(folder.name in ("site-packages", "dist-packages") for folder in hidden)
    stdlib = Path(sys.modules["os"].__file__ or "").parent
    assert (stdlib / "site-packages" in hidden) == (stdlib / "site-packages").is_dir()


def test_users_and_hosts_in_there_say_nothing_of_the_host() -> None:
    text = "".join(rootfs._ETC.values())
    assert "root" not in text
    assert {line.split(":")[0] for line in rootfs._ETC["passwd"].splitlines()} == {"plugin"}
