"""The headers of the corpus: what they say is understood, and what is wrong with one is told, not passed over."""

from __future__ import annotations

import re
import tomllib
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugind.provenance import bundle
from plugind.provenance.manifest import parse_manifest
from tests.corpus import building, tampering
from tests.corpus.loader import ROOT, InvalidSpecimenError, Specimen, load, load_all, parse

UNSAFE = """
tries = "reads what is not its own"
inputs = [{cost = 1}, {cost = 2}]
expected = "contained"
outcomes = ["ok", "failed"]
quarantine = true
"""
BENIGN = 'habit = "adds"\ninputs = [[1, 2]]\noutputs = [3]\n'
BLOCKED = 'tries = "asks for much"\ninputs = [1]\nexpected = "blocked"\ncodes = ["NOT_APPROVED"]\nquarantine = false\n'


def source(header: str) -> str:
    return f'"""Adds.\n\n[corpus]\n{header}\n"""\n\n\ndef run(payload, context):\n    return payload\n'


def unsafe(header: str, category: str = "escapes") -> Specimen:
    return parse(source(header), kind="unsafe", category=category, entry="adder.py")


def benign(header: str) -> Specimen:
    return parse(source(header), kind="benign", category="habits", entry="adder.py")


def test_a_header_is_read_with_its_tables():
    made = unsafe(f'{UNSAFE}numbered = "run"\n[manifest.limits]\npids = 4\n[output_schema]\ntype = "number"\n')
    assert (made.name, made.id, made.what) == ("adder", "unsafe-escapes-adder", "reads what is not its own")
    assert (made.outcomes, made.quarantine, made.tier) == ({"ok", "failed"}, True, 2)
    assert [made.payload(run) for run in range(3)] == [
        {"cost": 1, "run": 0},
        {"cost": 2, "run": 1},
        {"cost": 1, "run": 2},
    ]
    assert (made.manifest, made.output_schema, made.input_schema) == ({"limits": {"pids": 4}}, {"type": "number"}, True)


def test_a_script_has_its_header_in_its_leading_comment():
    script = (
        "#!/bin/sh\n" + "".join(f"# {line}".rstrip() + "\n" for line in f"[corpus]\n{BENIGN}".splitlines()) + "echo 3\n"
    )
    made = parse(script, kind="benign", category="habits", entry="adder.sh")
    assert (made.what, made.outputs) == ("adds", (3,))
    assert building.manifest(made, "1.0.0")["runtime"] == "exec"


def test_a_folder_has_its_header_in_the_file_of_its_name(tmp_path):
    folder = tmp_path / "benign/habits/adder"
    (folder / "tables").mkdir(parents=True)
    (folder / "adder.py").write_text(source(BENIGN))
    (folder / "tables/one.json").write_text("1")
    made = load(folder)
    assert (made.entry, dict(made.extra_files)) == ("adder.py", {"tables/one.json": b"1"})


@pytest.mark.parametrize(
    ("header", "told"),
    [
        (UNSAFE + 'color = "red"', "expected only"),
        (UNSAFE + "runs = true", "runs: expected"),
        (UNSAFE + "runs = 0", "runs: expected at least 1"),
        (UNSAFE + "tier = 0", "tier: expected 1 or 2"),
        (UNSAFE + 'approve = "all"', "approve: expected one of"),
        (UNSAFE + 'codes = ["KILLED"]', "expected only with blocked"),
        (UNSAFE + 'why = "because"', "why: expected only where"),
        (UNSAFE + 'tamper = "flip_in_store"', "tamper: expected of what is tampered"),
        (UNSAFE + 'habit = "adds"', "habit: expected only of others"),
        (UNSAFE + "refused = [1]", "refused: expected a list of words"),
        (UNSAFE + "outputs = [1]", "outputs: expected one of each input"),
        (UNSAFE + "[surprise]", "expected the tables"),
        (UNSAFE + "tries = 'twice'", "expected TOML"),
        (UNSAFE.replace("quarantine = true", ""), "quarantine: expected to be said"),
        (UNSAFE.replace("quarantine = true", 'quarantine = "perhaps"'), "quarantine: expected one of"),
        (UNSAFE.replace("quarantine = true", "quarantine = false"), "why: expected where"),
        (UNSAFE.replace("quarantine = true", 'quarantine = "held"'), "why: expected where"),
        (UNSAFE.replace('"failed"', '"sad"'), "outcomes: expected of"),
        (UNSAFE.replace('outcomes = ["ok", "failed"]', ""), "outcomes: expected of what is contained"),
        (UNSAFE.replace('"contained"', '"ok"'), "expected: expected ok of what is benign"),
        (UNSAFE.replace('"contained"', '"fine"'), "expected: expected one of"),
        (UNSAFE.replace('"contained"', '"blocked"'), "codes or says: expected"),
        (UNSAFE.replace("tries", "tried"), "expected only"),
        (UNSAFE.replace("[{cost = 1}, {cost = 2}]", "[]"), "inputs: expected at least one"),
        (UNSAFE.replace("[{cost = 1}, {cost = 2}]", '[3]\nnumbered = "run"'), "numbered: expected tables"),
        (UNSAFE.replace('"reads what is not its own"', '" "'), "tries or habit: expected one sentence"),
    ],
)
def test_a_wrong_header_of_something_unsafe_is_refused(header, told):
    with pytest.raises(InvalidSpecimenError, match=re.escape(told)):
        unsafe(header)


@pytest.mark.parametrize(
    ("header", "told"),
    [
        (BENIGN + "quarantine = false", "quarantine: expected of nothing that is benign"),
        (BENIGN + 'expected = "contained"\noutcomes = ["ok"]', "expected: expected ok of what is benign"),
        (BENIGN + "most_failures_percent = 60", "most_failures_percent: expected"),
        (BENIGN.replace("outputs = [3]", ""), "outputs or check: expected"),
        (BENIGN.replace("habit", "tries"), "tries: expected only of others"),
    ],
)
def test_a_wrong_header_of_something_benign_is_refused(header, told):
    with pytest.raises(InvalidSpecimenError, match=re.escape(told)):
        benign(header)


def test_what_has_no_header_or_no_category_is_refused(tmp_path):
    with pytest.raises(InvalidSpecimenError, match=r"begins with the line \[corpus\]"):
        parse("x = 1\n", kind="benign", category="habits", entry="adder.py")
    with pytest.raises(InvalidSpecimenError, match="expected Python"):
        parse("def", kind="benign", category="habits", entry="adder.py")
    with pytest.raises(InvalidSpecimenError, match="expected a category"):
        parse(source(BENIGN), kind="benign", category="escapes", entry="adder.py")
    for category in ("habits", "files"):
        (tmp_path / "benign" / category).mkdir(parents=True)
        (tmp_path / "benign" / category / "adder.py").write_text(source(BENIGN))
    with pytest.raises(InvalidSpecimenError, match="got twice: adder"):
        load_all(tmp_path)


@given(st.text())
def test_any_header_is_a_specimen_or_refused(text):
    for make in (unsafe, benign):
        try:
            made = make(text)
        except InvalidSpecimenError:
            continue
        assert made.inputs


_values = st.recursive(
    st.booleans() | st.integers() | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)
_tables = st.dictionaries(
    st.from_regex(r"[a-z]{1,8}", fullmatch=True),
    _values
    | st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), _values, min_size=1)
    | st.lists(st.just({"a": 1}), min_size=1),
)


@given(_tables)
def test_the_toml_that_is_written_says_what_it_was_made_of(table):
    assert tomllib.loads(building.as_toml(table)) == table


def test_a_blocked_specimen_needs_no_reason_for_staying_out_of_quarantine():
    assert unsafe(BLOCKED).codes == {"NOT_APPROVED"}


@pytest.mark.parametrize("specimen", load_all(), ids=lambda each: each.id)
def test_each_specimen_has_a_manifest_that_is_good(specimen):
    made = parse_manifest(building.as_toml(building.manifest(specimen, "1.0.0")).encode())
    assert made.name == specimen.name
    assert not specimen.tamper or specimen.tamper in tampering.BY_NAME
    assert bundle.read(building.built(specimen)).manifest.permissions == made.permissions


def test_the_readme_counts_them_as_they_are():
    """The table of categories, and how many of what is unsafe nobody sees."""
    text = (ROOT / "README.md").read_text()
    every = load_all()
    counts = Counter(("benign" if each.benign else "unsafe", each.category) for each in every)
    listed = {
        (kind, name): int(count) for kind, name, count in re.findall(r"\| (unsafe|benign) \| `(\w+)` \| (\d+) \|", text)
    }
    assert listed == counts
    ends = Counter(_end(each) for each in every if not each.benign)
    assert {name: int(count) for count, name in re.findall(r"(?m)^- \*\*(\d+) (.+?)\*\*", text)} == ends


def _end(specimen: Specimen) -> str:
    if specimen.expected == "blocked":
        return "blocked, in quarantine for it" if specimen.quarantine else "blocked before a run"
    named = {True: "quarantined for one event", "breaker": "quarantined by the breaker", "held": "held for a time"}
    return named.get(specimen.quarantine, "contained, and seen by nobody")
