"""What an author should hear about the code before anybody runs it.

Used by `build` only: the compiler is not meant for a stranger's files.
"""

from __future__ import annotations

import ast
import sys
import warnings
from collections.abc import Iterator, Mapping

from plugind.model import Manifest
from plugind.provenance.contents import module_file


def problems(manifest: Manifest, files: Mapping[str, bytes]) -> list[str]:
    """Syntax errors with file and line, an entry point that is not defined, a module that hides a standard one."""
    found: list[str] = []
    entry = module_file(manifest, files)
    for path in sorted(files):
        if not path.endswith(".py"):
            continue
        tree = _parse(path, files[path], found)
        if tree and path == entry and manifest.interface == "json":
            found.extend(_missing_function(tree, path, manifest.entrypoint.partition(":")[2]))
    module = manifest.entrypoint.partition(":")[0].partition(".")[0]
    if manifest.runtime == "python" and module in sys.stdlib_module_names:
        found.append(f'plugin.toml: entrypoint: expected a module of your own, got "{module}" of the standard library')
    return found


def _parse(path: str, source: bytes, found: list[str]) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(source, path)
    except SyntaxError as error:
        found.append(f"{path}:{error.lineno or 1}: {error.msg}")
    except (ValueError, RecursionError, MemoryError) as error:
        found.append(f"{path}:1: cannot be parsed: {type(error).__name__}")
    return None


def _missing_function(tree: ast.Module, path: str, function: str) -> list[str]:
    names = set(_names(tree.body))
    if function in names or "*" in names:
        return []
    return [f"{path}: expected a function {function} (plugin.toml: entrypoint), got none at the top level"]


def _names(body: list[ast.stmt]) -> Iterator[str]:
    """Names that a module's top level binds, also within if, try and with."""
    for statement in body:
        match statement:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                yield from ((alias.asname or alias.name).partition(".")[0] for alias in aliases)
            case ast.Assign() | ast.AnnAssign():
                names = (node for node in ast.walk(statement) if isinstance(node, ast.Name))
                yield from (node.id for node in names if isinstance(node.ctx, ast.Store))
            case _:
                for part in ("body", "orelse", "finalbody"):
                    yield from _names(getattr(statement, part, []))
                for handler in getattr(statement, "handlers", []):
                    yield from _names(handler.body)
