"""What goes into a plugin and what comes out of it: parsed strictly, then held against its schemas. Pure."""

from __future__ import annotations

import keyword
from collections.abc import Mapping
from dataclasses import dataclass, field

from plugind import jsontext
from plugind.columns import ColumnChecks
from plugind.errors import InvalidJsonError
from plugind.jsontext import JsonValue
from plugind.model import Code, Interface, Reason
from plugind.schema import Schema, kind

_CALL = '{"function": NAME, "arguments": {…}}'
_MOST_REASONS = 10


@dataclass(frozen=True, slots=True)
class Contract:
    """What a version takes and gives. A schema that is None allows everything (only interface "functions")."""

    interface: Interface
    input_schema: Schema | None
    output_schema: Schema | None
    columns: ColumnChecks = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", ColumnChecks(self.input_schema, self.output_schema))

    @property
    def non_finite(self) -> bool:
        """Whether NaN and infinities may pass, in and out."""
        return self.interface == "functions"


@dataclass(frozen=True, slots=True)
class Checked:
    """An input: why it is refused, or nothing; and for a list of function calls, how many."""

    reasons: tuple[Reason, ...] = ()
    calls: int | None = None
    refused: Mapping[int, tuple[Reason, ...]] = field(default_factory=dict)
    """Of a map: the items that do not reach the plugin, by their places."""


def check_input(contract: Contract, text: bytes, max_bytes: int, tier: int) -> Checked:
    """Size, then JSON, then the shape of the interface, then the schema: each only when those before held."""
    if len(text) > max_bytes:
        return Checked(
            (
                Reason(
                    Code.INPUT_TOO_LARGE,
                    f"tier.{tier}.input_bytes",
                    expected=f"at most {max_bytes} bytes",
                    actual=f"{len(text)} bytes",
                    remedy="send less at a time",
                ),
            )
        )
    try:
        value = jsontext.loads(text, max_bytes=max_bytes, non_finite=contract.non_finite)
    except InvalidJsonError as error:
        return Checked((invalid("input.json", "one JSON text", str(error)),))
    if contract.interface == "functions" and (problem := _calls_problem(value)):
        return Checked((invalid("input.functions", f"{_CALL}, or a list of these", problem),))
    calls = len(value) if contract.interface == "functions" and isinstance(value, list) else None
    if contract.input_schema is None:
        return Checked(calls=calls)
    found = contract.input_schema.errors(value, _MOST_REASONS, non_finite=contract.non_finite)
    return Checked(tuple(invalid("input.schema", "an input that fits the schema", each) for each in found), calls)


def output_problem(contract: Contract, text: bytes, max_bytes: int, calls: int | None) -> str:
    """Why this is no output of that plugin, with where; empty when it is one. `calls`: of the input (Checked)."""
    try:
        value = jsontext.loads(text, max_bytes=max_bytes, non_finite=contract.non_finite)
    except InvalidJsonError as error:
        return f"output: {error}"
    if calls is not None and not (isinstance(value, list) and len(value) == calls):
        got = f"a list of {len(value)}" if isinstance(value, list) else kind(value)
        return f"output: expected a list of {calls}, one for each call, got {got}"
    if contract.output_schema is None:
        return ""
    found = contract.output_schema.errors(value, non_finite=contract.non_finite)
    return "output: " + "; ".join(found) if found else ""


def invalid(rule: str, expected: str, actual: str) -> Reason:
    """Why an input is refused."""
    return Reason(Code.INPUT_INVALID, rule, expected, actual, "mend the input; plugindctl show PLUGIN names its schema")


def _calls_problem(value: JsonValue) -> str:
    if not isinstance(value, list):
        return call_problem(value, "/")
    return next((problem for place, call in enumerate(value) if (problem := call_problem(call, f"/{place}"))), "")


def call_problem(call: JsonValue, where: str) -> str:
    """Why this is no call of a function; empty when it is one."""
    if not isinstance(call, dict):
        return f"at {where}: {kind(call)}"
    if unknown := sorted(set(call) - {"function", "arguments"}):
        return f"at {where}: the unknown key {unknown[0][:60]!r}"
    name = call.get("function")
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
        return f"at {where}: expected the name of a public function, got {str(name)[:60]!r}"
    if not isinstance(call.get("arguments", {}), dict):
        return f"at {where}: expected arguments as an object, got {kind(call['arguments'])}"
    return ""
