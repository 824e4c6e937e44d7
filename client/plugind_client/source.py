"""Generated Python source, read and never run: the functions that a module defines, with their signatures.

The text is a stranger's. It is parsed within limits and looked at as a tree; nothing of it is imported or evaluated
but literals. What the module's interface would be in the jail ("functions") is what is found here: public functions
defined at the top level, not those that are imported.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from plugind_client.annotations import schema_of
from plugind_client.errors import InvalidSource
from plugind_client.parsing import parse

MAX_BYTES: Final = 128 * 1024
"""Of the source, in UTF-8. The daemon's own static check has the same limit."""
MAX_BRACES: Final = 10_000
"""Opening ones. For the parts of one f-string CPython 3.11 takes time by the square: 40,000 took two seconds."""
MAX_FUNCTIONS: Final = 200
MAX_PARAMETERS: Final = 100
"""Of one function."""
_SHOWN: Final = 200
_DECLARATION: Final = re.compile(rb"[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")
_EMPTY: Final = re.compile(rb"[ \t\f]*(#.*)?")

_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


@dataclass(frozen=True, slots=True)
class Unevaluated:
    """Stands for a default that is no literal, such as `math.pi`: it is known in the jail only. Shown as written."""

    text: str

    def __repr__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Function:
    """One public function of a module. Annotations are text, as under `from __future__ import annotations`."""

    name: str
    signature: inspect.Signature
    doc: str | None
    arguments: Mapping[str, Any]
    """JSON Schema of its arguments, as one object."""


@dataclass(frozen=True, slots=True)
class Source:
    """A module as text, and what it defines, in the order of definition."""

    text: str
    doc: str | None
    functions: Mapping[str, Function]


def decoded(data: bytes, where: str) -> str:
    """The text of a source file. `where` names it in messages.

    Raises:
        InvalidSource: it is too long, or not UTF-8.
    """
    if len(data) > MAX_BYTES:
        _refuse(where, 1, 1, f"at most {MAX_BYTES} bytes of Python source", f"{len(data)}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", "replace").split("\n")
        _refuse(where, len(before), len(before[-1]) + 1, "UTF-8", f"byte {data[error.start]:#04x}")


def read(text: str, where: str = "<source>") -> Source:
    """The functions of a module. `where` names it in messages.

    Raises:
        InvalidSource: it cannot be made into a plugin. `detail` is one line: where (line:column), what was expected,
            what came instead.
    """
    _check_text(text, where)
    tree = _parse(text, where)
    try:
        return _Reader(text, where).read(tree)
    except RecursionError:
        _refuse(where, 1, 1, "source that is nested less deeply", "more levels than can be followed")


def _check_text(text: str, where: str) -> None:
    """What the parser would not take, or would take for something else than the jail's interpreter does."""
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        _refuse_at(where, text, error.start, "Unicode text", f"the lone surrogate {text[error.start]!a}")
    if len(data) > MAX_BYTES:
        _refuse(where, 1, 1, f"at most {MAX_BYTES} bytes of Python source", f"{len(data)}")
    if text.count("{") > MAX_BRACES:
        _refuse(where, 1, 1, f"at most {MAX_BRACES} braces", f"{text.count('{')}")
    if "\0" in text:
        _refuse_at(where, text, text.index("\0"), "Python source", "a null byte")
    encoding = _declared(data)
    if not (encoding in ("utf-8", "utf8") or encoding.startswith("utf-8-")):
        _refuse(where, 1, 1, "UTF-8", f"a declaration of the encoding {encoding}")


def _declared(data: bytes) -> str:
    """The encoding that one of the first two lines declares, by the interpreter's rule (PEP 263); else UTF-8.

    It is not looked up, as tokenize.detect_encoding does: that imports the module of an encoding that a stranger names.
    """
    for line in data.splitlines()[:2]:
        found = _DECLARATION.match(line)
        if found:
            return found[1].decode().lower().replace("_", "-")
        if not _EMPTY.fullmatch(line):
            break
    return "utf-8"


def _parse(text: str, where: str) -> ast.Module:
    try:
        tree: ast.Module = parse(text, where)
        return tree
    except SyntaxError as error:
        _refuse(where, error.lineno or 1, error.offset or 1, "Python source", error.msg)
    # Which one it is for nesting depends on the interpreter.
    except (ValueError, RecursionError, MemoryError, SystemError) as error:
        _refuse(where, 1, 1, "source that is nested less deeply", f"{type(error).__name__} from the parser")


def _refuse(where: str, line: int, column: int, expected: str, got: str) -> NoReturn:
    shown = got if got.isprintable() else ascii(got)[1:-1]
    raise InvalidSource("INVALID_SOURCE", detail=f"{where}:{line}:{column}: expected {expected}, got {shown[:_SHOWN]}")


def _refuse_at(where: str, text: str, offset: int, expected: str, got: str) -> NoReturn:
    before = text[:offset].split("\n")
    _refuse(where, len(before), len(before[-1]) + 1, expected, got)


class _Reader:
    """Goes through one module."""

    def __init__(self, text: str, where: str) -> None:
        self._where = where
        self._lines = text.split("\n")
        self._found: dict[str, _Definition] = {}

    def read(self, tree: ast.Module) -> Source:
        self._follow(tree.body)
        public = {name: node for name, node in self._found.items() if not name.startswith("_")}
        if not public:
            _refuse(self._where, 1, 1, "at least one public function at the top level", "no function")
        if len(public) > MAX_FUNCTIONS:
            self._refuse(list(public.values())[MAX_FUNCTIONS], f"at most {MAX_FUNCTIONS} functions", f"{len(public)}")
        functions = {name: self._function(name, node) for name, node in public.items()}
        return Source("\n".join(self._lines), ast.get_docstring(tree), functions)

    def _refuse(self, node: ast.AST, expected: str, got: str) -> NoReturn:
        line, offset = getattr(node, "lineno", 1), getattr(node, "col_offset", 0)
        before = self._lines[line - 1].encode()[:offset] if line <= len(self._lines) else b""
        _refuse(self._where, line, len(before.decode(errors="replace")) + 1, expected, got)

    # -- what the names of the top level stand for in the end

    def _follow(self, body: list[ast.stmt]) -> None:
        """In the order of the text, as the interpreter would: a later binding of a name replaces an earlier one."""
        for statement in body:
            match statement:
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                    self._found[name] = statement
                case ast.Assign(targets=targets, value=value):
                    self._bind(targets, value)
                case ast.AnnAssign(target=target, value=value) if value is not None:
                    self._bind([target], value)
                case ast.ClassDef(name=name):
                    self._found.pop(name, None)
                case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                    for alias in aliases:
                        self._found.pop((alias.asname or alias.name).partition(".")[0], None)
                case ast.Delete(targets=targets):
                    self._forget(targets)
                case _:
                    for inner in _bodies(statement):
                        self._follow(inner)

    def _bind(self, targets: list[ast.expr], value: ast.expr) -> None:
        """A lambda and another name of a function are functions of the module, too."""
        known = self._found.get(value.id) if isinstance(value, ast.Name) else value
        self._forget(targets)
        if isinstance(known, _Definition):
            self._found |= {target.id: known for target in targets if isinstance(target, ast.Name)}

    def _forget(self, targets: list[ast.expr]) -> None:
        for target in targets:
            for node in ast.walk(target):
                # Of `f.unit = "EUR"` and `table[f] = 1` nothing is bound to f.
                if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
                    self._found.pop(node.id, None)

    # -- one function

    def _function(self, name: str, node: _Definition) -> Function:
        if isinstance(node, ast.AsyncFunctionDef):
            self._refuse(node, "functions that return their value", f"the coroutine {name}")
        decorator = None if isinstance(node, ast.Lambda) else next(iter(node.decorator_list), None)
        if decorator is not None:
            # What it leaves of the function is known to the interpreter only.
            self._refuse(decorator, f"{name} without a decorator", f"@{_text(decorator)}")
        parameters = list(self._parameters(name, node.args))
        returns = None if isinstance(node, ast.Lambda) else node.returns
        return Function(
            name=name,
            signature=inspect.Signature(
                parameters, return_annotation=inspect.Signature.empty if returns is None else _text(returns)
            ),
            doc=None if isinstance(node, ast.Lambda) else ast.get_docstring(node),
            arguments=_arguments(node.args, parameters),
        )

    def _parameters(self, name: str, given: ast.arguments) -> Iterator[inspect.Parameter]:
        by_position = next(iter([*given.posonlyargs, *filter(None, [given.vararg])]), None)
        if by_position is not None:
            star = "*" if by_position is given.vararg else "the positional-only "
            expected = f"parameters of {name} that can be given by name, as the interface does"
            self._refuse(by_position, expected, f"{star}{by_position.arg}")
        named = [*given.args, *given.kwonlyargs, *filter(None, [given.kwarg])]
        if len(named) > MAX_PARAMETERS:
            self._refuse(named[MAX_PARAMETERS], f"at most {MAX_PARAMETERS} parameters of {name}", f"{len(named)}")
        seen: set[str] = set()
        for node in named:  # neither is found by the parser, only by the compiler
            if node.arg in seen or node.arg == "__debug__":
                self._refuse(node, f"each parameter of {name} once, under a name that can be bound", node.arg)
            seen.add(node.arg)
        for node, default in _with_defaults(given):
            kind = inspect.Parameter.KEYWORD_ONLY if node in given.kwonlyargs else _ORDINARY
            yield inspect.Parameter(node.arg, kind, default=_default(default), annotation=_annotation(node))
        if given.kwarg:
            yield inspect.Parameter(given.kwarg.arg, inspect.Parameter.VAR_KEYWORD, annotation=_annotation(given.kwarg))


_ORDINARY: Final = inspect.Parameter.POSITIONAL_OR_KEYWORD


def _with_defaults(given: ast.arguments) -> list[tuple[ast.arg, ast.expr | None]]:
    without: list[ast.expr | None] = [None] * (len(given.args) - len(given.defaults))
    ordinary = zip(given.args, [*without, *given.defaults], strict=True)
    return [*ordinary, *zip(given.kwonlyargs, given.kw_defaults, strict=True)]


def _arguments(given: ast.arguments, parameters: list[inspect.Parameter]) -> dict[str, Any]:
    """JSON Schema of the arguments: required are those without default, others only where there is **kwargs."""
    return {
        "type": "object",
        "properties": {node.arg: schema_of(node.annotation, default) for node, default in _with_defaults(given)},
        "required": [
            each.name for each in parameters if each.default is each.empty and each.kind is not each.VAR_KEYWORD
        ],
        "additionalProperties": given.kwarg is not None and schema_of(given.kwarg.annotation, None),
    }


def _annotation(node: ast.arg) -> Any:
    return inspect.Parameter.empty if node.annotation is None else _text(node.annotation)


def _default(node: ast.expr | None) -> Any:
    if node is None:
        return inspect.Parameter.empty
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return Unevaluated(_text(node))


def _text(node: ast.expr) -> str:
    try:
        return ast.unparse(node)
    except (ValueError, RecursionError):  # a number of more digits than Python writes; a chain of thousands
        return "..."


def _is_main(test: ast.expr) -> bool:
    """Whether it is `__name__ == "__main__"`, which does not hold in the jail."""
    return (
        isinstance(test, ast.Compare)
        and isinstance(test.left, ast.Name)
        and test.left.id == "__name__"
        and len(test.ops) == 1
        and isinstance(test.ops[0], ast.Eq)
    )


def _bodies(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    """The blocks of if, try, with, for, while and match, but for what runs only where the module is a program."""
    if isinstance(statement, ast.If) and _is_main(statement.test):
        yield statement.orelse
        return
    for part in ("body", "handlers", "cases", "orelse", "finalbody"):
        inner: list[Any] = getattr(statement, part, [])
        if part in ("handlers", "cases"):
            yield from (block.body for block in inner)
        else:
            yield inner
