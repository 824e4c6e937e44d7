"""Plugins as modules: functions with their true signatures, whose calls run in the daemon's jail.

Source: SPEC.md, "Client".
"""

from __future__ import annotations

import builtins
import hashlib
import inspect
import os
import types
from ast import literal_eval
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from plugind_client import bundling, source
from plugind_client.bundling import Made
from plugind_client.errors import Denied, InvalidSource, PluginFailed
from plugind_client.parsing import parse
from plugind_client.records import Check, PluginSource
from plugind_client.source import Function, Source

_MISSING: Final = object()
"""An argument that was not given: what its default is, the jail knows."""
_SHOWN: Final = 200


@dataclass(frozen=True, slots=True)
class Use:
    """What every session of a loaded module is opened for; as for `Client.session`."""

    stage: str | None = None
    plan_id: str | None = None
    sensitivity: str | None = None
    timeout_ms: int | None = None
    plan_dir: str | None = None
    """Absolute already: it is the same folder when this process goes elsewhere."""

    @property
    def explained(self) -> dict[str, Any]:
        """What the policy looks at: arguments of `explain`."""
        return {"stage": self.stage, "sensitivity": self.sensitivity, "timeout_ms": self.timeout_ms}

    @property
    def of_run(self) -> dict[str, Any]:
        """Arguments of `session` and `map`."""
        return {**self.explained, "plan_id": self.plan_id, "plan_dir": self.plan_dir}


class PluginModule(types.ModuleType):
    """What `load_source` gives: the plugin's public functions as attributes, and no others.

    A call (AsyncClient's is awaited) goes to a session of the module, which is opened when none is idle; threads that
    call at the same time have one each. So the plugin's globals live on from call to call, as they would in this
    process, and are gone when it was not called for half a second. A call gives the function's value, or raises:
    TypeError, as Python itself says it, for arguments that do not fit the signature, and then nothing was sent; the
    exception that the function raised, where it is a builtin one, with its own message and the PluginFailed as its
    cause; every other error as `Session.call` does.
    """

    __version__: str
    __use__: Use
    """What it was loaded for."""

    def __init__(self, name: str, version: str, doc: str | None, use: Use | None = None) -> None:
        super().__init__(name, doc)
        self.__version__ = version
        self.__use__ = use or Use()
        self.__all__: list[str] = []

    def __deepcopy__(self, _memo: object) -> PluginModule:
        """Itself: a module is what it is to its client."""
        return self

    def __dir__(self) -> list[str]:
        """The functions."""
        return sorted(self.__all__)


@dataclass(frozen=True, slots=True)
class Prepared:
    """Generated code that was read and bundled, before anything was sent."""

    source: Source
    made: Made


def prepared(given: str | os.PathLike[str], name: str | None, use: Use) -> Prepared:
    """What to submit for a source or its path.

    Raises:
        InvalidSource, InvalidRequest, OSError: as for `Client.load_source`.
    """
    text, where, stem = _text(given)
    found = source.read(text, where)
    return Prepared(found, bundling.make(found, name or _name(stem, text), (use.stage,) if use.stage else ("*",)))


def read(known: PluginSource) -> Source:
    """The functions of a plugin that the daemon has.

    Raises:
        InvalidSource: they cannot all be called by name.
    """
    where = f"{known.name}@{known.version}"
    return source.read(source.decoded(known.source, where), where)


def _text(given: str | os.PathLike[str]) -> tuple[str, str, str]:
    """Source, how messages name it, and what its file is called. One line that ends with .py is a path."""
    if isinstance(given, str) and ("\n" in given or not given.endswith(".py")):
        return given, "<source>", "generated"
    path = Path(given)
    try:
        with path.open("rb") as file:
            data = file.read(source.MAX_BYTES + 4)  # a byte order mark is not counted
    except ValueError as error:  # a null byte, half a surrogate pair
        detail = f"{ascii(given)[:_SHOWN]}: expected Python source or the path of a file, got a name for none: {error}"
        raise InvalidSource("INVALID_SOURCE", detail=detail) from None
    return source.decoded(data, str(path)), str(path), path.stem


def _name(stem: str, text: str) -> str:
    """A name of its own for each source: of two that share one, the later retires the earlier."""
    fits = bundling.NAME.fullmatch(stem) is not None
    return f"{stem[:40] if fits else 'generated'}_{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def require_runnable(checks: Iterable[Check]) -> None:
    """Raises Denied with every reason why a run would be, which `explain` has given."""
    reasons = tuple(reason for check in checks if not check.ok for reason in check.reasons)
    if reasons:
        detail = "; ".join(f"{reason.code} ({reason.rule}): {reason.remedy}" for reason in reasons)
        raise Denied(reasons[0].code, detail=detail, reasons=reasons)


def module_of(found: Source, name: str, version: str, use: Use, run: Callable[[dict[str, Any]], Any]) -> PluginModule:
    """The module of a plugin whose source was read. `run` gives it an input and gives what a call gives."""
    module = PluginModule(name, version, found.doc, use)
    for function in found.functions.values():
        setattr(module, function.name, _remote(function, name, run))
        module.__all__.append(function.name)
    return module


def _remote(function: Function, module: str, run: Callable[[dict[str, Any]], Any]) -> Callable[..., Any]:
    bind = _binder(function)

    def remote(*args: Any, **kwargs: Any) -> Any:
        bound = bind(*args, **kwargs)
        arguments = {name: value for name, value in bound.items() if value is not _MISSING}
        return run({"function": function.name, "arguments": arguments})

    parameters = function.signature.parameters.values()
    annotations = {each.name: each.annotation for each in parameters if each.annotation is not each.empty}
    if function.signature.return_annotation is not inspect.Signature.empty:
        annotations["return"] = function.signature.return_annotation
    remote.__name__ = remote.__qualname__ = function.name
    remote.__doc__, remote.__module__, remote.__annotations__ = function.doc, module, annotations
    cast("Any", remote).__signature__ = function.signature
    return remote


def _binder(function: Function) -> Callable[..., dict[str, Any]]:
    """A function of the same parameters that gives its arguments by name.

    It is compiled because only a real function makes Python's own messages for arguments that do not fit. What is
    compiled are names that the parser found to be identifiers, and nothing else of the source.
    """
    shown, given = [], []
    by_name = False
    for each in function.signature.parameters.values():
        if each.kind is each.VAR_KEYWORD:
            shown.append(f"**{each.name}")
            given.append(f"**{each.name}")
            continue
        if each.kind is each.KEYWORD_ONLY and not by_name:
            shown.append("*")
            by_name = True
        shown.append(each.name if each.default is each.empty else f"{each.name}=_missing")
        given.append(f"{each.name!r}: {each.name}")
    text = f"def {function.name}({', '.join(shown)}): return {{{', '.join(given)}}}"
    namespace: dict[str, Any] = {"_missing": _MISSING, "__builtins__": {}}
    exec(compile(text, "<plugind>", "exec"), namespace)  # noqa: S102 - see above
    return cast("Callable[..., dict[str, Any]]", namespace[function.name])


# --- what came of a call ---------------------------------------------------------------------------------------------


def as_raised(error: PluginFailed) -> Exception:
    """What a call of a function raises: the builtin exception itself where the function raised one."""
    return original_of(error.type, error.message) or error


def original_of(kind: str, message: str) -> Exception | None:
    """A builtin exception with its message; None for any other type, and for one that cannot be made so.

    What ends a program (SystemExit, KeyboardInterrupt) is none: it would end the caller's.
    """
    known = vars(builtins).get(kind)
    if not (isinstance(known, type) and issubclass(known, Exception)):
        return None
    arguments: tuple[Callable[[], tuple[Any, ...]], ...] = (
        lambda: (message,) if message else (),
        lambda: (literal_eval(parse(message, mode="eval")),),  # KeyError shows its key as repr() does
    )
    for given in arguments:
        try:
            made = known(*given())
            if str(made) == message:
                return made
        except Exception:  # noqa: BLE001, S112 - some want other arguments
            continue
    return None
