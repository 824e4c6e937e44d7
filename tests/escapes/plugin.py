"""The attacks as plugins: one bundle that holds all of them, and the same as one module for a test of a bare jail."""

from __future__ import annotations

import contextlib
import json
import platform
from pathlib import Path
from typing import Final

import pyseccomp

from tests.support.plugins import folder

ATTACKS: Final = Path(__file__).parent / "attacks"
_NEWEST: Final = (
    "statmount listmount lsm_get_self_attr lsm_set_self_attr lsm_list_modules mseal setxattrat getxattrat listxattrat"
    " removexattrat open_tree_attr file_getattr file_setattr"
).split()
"""System calls that libseccomp 2.5 does not know yet: from 457 on, on every architecture."""
NEWEST: Final = dict(zip(_NEWEST, range(457, 457 + len(_NEWEST)), strict=True))


def numbers() -> dict[str, int]:
    """Name → number of every system call of this machine."""
    architecture = pyseccomp.system_arch()
    found = dict(NEWEST)
    for number in range(600):
        with contextlib.suppress(ValueError):  # not every number is a call
            name = pyseccomp.resolve_syscall(architecture, number)
            found[name.decode() if isinstance(name, bytes) else name] = number
    return found


def _modules() -> dict[str, str]:
    """Name → text of everything an attack is made of; `call_numbers` is made for this machine."""
    modules = {path.stem: path.read_text() for path in sorted(ATTACKS.glob("*.py"))}
    modules["call_numbers"] = f"NUMBERS = {json.dumps(numbers())}\nMACHINE = {platform.machine()!r}\n"
    return modules


def write(parent: Path, name: str, limits: dict[str, int], entrypoint: str = "dispatch") -> Path:
    """The folder of the plugin `name`: run({"attack": "MODULE.FUNCTION", "arguments": {…}}) makes that attack."""
    extra = "[limits]\n" + "".join(f"{key} = {value}\n" for key, value in limits.items()) if limits else ""
    modules = _modules()
    target = folder(parent, name, code=modules[entrypoint], extra=extra)
    for module, text in modules.items():
        (target / f"{module}.py").write_text(text)
    return target


def single_module() -> str:
    """The same plugin as the text of one module, for `Jail.run(code, {"attack": …, "arguments": …})`."""
    modules = _modules()
    entry = modules.pop("dispatch")
    return (
        "import importlib.abc, importlib.util, sys\n"
        f"_TEXTS = {modules!r}\n"
        "class _Carried(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        return importlib.util.spec_from_loader(name, self) if name in _TEXTS else None\n"
        "    def get_source(self, name):\n"
        "        return _TEXTS[name]\n"
        "sys.meta_path.insert(0, _Carried())\n" + entry
    )
