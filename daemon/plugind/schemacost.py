"""How much work a JSON Schema can make of one value, told before it is used.

A schema of a few lines can need 2**40 evaluations: by alternatives that refer to the same next part (a0 → a1 twice, a1
→ a2 twice, …), or by two alternatives that both go on into the same child at every level. The validator cannot be
interrupted and the schema comes from the plugin, so the number is bounded beforehand: `evaluations(document)[d]` is the
largest number of subschemas that are evaluated at one place of the value that lies d levels deep.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote

from plugind.errors import InvalidSchemaError
from plugind.jsontext import JsonValue

CAP: Final = 10**12
"""Above this the exact number does not matter."""
MAX_STEPS: Final = 1_000_000
"""Steps of this computation itself."""
MAX_IN_PLACE: Final = 10_000
"""Subschemas that may be evaluated at one place before going into the value."""

_IN_PLACE_ONE = ("not", "if", "then", "else")
_IN_PLACE_LIST = ("allOf", "anyOf", "oneOf")
_IN_PLACE_MAP = ("dependentSchemas", "dependencies")
_EVERY_MEMBER = ("additionalProperties", "unevaluatedProperties", "propertyNames")
_EVERY_ITEM = ("items", "contains", "unevaluatedItems", "additionalItems")
_MEMBERS, _ITEMS = "members", "items"
_INDEX = re.compile(r"0|[1-9][0-9]{0,9}")

_Label = tuple[str, str]
"""Which child of the value: ("members", name) or ("items", index); an empty second part means every one."""


@dataclass(slots=True)
class _Node:
    own: int = 1
    in_place: list[_Node] = field(default_factory=list)
    children: list[tuple[_Label, _Node]] = field(default_factory=list)


def evaluations(document: JsonValue, max_depth: int) -> tuple[int, ...]:
    """Most subschemas evaluated at one place of a value, by its depth from 0 to `max_depth`.

    Raises InvalidSchemaError for a schema that refers to itself without going into the value, or is too entangled.
    """
    root, order = _in_order(document)
    total: dict[int, int] = {}
    for node in order:
        total[id(node)] = node.own + sum(total[id(part)] for part in node.in_place)
        if total[id(node)] > MAX_IN_PLACE:
            raise InvalidSchemaError(
                f"checks too much at one place (expected at most {MAX_IN_PLACE} subschemas and choices)"
            )
    closures = _closures(order)
    result = [total[id(root)]]
    steps = 0
    for _ in range(max_depth):
        steps += sum(map(len, closures.values()))
        if steps > MAX_STEPS:
            raise InvalidSchemaError("is too entangled to bound the work it makes (expected fewer cross-references)")
        above, total = total, {key: _largest(children, total) for key, children in closures.items()}
        result.append(total.get(id(root), 0))
        if total == above:  # and so are all below
            break
    return tuple(result + [result[-1]] * (max_depth + 1 - len(result)))


def _largest(children: Counter[tuple[_Label, int]], total: dict[int, int]) -> int:
    """The child of the value that meets most evaluations; what applies to every child adds to each."""
    by_label: Counter[_Label] = Counter()
    for (label, target), times in children.items():
        by_label[label] += times * total.get(target, 0)
    largest = {_MEMBERS: 0, _ITEMS: 0}
    for (name, part), count in by_label.items():
        if part and count > largest[name]:
            largest[name] = count
    return min(CAP, max(by_label[name, ""] + count for name, count in largest.items()))


def _closures(order: list[_Node]) -> dict[int, Counter[tuple[_Label, int]]]:
    """For each node: how often which node meets which child, with everything that is evaluated in place."""
    result: dict[int, Counter[tuple[_Label, int]]] = {}
    steps = 0
    for node in order:
        closure = Counter((label, id(target)) for label, target in node.children)
        for part in node.in_place:
            closure.update(result[id(part)])
            steps += len(result[id(part)])
        if steps > MAX_STEPS:
            raise InvalidSchemaError("is too entangled to bound the work it makes (expected fewer cross-references)")
        result[id(node)] = closure
    return {key: closure for key, closure in result.items() if closure}


def _in_order(document: JsonValue) -> tuple[_Node, list[_Node]]:
    """The root's node, and all nodes with what is evaluated in place before what needs it."""
    root = _Graph(document).root
    order: list[_Node] = []
    done: set[int] = set()
    waiting = [root]
    while waiting:
        for node in _in_place_first(waiting.pop(), done):
            order.append(node)
            waiting.extend(target for _, target in node.children if id(target) not in done)
    return root, order


def _in_place_first(start: _Node, done: set[int]) -> Iterator[_Node]:
    """What is evaluated in place with `start` and not done yet, depth first; each is done when it was yielded."""
    entered: set[int] = set()
    stack = [start]
    while stack:
        node = stack[-1]
        if id(node) in done:
            stack.pop()
        elif id(node) in entered:
            stack.pop()
            done.add(id(node))
            yield node
        else:
            entered.add(id(node))
            if any(id(part) in entered and id(part) not in done for part in node.in_place):
                raise InvalidSchemaError("refers to itself without going into the value (expected an end)")
            stack.extend(node.in_place)


class _Graph:
    """The schema's parts, each one node, however many references lead to it."""

    def __init__(self, document: JsonValue) -> None:
        self._document = document
        self._anchors: dict[str, JsonValue] = {}
        for name, place in _anchors(document):
            # Which of two the validator follows is its own affair, so we could bound the wrong one.
            if name in self._anchors:
                raise InvalidSchemaError(f"has the anchor {name[:60]!a} twice (expected each one once)")
            self._anchors[name] = place
        self._nodes: dict[int, _Node] = {}
        pending: list[tuple[JsonValue, _Node]] = []
        self._pending = pending
        self.root = self._node(document)
        while pending:
            self._fill(*pending.pop())

    def _node(self, schema: JsonValue) -> _Node:
        if not isinstance(schema, dict):
            return _Node()
        node = self._nodes.get(id(schema))
        if node is None:
            node = self._nodes[id(schema)] = _Node()
            self._pending.append((schema, node))
        return node

    def _fill(self, schema: JsonValue, node: _Node) -> None:
        assert isinstance(schema, dict)  # noqa: S101 - only objects are pending
        node.own = _own(schema)
        node.in_place = [self._node(part) for part in self._in_place(schema)]
        node.children = [(label, self._node(child)) for label, child in _children(schema)]

    def _in_place(self, schema: dict[str, JsonValue]) -> Iterator[JsonValue]:
        for key in ("$ref", "$dynamicRef"):
            target = schema.get(key)
            if isinstance(target, str):
                yield self._resolve(target)
        yield from (schema[key] for key in _IN_PLACE_ONE if key in schema)
        for key in _IN_PLACE_LIST:
            parts = schema.get(key)
            yield from parts if isinstance(parts, list) else ()
        for key in _IN_PLACE_MAP:
            named = schema.get(key)
            yield from named.values() if isinstance(named, dict) else ()

    def _resolve(self, reference: str) -> JsonValue:
        """The part a reference names. What only the validator can follow is refused: its work would not be counted."""
        fragment = unquote(reference[1:])
        node: JsonValue = self._document
        if fragment and not fragment.startswith("/"):
            node = self._anchors.get(fragment)
        else:
            for part in fragment.split("/")[1:]:
                node = _step(node, part.replace("~1", "/").replace("~0", "~"))
        if not isinstance(node, dict | bool):
            raise InvalidSchemaError(f"refers to {reference[:60]!a} (expected a part of it that is a schema)")
        return node


def _own(schema: dict[str, JsonValue]) -> int:
    """One, and ten for each array or object of an enum: scalars are looked up, these are compared one by one."""
    choices = schema.get("enum")
    return 1 + 10 * sum(isinstance(choice, dict | list) for choice in choices) if isinstance(choices, list) else 1


def _step(node: JsonValue, part: str) -> JsonValue:
    """One step of a JSON pointer, None where it leads nowhere. RFC 6901: an index has no sign, no leading zero."""
    if isinstance(node, dict):
        return node.get(part)
    if isinstance(node, list) and _INDEX.fullmatch(part) and int(part) < len(node):
        return node[int(part)]
    return None


def _children(schema: dict[str, JsonValue]) -> Iterator[tuple[_Label, JsonValue]]:
    properties = schema.get("properties")
    if isinstance(properties, dict):
        yield from (((_MEMBERS, f"={name}"), child) for name, child in properties.items())
    patterns = schema.get("patternProperties")
    if isinstance(patterns, dict):
        yield from (((_MEMBERS, ""), child) for child in patterns.values())
    yield from (((_MEMBERS, ""), schema[key]) for key in _EVERY_MEMBER if key in schema)
    prefix = schema.get("prefixItems")
    if isinstance(prefix, list):
        yield from (((_ITEMS, str(index)), child) for index, child in enumerate(prefix))
    yield from (((_ITEMS, ""), schema[key]) for key in _EVERY_ITEM if key in schema)


def _anchors(node: JsonValue) -> Iterator[tuple[str, JsonValue]]:
    if isinstance(node, list):
        for child in node:
            yield from _anchors(child)
    if isinstance(node, dict):
        for key in ("$anchor", "$dynamicAnchor"):
            name = node.get(key)
            if isinstance(name, str):
                yield name, node
        for child in node.values():
            yield from _anchors(child)
