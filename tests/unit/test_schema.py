"""JSON Schema 2020-12: what documents mean, what is refused before it is used, and how much work one may make."""

from __future__ import annotations

import json
import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugind import jsontext, schemacost
from plugind.errors import InvalidSchemaError
from plugind.schema import DIALECT, MAX_VALUES_FOR_ALL_ERRORS, Schema, kind, measure


def parse(document):
    return Schema.parse(json.dumps(document).encode(), "in.json")


def refusal(document):
    with pytest.raises(InvalidSchemaError) as caught:
        parse(document)
    return str(caught.value)


TREE = {
    "$defs": {
        "node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}, "additionalProperties": False}
    },
    "$ref": "#/$defs/node",
}
VEHICLE = {
    "type": "object",
    "properties": {"kind": {"type": "string"}},
    "required": ["kind"],
    "if": {"properties": {"kind": {"const": "car"}}},
    "then": {"properties": {"wheels": {"type": "integer"}}, "required": ["wheels"]},
    "else": {"properties": {"sails": {"type": "integer"}}},
    "unevaluatedProperties": False,
}
ALL_OF = {"allOf": [{"properties": {"a": True}}, {"properties": {"b": True}}]}
EXTENSIBLE = {
    "$defs": {
        "list": {
            "$dynamicAnchor": "node",
            "type": "object",
            "properties": {"children": {"type": "array", "items": {"$dynamicRef": "#node"}}},
        }
    },
    "$ref": "#/$defs/list",
}
# Schema, values that fit, values that do not: from the text of the specification (core and validation, 2020-12).
MEANINGS = {
    "true": (True, [None, 1, {}], []),
    "false": (False, [], [None, 1, {}]),
    "empty": ({}, [None, 1, {}], []),
    "integer means value": ({"type": "integer"}, [1, 1.0, -(10**30)], [1.5, "1", True, None]),
    "number is no boolean": ({"type": "number"}, [1, 1.5], [True, "1"]),
    "types": ({"type": ["null", "string"]}, [None, ""], [0, []]),
    "enum": ({"enum": [1, "a", None, [2], {"x": 1}]}, [1, 1.0, "a", None, [2], {"x": 1}], [True, "b", [2, 2], {}]),
    "const keeps booleans apart": ({"const": False}, [False], [0, None]),
    "const in depth": ({"const": {"a": [1, {"b": None}]}}, [{"a": [1.0, {"b": None}]}], [{"a": [1, {}]}]),
    "multipleOf": ({"multipleOf": 0.01}, [4.02, 0, 1], [4.025]),
    "limits": ({"exclusiveMinimum": 1, "maximum": 2}, [1.1, 2, "x"], [1, 2.1]),
    "large integers": ({"maximum": 2**64}, [2**64], [2**64 + 1]),
    "maxLength counts characters": ({"maxLength": 2}, ["\U0001f600\U0001f600", "ab"], ["abc"]),
    "pattern is not anchored": ({"pattern": "b+"}, ["abc", 1], ["ac"]),
    "format is an annotation": ({"format": "date"}, ["not a date"], []),
    "prefixItems and items": (
        {"prefixItems": [{"type": "integer"}], "items": {"type": "string"}},
        [[], [1], [1, "a"]],
        [["a"], [1, 2]],
    ),
    "items false": ({"prefixItems": [True], "items": False}, [[], [1]], [[1, 2]]),
    "an array of items is of older drafts": ({"items": {"minimum": 2}}, [[2, 3]], [[1]]),
    "contains": ({"contains": {"const": 1}, "minContains": 2, "maxContains": 3}, [[1, 1], [1, 1, 1, 2]], [[1], [1] * 4, []]),
    "minContains zero": ({"contains": {"const": 1}, "minContains": 0}, [[], [2]], []),
    "uniqueItems": ({"uniqueItems": True}, [[1, True], [0, False], [[1], [True]]], [[1, 1.0], [{"a": 1}, {"a": 1}]]),
    "required": ({"required": ["a"]}, [{"a": None}, []], [{}]),
    "properties, patterns, the rest": (
        {"properties": {"a": {"type": "string"}}, "patternProperties": {"^x": {"type": "integer"}}, "additionalProperties": False},
        [{}, {"a": "", "x1": 1}],
        [{"a": 1}, {"x1": ""}, {"b": 1}],
    ),
    "additionalProperties sees only its own schema": (
        {**ALL_OF, "additionalProperties": False},
        [{}],
        [{"a": 1}, {"b": 1}],
    ),
    "unevaluatedProperties sees through allOf": (
        {**ALL_OF, "unevaluatedProperties": False},
        [{}, {"a": 1, "b": 1}],
        [{"c": 1}, {"a": 1, "c": 1}],
    ),
    "unevaluatedProperties sees through if and then": (
        VEHICLE,
        [{"kind": "car", "wheels": 4}, {"kind": "boat", "sails": 2}],
        [{"kind": "car", "wheels": 4, "sails": 2}, {"kind": "boat", "wheels": 4}, {"kind": "car"}],
    ),
    "unevaluatedProperties sees through $ref": (
        {"$defs": {"b": {"properties": {"x": True}}}, "$ref": "#/$defs/b", "unevaluatedProperties": False},
        [{"x": 1}],
        [{"y": 1}],
    ),
    "unevaluatedProperties counts the alternatives that fit": (
        {
            "anyOf": [{"properties": {"a": {"const": 1}}, "required": ["a"]}, {"properties": {"b": True}, "required": ["b"]}],
            "unevaluatedProperties": False,
        },
        [{"a": 1}, {"b": 2}, {"a": 1, "b": 2}],
        [{"a": 2, "b": 2}, {"a": 1, "c": 1}],
    ),
    "unevaluatedProperties does not look into not": (
        {"not": {"properties": {"a": True}, "required": ["b"]}, "unevaluatedProperties": False},
        [{}],
        [{"a": 1}],
    ),
    "unevaluatedProperties with a schema": ({"properties": {"a": True}, "unevaluatedProperties": {"type": "integer"}}, [{"a": "", "b": 1}], [{"b": ""}]),
    "unevaluatedItems sees through allOf": (
        {"allOf": [{"prefixItems": [True, {"type": "integer"}]}], "unevaluatedItems": False},
        [[], [1], ["a", 2]],
        [["a", 2, 3], ["a", "b"]],
    ),
    "unevaluatedItems counts contains": ({"contains": {"const": 1}, "unevaluatedItems": False}, [[1], [1, 1]], [[1, 2]]),
    "propertyNames": ({"propertyNames": {"maxLength": 2}}, [{"ab": 1}, []], [{"abc": 1}]),
    "dependentRequired": ({"dependentRequired": {"a": ["b"]}}, [{"b": 1}, {"a": 1, "b": 1}], [{"a": 1}]),
    "dependentSchemas": ({"dependentSchemas": {"a": {"maxProperties": 1}}}, [{"a": 1}, {"b": 1, "c": 1}], [{"a": 1, "b": 1}]),
    "oneOf": ({"oneOf": [{"multipleOf": 2}, {"multipleOf": 3}]}, [2, 3], [1, 6]),
    "not": ({"not": {"type": "string"}}, [1], ["a"]),
    "then without if": ({"then": False}, [1], []),
    "siblings of $ref count": ({"$defs": {"a": {"minimum": 1}}, "$ref": "#/$defs/a", "maximum": 2}, [1, 2], [0, 3]),
    "$anchor": ({"$defs": {"x": {"$anchor": "num", "type": "number"}}, "items": {"$ref": "#num"}}, [[1]], [["a"]]),
    "$dynamicRef within one document": (EXTENSIBLE, [{"children": [{"children": []}]}], [{"children": [{"children": 1}]}]),
    "recursive $ref": (TREE, [{}, {"next": {"next": {}}}], [{"next": {"next": {"prev": 1}}}, 1]),
    "$ref to the root": ({"properties": {"a": {"$ref": "#"}}, "maxProperties": 1}, [{"a": {"a": {}}}], [{"a": {"a": 1, "b": 2}}]),
    "escaped pointer": ({"$defs": {"a/b~c%d": {"type": "null"}}, "items": {"$ref": "#/$defs/a~1b~0c%25d"}}, [[None]], [[1]]),
    "property of a keyword's name": ({"properties": {"$ref": {"type": "integer"}}}, [{"$ref": 1}], [{"$ref": "x"}]),
}  # fmt: skip


@pytest.mark.parametrize("name", MEANINGS)
def test_a_schema_means_what_the_specification_says(name):
    document, good, bad = MEANINGS[name]
    schema = parse(document)
    assert [(value, schema.errors(value)) for value in good if schema.errors(value)] == []
    assert [value for value in bad if not schema.errors(value)] == []


def test_the_dialect_may_be_named_if_it_is_this_one():
    assert parse({"$schema": DIALECT}).errors(1) == []
    assert parse({"$schema": DIALECT + "#"}).errors(1) == []


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"$ref": "https://example.org/s.json"}, "at /$ref: expected a reference within this document (#…)"),
        ({"items": [{"$ref": "other.json#/a"}]}, "at /items/0/$ref: expected a reference within this document"),
        ({"properties": {"a/b": {"$ref": "/etc/passwd"}}}, "at /properties/a~1b/$ref: expected a reference within"),
        ({"$defs": {"a": {"$ref": "file:///etc/passwd"}}}, "at /$defs/a/$ref: expected a reference within"),
        ({"items": {"$ref": ""}}, "at /items/$ref: expected a reference within"),
        ({"items": {"$dynamicRef": "x#y"}}, "at /items/$dynamicRef: expected a reference within"),
        ({"items": {"$recursiveRef": "x"}}, "at /items/$recursiveRef: expected a reference within"),
        ({"$id": "https://example.org/s.json"}, "at /$id: $id is not allowed"),
        ({"$defs": {"a": {"$id": "a"}}}, "at /$defs/a/$id: $id is not allowed"),
        ({"const": {"$ref": "x"}}, "at /const/$ref: expected a reference within"),
        (
            {"$schema": "http://json-schema.org/draft-07/schema#"},
            "at /$schema: expected https://json-schema.org/draft/2020",
        ),
        (
            {"items": {"$schema": "https://example.org/x"}},
            "at /items/$schema: expected https://json-schema.org/draft/2020",
        ),
        ({"$ref": "#/$defs/none"}, "'/$defs/none' does not exist"),
        ({"items": {"$ref": "#none"}}, "'none' does not exist"),
        ({"$ref": 1}, "at /$ref: 1"),
        ({"type": "text"}, 'at /type: "text"'),
        ({"type": ["string", "string"]}, "at /type"),
        ({"properties": {"a": {"minimum": "1"}}}, 'at /properties/a/minimum: "1"'),
        ({"items": [True]}, "at /items: an array of 1"),
        ({"multipleOf": 0}, "at /multipleOf: 0"),
        ({"required": "a"}, 'at /required: "a"'),
        ({"anyOf": []}, "at /anyOf: an array of 0"),
        ({"minLength": -1}, "at /minLength: -1"),
        ({"pattern": "("}, "at /pattern: "),
        ({"pattern": "(?=a)b"}, "no lookaround, no back-references"),
        ({"pattern": r"(a)\1"}, "no lookaround, no back-references"),
        ({"patternProperties": {"(?<!a)b": True}}, "no lookaround, no back-references"),
        ([], "expected a JSON Schema (an object, true or false), got an array"),
        (None, "expected a JSON Schema (an object, true or false), got null"),
        ("x", "expected a JSON Schema (an object, true or false), got a string"),
    ],
)
def test_a_broken_or_far_reaching_schema_is_refused_with_where(document, words):
    text = refusal(document)
    assert text.startswith("in.json: ")
    assert words in text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "in.json: line 1 column 1"),
        (b'{"type": "string", "type": "null"}', "in.json: duplicate key 'type'"),
        (b'{"not": ' * 65 + b"{}" + b"}" * 65, "in.json: expected at most 64 levels of nesting"),
        (b'{"maximum": 1e999}', "in.json: number"),
        (b" " * 262_145, "in.json: expected at most 262144 bytes, got 262145"),
    ],
    ids=["empty", "twice", "deep", "infinite", "large"],
)
def test_a_schema_is_strict_json(text, words):
    with pytest.raises(InvalidSchemaError) as caught:
        Schema.parse(text, "in.json")
    assert str(caught.value).startswith(words)


def test_many_faults_are_told_up_to_ten():
    assert refusal({"properties": {str(n): {"$ref": "x"} for n in range(50)}}).count("within this document") == 10


@pytest.mark.parametrize(
    ("document", "value", "expected"),
    [
        ({"items": {"properties": {"a/b": {"type": "string"}}}}, [{}, {"a/b": 1}], 'at /1/a~1b: 1 is not of type "string" (expected type string)'),
        ({"required": ["a"]}, {}, 'at /: "a" is a required property (expected required a)'),
        ({"maximum": 5}, 6, "at /: 6 is greater than the maximum of 5 (expected maximum 5)"),
        ({"type": "array"}, {"a": 1}, 'at /: an object of 1 is not of type "array" (expected type array)'),
        ({"additionalProperties": False}, {"a": 1}, "at /: False schema does not allow an object of 1 (expected no members)"),
        ({"properties": {"b": True}, "additionalProperties": False}, {"a": 1}, "at /: Additional properties are not allowed ('a' was unexpected) (expected no such member)"),
        ({"items": False}, [1], "at /0: False schema does not allow 1 (expected nothing here)"),
        ({"enum": [1, "b"]}, 2, 'at /: 2 is not one of 1 or "b" (expected enum 1, b)'),
        ({"type": "string"}, math.pi, 'at /: 3.141592653589793 is not of type "string" (expected type string)'),
    ],
)  # fmt: skip
def test_an_error_names_the_place_the_value_and_what_was_expected(document, value, expected):
    assert parse(document).errors(value) == [expected]


def test_of_alternatives_the_nearest_is_told():
    schema = parse({"oneOf": [{"type": "string"}, {"properties": {"a": {"items": {"type": "string"}}}}]})
    (error,) = schema.errors({"a": ["x", 1]})
    assert "nearest: at /a/1: 1 is not of type" in error


def test_errors_are_ordered_by_place_and_limited():
    schema = parse({"items": {"type": "string"}})
    assert [error.partition(": ")[0] for error in schema.errors([0] * 12, limit=12)] == [f"at /{n}" for n in range(12)]
    assert len(schema.errors([0] * 12)) == 10
    assert len(schema.errors([0] * 12, limit=3)) == 3


def test_long_values_are_cut_short_in_errors():
    (error,) = parse({"type": "integer"}).errors("x" * 100_000)
    assert len(error) < 500


def test_non_finite_numbers_are_numbers_where_they_are_allowed():
    schema = parse({"items": {"type": "number", "maximum": 5}})
    assert schema.errors([-math.inf, 1.0], non_finite=True) == []
    assert [error[:5] for error in schema.errors([math.inf, math.nan], non_finite=True)] == ["at /0", "at /1"]
    assert parse({"type": "number"}).errors(math.nan, non_finite=True) == []
    assert parse({"additionalProperties": {"type": "null"}}).errors({"a": [math.inf]}, non_finite=True)


def test_a_large_value_gets_its_first_error_only():
    schema = parse({"items": {"type": "string"}})
    assert len(schema.errors([0] * (MAX_VALUES_FOR_ALL_ERRORS + 10))) == 1


def test_a_long_enum_and_many_wrong_values_give_one_error_in_little_time():
    schema = parse({"items": {"enum": [str(number) for number in range(20_000)]}})
    started = time.process_time()
    assert len(schema.errors(["x"] * 15_000)) == 1
    assert time.process_time() - started < 1  # all errors took a minute: each carries the enum


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@given(JSON)
def test_a_value_fits_a_schema_that_is_itself_and_not_its_contrary(value):
    text = jsontext.dumps(value)
    assert Schema.parse(b'{"const": ' + text + b"}", "s").errors(value) == []
    assert Schema.parse(b'{"not": {"const": ' + text + b"}}", "s").errors(value)


KEYWORDS = [
    *("$ref", "$defs", "$anchor", "$dynamicRef", "$dynamicAnchor", "allOf", "anyOf", "not", "if", "then", "properties"),
    *(
        "items",
        "prefixItems",
        "contains",
        "unevaluatedProperties",
        "dependentSchemas",
        "enum",
        "const",
        "type",
        "pattern",
    ),
]
POINTERS = st.sampled_from(["#", "#a", "#/$defs/a", "#/allOf/0", "#/allOf/+0", "#/allOf/00", "#/properties/a", "x"])
DOCUMENTS = st.recursive(
    st.booleans() | POINTERS | st.sampled_from(["a", "string", 1, None]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*KEYWORDS, "a"]), inner, max_size=4),
    max_leaves=12,
)


@given(DOCUMENTS, JSON)
def test_any_document_is_refused_or_judges_any_value(document, value):
    try:
        schema = parse(document)
    except InvalidSchemaError:
        return
    assert all(error.startswith("at /") for error in schema.errors(value))


@given(JSON)
def test_measuring_counts_values_and_levels(value):
    def levels(node):
        children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else None
        return 0 if children is None else 1 + max(map(levels, children), default=0)

    def count(node):
        children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        return 1 + sum(map(count, children))

    assert measure(value) == (levels(value), count(value))


def test_kinds_are_named_in_the_words_of_json():
    assert [kind(value) for value in (None, True, 1, 1.5, "", [], {})] == [
        "null", "a boolean", "a number", "a number", "a string", "an array", "an object",
    ]  # fmt: skip


# --- the cost ---


def evaluations(document, depth=4):
    return schemacost.evaluations(document, depth)


def doubling(reference, count):
    """allOf/1 needs allOf/2 twice, that allOf/3 twice, …"""
    parts = [{"anyOf": [{"$ref": reference % (n + 1)}] * 2} for n in range(1, count)]
    return {"allOf": [{"anyOf": [{"$ref": reference % 1}, True]}, *parts, {"type": "string"}]}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"type": "string"}, (1, 0, 0)),
        (True, (1, 0, 0)),
        ({"allOf": [{}, {"anyOf": [{}, {}]}], "not": {}}, (6, 0, 0)),
        ({"items": {}}, (1, 1, 0)),
        ({"items": {"allOf": [{}, {}]}, "contains": {}}, (1, 4, 0)),
        ({"properties": {"a": {"not": {}}, "b": {}}}, (1, 2, 0)),
        ({"properties": {"a": {}}, "additionalProperties": {}, "patternProperties": {"x": {}}}, (1, 3, 0)),
        ({"prefixItems": [{}, {"not": {}}], "items": {}}, (1, 3, 0)),
        ({"items": {"$ref": "#"}}, (1, 2, 2)),
        ({"properties": {"a": {"$ref": "#"}, "b": {"$ref": "#"}}}, (1, 2, 2)),
        ({"allOf": [{"items": {"$ref": "#"}}, {"items": {"$ref": "#"}}]}, (3, 8, 16)),
        ({"enum": [1, "a", [], {}]}, (21, 0, 0)),
    ],
)
def test_evaluations_are_counted_by_depth(document, expected):
    assert evaluations(document, 2) == expected


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"$ref": "#"}, "refers to itself without going into the value"),
        ({"allOf": [{"$ref": "#/allOf/0"}]}, "refers to itself without going into the value"),
        ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"not": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"}, "itself"),
        ({"items": {"if": {"$ref": "#/items"}}}, "refers to itself without going into the value"),
        ({"dependentSchemas": {"a": {"$dynamicRef": "#"}}}, "refers to itself without going into the value"),
        (doubling("#/allOf/%d", 20), "checks too much at one place (expected at most 10000"),
        ({"enum": [[number] for number in range(1001)]}, "checks too much at one place"),
        ({"items": {"$ref": "#/allOf/+0"}, "allOf": [{}]}, "refers to '#/allOf/+0' (expected a part of it"),
        ({"items": {"$ref": "#/allOf/00"}, "allOf": [{}]}, "refers to '#/allOf/00' (expected a part of it"),
        ({"items": {"$ref": "#/allOf/" + "0" * 5000}, "allOf": [{}]}, "(expected a part of it that is a schema)"),
        (
            {"$defs": {"a": {"$anchor": "x"}, "b": {"$anchor": "x"}}, "items": {"$ref": "#x"}},
            "has the anchor 'x' twice",
        ),
        ({"$defs": {"a": {"$anchor": "x"}}, "const": {"$anchor": "x"}}, "has the anchor 'x' twice"),
    ],
)
def test_a_schema_whose_work_has_no_bound_is_refused(document, words):
    text = refusal(document)
    assert text.startswith("in.json: ")
    assert words in text


def test_a_pointer_that_only_the_validator_can_follow_hides_no_work():
    assert "(expected a part of it that is a schema)" in refusal(doubling("#/allOf/+%d", 20))


def test_a_schema_that_is_too_entangled_to_be_bounded_is_refused():
    names = [str(number) for number in range(250)]
    every = {name: {"$ref": f"#/$defs/{name}"} for name in names}
    started = time.process_time()
    assert "is too entangled" in refusal({"$defs": {name: {"properties": every} for name in names[:15]} | {
        name: {"properties": {other: {"$ref": f"#/$defs/{other}"} for other in names[:15]}} for name in names[15:]
    }, "properties": every})  # fmt: skip
    assert time.process_time() - started < 10


def test_a_value_that_is_too_much_for_its_schema_is_refused_unchecked():
    schema = parse({"allOf": [{"items": {"$ref": "#"}}, {"items": {"$ref": "#"}}]})
    value = [[1]]
    assert schema.errors(value) == []
    for _ in range(30):
        value = [value]
    started = time.process_time()
    assert schema.errors(value) == [
        "at /: 33 values on 32 levels are too many for this schema (expected fewer alternatives)"
    ]
    assert time.process_time() - started < 1


def test_choices_that_are_compared_one_by_one_are_counted():
    schema = parse({"items": {"enum": [{"a": number} for number in range(900)]}})
    assert schema.errors([{"a": 5}, {"a": 899}]) == []
    assert "too many for this schema" in schema.errors([{"a": 899}] * 20_000)[0]


# Anchored: since jsonschema-rs 0.61.1 one that is not is compiled to something smaller, which is fast.
@pytest.mark.parametrize("pattern", ["^((a{0,50}){0,50}){0,50}b$", "^(.{1,100}){1,100}b"])
def test_a_regular_expression_that_is_large_when_compiled_is_refused(pattern):
    assert "at /pattern: " in refusal({"pattern": pattern})


@pytest.mark.parametrize(
    "pattern", [r"^[\w\s.,;:-]{1,500}$", r"^[^@\s]{1,64}@[^@\s]{1,255}$", "^.{1,1000}$", r"^\d{4}-\d{2}$"]
)
def test_ordinary_regular_expressions_are_taken(pattern):
    schema = parse({"pattern": pattern})
    assert schema.errors("")
