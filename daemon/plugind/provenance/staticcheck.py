"""A look at code that nobody has read: is it Python source within limits, and what does it import? Nothing is run.

It decides about no danger: the jail is there for that. The limits keep the parser, which works in this process on a
stranger's text, from taking more than some tens of megabytes and a fraction of a second.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

MAX_BYTES: Final = 128 * 1024
"""Of all Python files of the bundle together."""
MAX_BRACES: Final = 10_000
"""Opening ones, of all of them. For the parts of one f-string CPython 3.11 takes time by the square: 40,000 took two
seconds."""
_SUFFIXES: Final = (".py", ".json", ".toml")
_NAME_CHARS: Final = 60


@dataclass(frozen=True, slots=True)
class Look:
    """What was found. `problem`: why it does not pass, with the file; empty: it does. `imports`: modules, sorted."""

    problem: str = ""
    imports: tuple[str, ...] = ()


def look(files: Mapping[str, bytes], executable: Collection[str] = ()) -> Look:
    """Look at the files of a bundle. Raises nothing: what cannot be looked at does not pass."""
    for path in files:
        if not path.endswith(_SUFFIXES) or path in executable:
            return Look(f"{path}: expected Python source, JSON and TOML only, and no programs")
    sources = {path: data for path, data in files.items() if path.endswith(".py")}
    total = sum(map(len, sources.values()))
    if total > MAX_BYTES:
        return Look(f"expected at most {MAX_BYTES} bytes of Python source, got {total}")
    braces = sum(data.count(b"{") for data in sources.values())
    if braces > MAX_BRACES:
        return Look(f"expected at most {MAX_BRACES} braces in Python source, got {braces}")
    imports: set[str] = set()
    for path, data in sources.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                imports.update(_imports(ast.parse(data, path)))
        except SyntaxError as error:
            return Look(f"{path}:{error.lineno or 1}:{error.offset or 1}: expected Python source, got {error.msg}")
        # Nesting; SystemError is the parser's own word for it in 3.11.2 (gh-106905).
        except (ValueError, RecursionError, MemoryError, SystemError) as error:
            return Look(f"{path}: cannot be parsed: {type(error).__name__}")
    return Look(imports=tuple(sorted(imports)))


def _imports(tree: ast.Module) -> Iterator[str]:
    """The modules that import statements name, wherever they stand; what code fetches by other means is not seen."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name[:_NAME_CHARS] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield ("." * node.level + (node.module or ""))[:_NAME_CHARS]
