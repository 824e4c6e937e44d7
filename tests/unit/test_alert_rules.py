"""packaging/prometheus/plugind.rules.yml: that it can be read, and that every alert is about something that is there."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from plugind.metrics.counts import Metrics
from plugind.metrics.parts import Gauges
from plugind.metrics.processes import Processes
from tests.unit.test_metrics_gauges import everything

RULES = Path(__file__).parents[2] / "packaging" / "prometheus" / "plugind.rules.yml"
DURATION = re.compile(r"[0-9]+[smh]")
PLAIN = re.compile(r"[^\s\"'#&*!|>%@`{}\[\],?:-][^#]*|[0-9]+[smh]")
LINE = re.compile(r"( *)(- )?([a-z_]+):(?: (.+))?")


def scalar(text):
    """A double-quoted text without escapes, or a plain one."""
    quoted = re.fullmatch(r'"([^"\\]*)"', text)
    if quoted:
        return quoted[1]
    # In YAML a plain scalar ends where ": " or " #" begins.
    if PLAIN.fullmatch(text) and ": " not in text and " #" not in text and text == text.strip():
        return text
    raise ValueError(f"expected a plain or a quoted text, got {text!r}")


def read(text):
    """The part of YAML that rule files need, and no more of it: mappings, lists of mappings, scalars on one line.

    There is no library for it in this tree's environment; what this accepts means the same to YAML.
    """
    lines = []
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = LINE.fullmatch(line)
        if found is None:
            raise ValueError(f"expected KEY: VALUE, got {line!r}")
        lines.append((len(found[1]), bool(found[2]), found[3], found[4]))
    value, left = block(lines, 0)
    if left:
        raise ValueError(f"expected the end, got {left[0]}")
    return value


def block(lines, indent):
    """One mapping, or a list of them, and the lines after it."""
    if lines and lines[0][1]:
        items = []
        while lines and lines[0][:2] == (indent, True):
            first = (indent + 2, False, *lines[0][2:])
            item, lines = block([first, *lines[1:]], indent + 2)
            items.append(item)
        return items, lines
    found = {}
    while lines and lines[0][:2] == (indent, False):
        (_, _, key, value), lines = lines[0], lines[1:]
        if key in found:
            raise ValueError(f"expected {key} once, got it twice")
        if value is None:
            if not lines or lines[0][0] <= indent:
                raise ValueError(f"{key}: expected a value")
            found[key], lines = block(lines, lines[0][0])
        else:
            found[key] = scalar(value)
    return found, lines


(GROUP,) = read(RULES.read_text())["groups"]
ALERTS = {rule["alert"]: rule for rule in GROUP["rules"]}


@pytest.fixture(scope="module")
def samples():
    """Every series that a daemon with nothing left out shows: name and labels."""
    metrics = Metrics()
    for collector in (Gauges(everything()), Processes({"front": os.getpid()})):
        metrics.registry.register(collector)
    families = text_string_to_metric_families(metrics.text().decode())
    return [(sample.name, sample.labels) for family in families for sample in family.samples]


def test_there_are_alerts_and_each_name_is_used_once():
    assert set(read(RULES.read_text())) == {"groups"}
    assert set(GROUP) == {"name", "rules"}
    assert len(GROUP["rules"]) == len(ALERTS) == RULES.read_text().count("- alert:") > 10
    assert all(re.fullmatch(r"Plugind[A-Za-z]+", name) for name in ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_all_that_somebody_needs(name):
    alert = ALERTS[name]
    assert list(alert) == ["alert", "expr", "for", "labels", "annotations"]
    assert DURATION.fullmatch(alert["for"])
    assert alert["labels"]["severity"] in {"page", "ticket"}
    assert list(alert["annotations"]) == ["summary", "description", "command"]
    assert all(len(text) > 10 for text in alert["annotations"].values())
    assert alert["annotations"]["description"].endswith(".")


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_is_about_series_that_are_there(name, samples):
    selectors = re.findall(r"\b(plugind_[a-z_]+)(?:\{([^}]*)\})?", ALERTS[name]["expr"])
    assert selectors or ALERTS[name]["expr"] == 'up{job="plugind"} == 0'
    for metric, matchers in selectors:
        wanted = dict(re.findall(r'([a-z]+)="([^"]*)"', matchers))
        assert any(shown == metric and wanted.items() <= labels.items() for shown, labels in samples), (metric, wanted)


def test_labels_in_the_texts_are_labels_of_the_series(samples):
    for alert in ALERTS.values():
        used = set(re.findall(r"\$labels\.([a-z]+)", str(alert["annotations"])))
        metrics = re.findall(r"\bplugind_[a-z_]+", alert["expr"])
        assert all(used <= set(labels) for shown, labels in samples if shown in metrics)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="NOT TESTED: there is no promtool")
def test_promtool_reads_them_too():
    done = subprocess.run(["promtool", "check", "rules", RULES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_contract_names_every_metric_and_no_other(samples):
    contract = (RULES.parents[2] / "daemon" / "SPEC.md").read_text().partition("\n## 12. Metrics\n")[2]
    rows = [line.split("|")[1:3] for line in contract.splitlines() if line.startswith("| `plugind_")]
    told = {name: labels.split() for names, labels in rows for name in re.findall(r"`(\w+)`", names)}
    shown = {}
    for name, labels in samples:
        family = re.sub(r"^(plugind_(?:run|containment|time_to_quarantine)_seconds)_(?:bucket|sum|count)$", r"\1", name)
        shown[family] = sorted(set(labels) - {"le"})
    assert {name: sorted(labels) for name, labels in told.items()} == shown | {
        "plugind_unsafe_load_block_ratio": [],
        "plugind_provenance_complete_ratio": [],
    }


# --- the reader ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["a", "a: b: c", "a: 'b'", 'a: "b', 'a: "\\n"', "a: b # c", "a:\nb: c", "a: b\na: c", "a: {}", "a: |", "\ta: b",
     "a: b\n  c: d", "a: b ", "- a: b\nc: d"],
)  # fmt: skip
def test_what_it_does_not_know_is_refused(text):
    with pytest.raises(ValueError, match="expected"):
        read(text)


KEYS = st.from_regex(r"\A[a-z_]{1,8}\Z")
TREES = st.recursive(
    st.text(st.characters(codec="ascii", exclude_categories=("Cc",), exclude_characters='"\\')),
    lambda inner: (
        st.dictionaries(KEYS, inner, min_size=1, max_size=3)
        | st.lists(st.dictionaries(KEYS, inner, min_size=1, max_size=3), min_size=1, max_size=3)
    ),
    max_leaves=8,
)


def written(value, indent=0):
    pad = " " * indent
    if isinstance(value, list):
        return "".join(f"{pad}- {written(item, indent + 2).lstrip(' ')}" for item in value)
    return "".join(
        f'{pad}{key}: "{each}"\n' if isinstance(each, str) else f"{pad}{key}:\n{written(each, indent + 2)}"
        for key, each in value.items()
    )


@given(st.dictionaries(KEYS, TREES, min_size=1, max_size=3))
def test_what_is_written_is_read(tree):
    assert read(written(tree)) == tree


@given(st.text())
def test_any_text_is_read_or_refused(text):
    try:
        found = read(text)
    except ValueError:
        return
    assert isinstance(found, dict | list)
