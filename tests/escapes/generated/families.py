"""All variants, each under the name of its family and its own."""

from __future__ import annotations

from dataclasses import replace

from tests.escapes.generated import exceptions, hidden_imports, import_time, in_session, patched, shapes, texts, values
from tests.escapes.generated.variant import Variant

VARIANTS: list[tuple[str, Variant]] = [
    *import_time.VARIANTS,
    *hidden_imports.VARIANTS,
    *shapes.VARIANTS,
    *patched.VARIANTS,
    *values.VARIANTS,
    *exceptions.VARIANTS,
    *texts.VARIANTS,
]
ALL = [(name, replace(each, in_session=in_session.BY_NAME.get(name))) for name, each in VARIANTS]
