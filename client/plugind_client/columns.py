"""Many calls of one function by column: what is a column, and its values as the wire has them. Without gRPC.

Source: SPEC.md, "Client"; proto/plugind_proto/v1/runtime.proto, ColumnCalls.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from plugind_client.errors import InvalidRequest
from plugind_client.text import payload_json

ITEM_BYTES: Final = 8
"""Of an IEEE 754 double."""
_ONE_VALUE: Final = (str, int, float, bytes, bytearray, Mapping, type(None))
"""Never a column. NumPy's scalars have the buffer protocol too, in no dimension."""

Values = list[Any] | tuple[Any, ...] | memoryview
"""A column, nothing copied yet."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Many calls of one function: row i of every argument makes one call. A payload of `Client.map`.

        client.map("monte_carlo", [Columns("duration", {"low": lows, "high": highs, "factor": 1.5})])

    A list, a tuple, an array.array or anything of one dimension with the buffer protocol (a NumPy array) is a column;
    every other value is the same in all rows. A column of floats alone travels as IEEE 754 doubles, bit for bit; any
    other as JSON. Its answer is a `ColumnResult`.

    Raises:
        InvalidRequest: there is no column, they differ in length, or one has no dimension or more than one.
    """

    function: str
    arguments: Mapping[str, object]

    def __post_init__(self) -> None:
        rows_of(self.values())

    def values(self) -> dict[str, Values]:
        """The columns by the parameter's name; what is the same in all rows is not among them."""
        found = {name: _values(name, value) for name, value in self.arguments.items()}
        return {name: values for name, values in found.items() if values is not None}

    @property
    def rows(self) -> int:
        """How many calls these are."""
        return rows_of(self.values())


def rows_of(columns: Mapping[str, Values]) -> int:
    """The one length of columns.

    Raises:
        InvalidRequest: they have none.
    """
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) == 1:
        return next(iter(lengths.values()))
    told = ", ".join(f"{name} has {length}" for name, length in lengths.items()) or "none"
    raise InvalidRequest("INVALID_REQUEST", detail=f"expected at least one column, all of one length, got {told}")


def _values(name: str, value: object) -> Values | None:
    if isinstance(value, list | tuple):
        return value
    if isinstance(value, _ONE_VALUE):
        return None
    try:
        view = memoryview(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, BufferError):  # NumPy raises ValueError for what no buffer can describe
        return None
    if view.ndim == 0:
        return None
    if view.ndim != 1:
        detail = f"{name}: expected a column of one dimension, got {view.ndim}"
        raise InvalidRequest("INVALID_REQUEST", detail=detail)
    return view


def column(name: str, values: Values) -> tuple[str, bytes]:
    """A column as the wire has it: the kind of a Column, and its content.

    Raises:
        InvalidRequest: JSON has no such values.
    """
    if isinstance(values, memoryview):
        if values.format.endswith("d") and values.itemsize == ITEM_BYTES:
            order = {">": "big", "!": "big", "<": "little"}.get(values.format[0], sys.byteorder)
            return "float64", _little(values.tobytes(), order)
        values = _listed(name, values)
    # Exactly float: a subclass may write itself differently, and an int or a bool is to stay what it is.
    if set(map(type, values)) == {float}:
        return "float64", from_doubles(array("d", values))
    return "values_json", payload_json(values)


def _listed(name: str, values: memoryview) -> list[Any]:
    try:
        return values.tolist()
    except NotImplementedError:
        detail = f"{name}: expected a column of numbers, got items of the format {values.format!r}"
        raise InvalidRequest("INVALID_REQUEST", detail=detail) from None


def from_doubles(values: array[float]) -> bytes:
    """Doubles as the wire has them."""
    return _little(values.tobytes(), sys.byteorder)


def doubles(data: bytes) -> array[float]:
    """The values of a column of doubles. Raises ValueError where bytes are left over."""
    made = array("d")
    made.frombytes(_little(data, sys.byteorder))
    return made


def _little(data: bytes, order: str) -> bytes:
    """Doubles of one byte order as little-endian ones, and back."""
    if order == "little":
        return data
    turned = array("d", data)
    turned.byteswap()
    return turned.tobytes()
