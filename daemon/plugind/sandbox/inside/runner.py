"""Calls the plugin: input from the memfd, exactly one frame on the result pipe, then the end of the process.

Frame: 16 bytes nonce, 1 byte kind (V value, E exception, I not JSON), 8 bytes length (big endian), JSON text.
The front believes a frame only if the nonce is the run's, it is the only one, and the process ended with 0.
"""

from __future__ import annotations

import importlib
import inspect
import io
import json
import os
import struct
import sys
import traceback
import types
from collections.abc import Callable
from typing import Any, NoReturn

NONCE_BYTES = 16
HEADER = struct.Struct(f">{NONCE_BYTES}scQ")
TYPE_CHARS = 256
MESSAGE_CHARS = 4096
TRACEBACK_CHARS = 16384


class Context:
    """What a plugin may know of its run: the second argument of run(payload, context)."""

    __slots__ = ("plan_id", "scratch_dir", "stage")

    def __init__(self, stage: str, plan_id: str) -> None:
        self.stage = stage
        self.plan_id = plan_id
        self.scratch_dir = "/tmp"  # noqa: S108 - the instance's own tmpfs


def read_input(descriptor: int) -> tuple[bytes, dict[str, str], bytes]:
    """Nonce, call and JSON text from the input memfd, which is closed."""
    with open(descriptor, "rb", closefd=True) as stream:
        stream.seek(0)
        nonce = stream.read(NONCE_BYTES)
        length = int.from_bytes(stream.read(4), "big")
        call = json.loads(stream.read(length))
        return nonce, call, stream.read()


def run(input_descriptor: int, result_descriptor: int) -> NoReturn:
    """Never returns: ends the process, with 0 after a frame."""
    nonce, call, text = read_input(input_descriptor)
    _fresh_streams()
    kind, body = _outcome(call, text)
    _flush()
    _write_all(result_descriptor, HEADER.pack(nonce, kind, len(body)))
    _write_all(result_descriptor, body)
    os._exit(0)


def _fresh_streams() -> None:
    # The zygote's stream objects belong to descriptors it had; buffered state must not be shared by siblings.
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        raw = io.FileIO(descriptor, "w", closefd=False)
        stream = io.TextIOWrapper(io.BufferedWriter(raw), "utf-8", errors="backslashreplace", line_buffering=True)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # noqa: S110 - the plugin may have closed or replaced it; its output is its own
            pass


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _outcome(call: dict[str, str], text: bytes) -> tuple[bytes, bytes]:
    """Kind and body of the frame."""
    try:
        value = _call(call, json.loads(text))
    except BaseException as error:  # SystemExit and KeyboardInterrupt are the plugin's failures too
        return b"E", _encode(describe(error), allow_nan=False)
    try:
        return b"V", _encode(value, allow_nan=call["interface"] == "functions")
    except (TypeError, ValueError, RecursionError) as error:
        return b"I", _encode(f"{type(error).__name__}: {error}", allow_nan=False)


def _encode(value: object, *, allow_nan: bool) -> bytes:
    return json.dumps(value, allow_nan=allow_nan, ensure_ascii=True, separators=(",", ":")).encode()


def describe(error: BaseException) -> dict[str, str]:
    """An exception as data: type, message, traceback of the plugin's own frames."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename.startswith("/plugin/")]
    shown = [*traceback.format_list(own), *traceback.format_exception_only(error)]
    return {
        "type": type(error).__name__[:TYPE_CHARS],
        "message": _safe_text(error)[:MESSAGE_CHARS],
        "traceback": "".join(shown)[:TRACEBACK_CHARS],
    }


def _safe_text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "<no text: __str__ raised>"


def _call(call: dict[str, str], payload: Any) -> object:
    sys.path.insert(0, "/plugin")
    importlib.invalidate_caches()
    name, _, function = call["entrypoint"].partition(":")
    module = importlib.import_module(name)
    if call["interface"] == "functions":
        return _call_functions(public_functions(module), payload)
    context = Context(call["stage"], call["plan_id"])
    return _resolve(module, function)(payload, context)


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


def _call_functions(functions: dict[str, Callable[..., object]], payload: Any) -> object:
    if not isinstance(payload, list):
        return _call_function(functions, payload)
    results: list[object] = []
    for item in payload:
        try:
            results.append(_call_function(functions, item))
        except Exception as error:  # one item's failure is that item's result
            shown = describe(error)
            results.append({"error": {"type": shown["type"], "message": shown["message"]}})
    return results


def _call_function(functions: dict[str, Callable[..., object]], item: dict[str, Any]) -> object:
    name = item["function"]
    if name not in functions:
        known = ", ".join(sorted(functions)) or "no function at all"
        raise AttributeError(f"no public function {name} is defined here; there is: {known}")
    return functions[name](**item.get("arguments", {}))
