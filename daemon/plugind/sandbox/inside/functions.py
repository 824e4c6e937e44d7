"""The plugin's code, imported and called: what a run, an item of a map and an input of a session have in common."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import sys
import traceback
import types
from collections.abc import Callable
from typing import Any

from plugind.sandbox.inside import packages

TYPE_CHARS = 256
MESSAGE_CHARS = 4096
TRACEBACK_CHARS = 16384


class Context:
    """What a plugin may know of its run: the second argument of run(payload, context)."""

    __slots__ = ("output_dir", "plan_dir", "plan_id", "scratch_dir", "stage")

    def __init__(self, stage: str, plan_id: str, plan_dir: str, output_dir: str) -> None:
        self.stage = stage
        self.plan_id = plan_id
        self.plan_dir = plan_dir
        self.output_dir = output_dir
        self.scratch_dir = "/tmp"  # noqa: S108 - the instance's own tmpfs


class Plugin:
    """An imported plugin. Making one runs its module's code, and raises what that raises."""

    def __init__(self, call: dict[str, str]) -> None:
        sys.path.insert(0, "/plugin")
        if packages.PLACE in sys.path:
            packages.make_way(os.listdir("/plugin"))
        importlib.invalidate_caches()
        name, _, function = call["entrypoint"].partition(":")
        module = importlib.import_module(name)
        self.non_finite = call["interface"] == "functions"
        """Whether NaN and infinities may pass."""
        self.functions = public_functions(module) if self.non_finite else {}
        if not self.non_finite:
            self._run = _resolve(module, function)
        self.begin(call)

    def begin(self, call: dict[str, str]) -> None:
        """What is to come is for this stage and plan: known only when the run comes, of a plugin imported ahead."""
        if not self.non_finite:
            files = (call.get(name, "") for name in ("plan_dir", "output_dir"))
            self._context = Context(call["stage"], call["plan_id"], *files)

    def load(self, text: bytes) -> object:
        """The value of an input."""
        return json.loads(text)

    def answer(self, payload: Any) -> object:
        """What it makes of one input. Raises what it raises."""
        if not self.non_finite:
            return self._run(payload, self._context)
        if not isinstance(payload, list):
            return self._call(payload)
        results: list[object] = []
        for item in payload:
            try:
                results.append(self._call(item))
            except Exception as error:  # one item's failure is that item's result
                shown = describe(error)
                results.append({"error": {"type": shown["type"], "message": shown["message"]}})
        return results

    def function(self, name: str) -> Callable[..., object]:
        """A public function. Raises AttributeError."""
        if name not in self.functions:
            known = ", ".join(sorted(self.functions)) or "no function at all"
            raise AttributeError(f"no public function {name} is defined here; there is: {known}")
        return self.functions[name]

    def _call(self, item: dict[str, Any]) -> object:
        return self.function(item["function"])(**item.get("arguments", {}))

    def encode(self, value: object) -> bytes:
        """A value as JSON text. Raises TypeError, ValueError, RecursionError for one that is none."""
        return encode(value, non_finite=self.non_finite)


def _resolve(module: types.ModuleType, name: str) -> Callable[..., object]:
    target: object = getattr(module, name, None)
    if not callable(target):
        raise TypeError(f"the entrypoint's function {name} is not in module {module.__name__}")
    return target


def public_functions(module: types.ModuleType) -> dict[str, Callable[..., object]]:
    """The functions that the module itself defines, without those it imported and those with an underscore."""
    return {
        name: value
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
    }


def encode(value: object, *, non_finite: bool = False) -> bytes:
    """Compact JSON in ASCII. Raises TypeError, ValueError, RecursionError."""
    return json.dumps(value, allow_nan=non_finite, ensure_ascii=True, separators=(",", ":")).encode()


def describe(error: BaseException) -> dict[str, str]:
    """An exception as data: type, message, traceback of the plugin's own frames. Raises nothing, whatever it is."""
    try:
        return _described(error)
    except BaseException:  # what it is made of is the plugin's, and could raise anything
        return {"type": "Indescribable", "message": "<an exception that cannot be described>", "traceback": ""}


def _described(error: BaseException) -> dict[str, str]:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename.startswith("/plugin/")]
    shown = [*traceback.format_list(own), *traceback.format_exception_only(error)]
    return {
        "type": str(type(error).__name__)[:TYPE_CHARS],
        "message": _safe_text(error)[:MESSAGE_CHARS],
        "traceback": "".join(shown)[:TRACEBACK_CHARS],
    }


def _safe_text(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:
        return "<no text: __str__ raised>"
