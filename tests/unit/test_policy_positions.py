"""Positions in TOML texts: as the writer of the text knows them, and of exactly what tomllib finds in it."""

import json
import tomllib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from plugind.policy.positions import Position, find

TRICKY = st.text(alphabet="ab0 #[]{}=,.'\"\\\n\té漢", max_size=8)
BARE = st.text(alphabet="abz09_-", min_size=1, max_size=4)


class Writer:
    """Writes TOML and notes where each thing begins, by counting what it has written."""

    def __init__(self, draw):
        self.draw = draw
        self.text = ""
        self.values = {}

    def here(self):
        return Position(self.text.count("\n") + 1, len(self.text) - (self.text.rfind("\n") + 1) + 1)

    def write(self, *parts):
        self.text += "".join(parts)

    def space(self):
        self.write(self.draw(st.sampled_from(["", " ", "\t "])))

    def blank(self):
        self.write(self.draw(st.sampled_from(["", " ", "\n", " # a ] } \" ' comment = 1\n", "\n\n  "])))

    def line_end(self):
        self.write(self.draw(st.sampled_from(["", "  ", " # [x] = '''"])), "\n")

    def key(self, taken):
        """A key that is not in `taken`, as it is written and as it is meant."""
        kind = self.draw(st.sampled_from(["bare", "basic", "literal"]))
        if kind == "bare":
            name = self.draw(BARE.filter(lambda each: each not in taken))
            return name, name
        name = self.draw(TRICKY.filter(lambda each: each not in taken))
        if kind == "literal" and not set(name) & {"'", "\n"}:
            return f"'{name}'", name
        return json.dumps(name), name

    def pair(self, path, taken):
        parts = []
        for _ in range(self.draw(st.integers(1, 2))):
            written, name = self.key(taken if not parts else ())
            parts.append(name)
            if len(parts) > 1:
                self.write(".")
                self.space()
            self.values[(*path, *parts)] = self.here()
            self.write(written)
            self.space()
        taken.add(parts[0])
        self.write("=")
        self.space()
        self.value((*path, *parts))

    def value(self, path, depth=0):
        self.values[path] = self.here()
        kinds = ["scalar", "basic", "literal", "long basic", "long literal"] + ["array", "inline"] * (depth < 2)
        kind = self.draw(st.sampled_from(kinds))
        if kind == "scalar":
            self.write(self.draw(st.sampled_from(["0", "-1.5e3", "true", "1979-05-27 07:32:00", "0xff", "nan"])))
        elif kind == "basic":
            self.write(json.dumps(self.draw(TRICKY)))
        elif kind == "literal":
            self.write("'", self.draw(TRICKY).replace("'", "").replace("\n", ""), "'")
        elif kind == "long basic":
            inside = self.draw(TRICKY).replace("\\", "\\\\").replace('"', '\\"')
            self.write('"""', inside, self.draw(st.sampled_from(["", '"', '""', ' ""'])), '"""')
        elif kind == "long literal":
            inside = self.draw(TRICKY).replace("'", "")
            self.write("'''", inside, self.draw(st.sampled_from(["", "'", "''"])), "'''")
        elif kind == "array":
            self.array(path, depth)
        else:
            self.inline(path)

    def array(self, path, depth):
        self.write("[")
        count = self.draw(st.integers(0, 3))
        for index in range(count):
            self.blank()
            self.value((*path, index), depth + 1)
            self.blank()
            if index < count - 1 or self.draw(st.booleans()):
                self.write(",")
        self.blank()
        self.write("]")

    def inline(self, path):
        self.write("{")
        taken = set()
        for index in range(self.draw(st.integers(0, 2))):
            self.write("," if index else "")
            self.space()
            written, name = self.key(taken)
            taken.add(name)
            self.write(written)
            self.space()
            self.write("=")
            self.space()
            self.values[(*path, name)] = self.here()
            self.write(self.draw(st.sampled_from(["1", "'#'", "[]", '"}"', "false"])))
            self.space()
        self.write("}")

    def pairs(self, path):
        taken = set()
        for _ in range(self.draw(st.integers(0, 3))):
            self.space()
            self.pair(path, taken)
            self.line_end()
            self.blank()
            if not self.text.endswith("\n"):
                self.write("\n")
        return taken

    def document(self):
        taken = self.pairs(())
        for _ in range(self.draw(st.integers(0, 3))):
            written, name = self.key(taken)
            taken.add(name)
            times = self.draw(st.integers(0, 2))  # 0: a table; else so many elements of an array of tables
            for index in range(times or 1):
                self.write("[[" if times else "[")
                self.space()
                start = self.here()
                self.values.setdefault((name,), start)
                path = (name, index) if times else (name,)
                if times:
                    self.values[path] = self.values[name,]
                self.write(written, " ", "]]" if times else "]")
                self.line_end()
                self.pairs(path)


def paths(value, path=()):
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from paths(inner, (*path, key))


@settings(max_examples=40)
@given(st.data())
def test_positions_are_those_where_the_writer_wrote_and_of_all_that_tomllib_finds(data):
    writer = Writer(data.draw)
    writer.document()
    found = find(writer.text)
    assert set(found.values) == set(paths(tomllib.loads(writer.text)))
    assert {path: found.values[path] for path in writer.values} == writer.values


@pytest.mark.parametrize(
    "text,path,key,value",
    [
        ("a = 1", ("a",), "1:1", "1:5"),
        ("\n  a.b = [1,\n 2]", ("a", "b", 1), "2:5", "3:2"),
        ('[stage."x y"]\ntiers = []', ("stage", "x y"), "1:8", "1:8"),
        ('[stage."x y"]\ntiers = []', ("stage", "x y", "tiers"), "2:1", "2:9"),
        ("[a.b.c]\n[a]", ("a",), "2:2", "2:2"),
        ("[[a]]\n[a.b]\nc = 1\n[[a]]\n[a.b]\n c = 2", ("a", 1, "b", "c"), "6:2", "6:6"),
        ("a = {b = 1, c = {d = 2}}", ("a", "c", "d"), "1:18", "1:22"),
        ("# none\n", ("a",), "1:1", "1:1"),
        ("[a]\nb = 1", ("a", "missing"), "1:2", "1:2"),
    ],
)
def test_position(text, path, key, value):
    found = find(text)
    assert (str(found.key(path)), str(found.value(path))) == (key, value)


@given(st.text(alphabet="ab=[]{}'\"\\\n#., 1", max_size=30))
@example('"')
@example("[[")
@example("a = [[[")
@example("a = [}")
@example('"\\1"')
def test_text_that_is_no_toml_ends_too(text):
    try:
        assert isinstance(find(text).value(("a",)), Position)
    except tomllib.TOMLDecodeError:  # a key with an escape that there is not
        with pytest.raises(tomllib.TOMLDecodeError):
            tomllib.loads(text)
