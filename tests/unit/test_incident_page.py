"""The page of an incident: all that is known is in it, it needs nothing from elsewhere, and no text can become markup."""

from __future__ import annotations

import dataclasses
import html.parser
import unicodedata

from hypothesis import given, settings
from hypothesis import strategies as st

from plugind_client.cli.incident_page import CSP, page
from plugind_client.cli.screen import one_line
from plugind_client.findings import Anomaly, Incident, IncidentCase, TimelineEntry

INCIDENT = Incident(
    id="incident_3", state="closed", severity="high", title="demo@1.0.0: dangerous_syscall", cause="dangerous_syscall",
    plugin_id="plug_1", plugin="demo", version="1.0.0", digest="ab" * 32, opened_by_uid=2**32 - 1,
    opened_unix_ms=1_700_000_000_123, closed_unix_ms=1_700_000_900_000, closed_by_uid=1000, closing="mended in 1.0.1",
    plans=("plan-1", "plan-2"),
)  # fmt: skip
ENTRY = TimelineEntry(1_700_000_000_100, "refused", "unshare × 1", "log_12", 1001, "plan-1")
ANOMALY = Anomaly(
    trigger="duration", hard=False, severity="low", digest="ab" * 32, plugin_id="plug_1", plugin="demo", version="1.0.0",
    run_id="r1", audit_log="log_9", plan_id="plan-1", at_unix_ms=1_700_000_000_000, expected="at most 21 ms",
    actual="140 ms", numbers={"limit": 21.0, "median": 12.0, "value": 140.5}, observed=True,
)  # fmt: skip
CASE = IncidentCase(INCIDENT, (ENTRY,), (ANOMALY,))
VOID = {"meta", "br", "hr", "img", "link", "input"}


class Seen(html.parser.HTMLParser):
    """What a browser would make of it: elements in their nesting, attributes, and the text between."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.text, self.open, self.others = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, tuple(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip() and "style" not in self.open:
            self.text.append(data)

    def handle_comment(self, data):
        self.others.append(data)

    def handle_pi(self, data):
        self.others.append(data)

    def unknown_decl(self, data):
        self.others.append(data)


def test_all_that_is_known_is_in_it():
    seen = Seen(page(CASE, 1_700_001_000_000))
    assert seen.open == []
    said = " ".join(seen.text)
    for expected in (
        *("demo@1.0.0: dangerous_syscall", "high", "closed", "incident_3", "plug_1", "ab" * 32, "mended in 1.0.1"),
        *("2023-11-14 22:13:20.123 UTC by the daemon", "2023-11-14 22:28:20.000 UTC by uid 1000"),
        *("refused", "unshare × 1", "uid 1001", "log_12", "log_9", "plan-1", "plan-2"),
        *("duration (only observed)", "at most 21 ms", "140 ms", "limit 21, median 12, value 140.5"),
        *("plugindctl audit verify", "log_12, log_9", "2023-11-14 22:30:00.000 UTC"),
    ):
        assert expected in said, expected


def test_it_needs_nothing_from_elsewhere_and_runs_nothing():
    text = page(CASE, 0)
    seen = Seen(text)
    policies = [dict(attrs) for tag, attrs in seen.tags if tag == "meta" and dict(attrs).get("http-equiv")]
    assert policies == [{"http-equiv": "Content-Security-Policy", "content": CSP}]
    assert CSP == "default-src 'none'; style-src 'unsafe-inline'"
    allowed = {
        *("html", "head", "meta", "title", "style", "body", "header", "section", "h1", "h2", "p", "span", "dl", "dt"),
        *("dd", "table", "thead", "tbody", "tr", "th", "td", "ul", "li", "code"),
    }
    assert {tag for tag, _ in seen.tags} <= allowed
    assert not {name for _, attrs in seen.tags for name, _ in attrs} - {
        *("lang", "charset", "http-equiv", "content", "name", "class", "scope")
    }
    style = text[text.index("<style>") : text.index("</style>")]
    assert "@media print" in style
    assert "url(" not in style
    assert "@import" not in style
    assert "http:" not in text
    assert "https:" not in text


def test_an_open_one_without_anything_is_a_page_too():
    bare = dataclasses.replace(INCIDENT, state="open", plugin="", version="", digest="", closing="", plans=())
    said = " ".join(Seen(page(IncidentCase(bare, (), ()), 0)).text)
    for expected in ("it is open", "no version in particular", "The monitor found nothing.", "None is known.", "none"):
        assert expected in said


def test_a_severity_that_is_none_cannot_become_a_class():
    odd = dataclasses.replace(INCIDENT, severity='x" onclick="alert(1)')
    tags = Seen(page(IncidentCase(odd, (), ()), 0)).tags
    assert ("class", "mark ") in [attribute for _, attrs in tags for attribute in attrs]
    assert not [name for _, attrs in tags for name, _ in attrs if name.startswith("on")]


HOSTILE = st.one_of(
    st.text(),
    st.sampled_from(
        [
            *("<script>alert(1)</script>", "</td></tr></table><img src=x onerror=alert(1)>", "--><!--", "]]>", "<!--"),
            *("</title><svg/onload=alert(1)>", '" onmouseover="alert(1)', "'><b>", "&lt;b&gt;", "&#60;script&#62;"),
            *("\x1b[2J\x1b]0;gone\x07", "\u202egnp.exe", "\u2066hidden\u2069", "a\r\nb", "\x00", "</style><script>"),
            *("javascript:alert(1)", "<?php ?>", "<![CDATA[x]]>", "\ufeff", "\u2028", "\x9b31m", "</body></html>"),
        ]
    ),
)
WHEN = st.integers(0, 2**64 - 1)
UID = st.integers(0, 2**32 - 1)


def built(kind, **fixed):
    """A record whose every text is hostile."""
    by_type = {
        "str": HOSTILE,
        "int": UID,
        "bool": st.booleans(),
        "tuple[str, ...]": st.lists(HOSTILE, max_size=3).map(tuple),
    }
    by_type["Mapping[str, float]"] = st.dictionaries(HOSTILE, st.floats(), max_size=3)
    fields = {each.name: by_type[each.type] for each in dataclasses.fields(kind) if each.name not in fixed}
    fields |= {name: WHEN for name in fields if name.endswith("unix_ms")}
    return st.builds(kind, **fields, **fixed)


CASES = st.builds(
    IncidentCase,
    built(Incident),
    st.lists(built(TimelineEntry), max_size=3).map(tuple),
    st.lists(built(Anomaly), max_size=2).map(tuple),
)


@settings(max_examples=150, deadline=None)
@given(CASES, WHEN)
def test_whatever_the_texts_are_the_markup_is_the_same_and_every_text_is_read_as_itself(case, when):
    text = page(case, when)
    seen = Seen(text)
    assert seen.open == []
    assert seen.others == []
    harmless = dataclasses.replace(
        case.incident, **dict.fromkeys(("title", "cause", "closing", "plugin", "digest"), "x")
    )
    same_shape = page(
        IncidentCase(dataclasses.replace(harmless, plans=("x",) * len(case.incident.plans)), *_tame(case)), 0
    )
    assert [tag for tag, _ in seen.tags] == [tag for tag, _ in Seen(same_shape).tags]
    read = "\n".join(seen.text)
    for shown in (
        case.incident.title,
        *(each.text for each in case.timeline),
        *(each.actual for each in case.anomalies),
    ):
        assert one_line(shown).strip() in read
    steering = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert not [c for c in text if c not in "\n\t" and unicodedata.category(c) in steering]
    text.encode()


def _tame(case):
    entries = tuple(TimelineEntry(1, "k", "t", "log_1", 1, "p") for _ in case.timeline)
    return entries, (ANOMALY,) * len(case.anomalies)
