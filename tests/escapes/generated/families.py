"""All variants, each under the name of its family and its own."""

from __future__ import annotations

from tests.escapes.generated import exceptions, hidden_imports, import_time, patched, shapes, texts, values
from tests.escapes.generated.variant import Variant

ALL: list[tuple[str, Variant]] = [
    *import_time.VARIANTS,
    *hidden_imports.VARIANTS,
    *shapes.VARIANTS,
    *patched.VARIANTS,
    *values.VARIANTS,
    *exceptions.VARIANTS,
    *texts.VARIANTS,
]
