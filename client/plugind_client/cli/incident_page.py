"""An incident as one self-contained page that can be printed: no script, nothing from elsewhere. Pure.

Every text in it is somebody's: each is escaped for a terminal first, so that nothing hidden or steering is left, and
then for HTML. Source: HTML Standard, "Serializing HTML fragments"; Content Security Policy Level 3.
"""

from __future__ import annotations

import datetime
import html
from collections.abc import Iterable, Sequence
from typing import Final

from plugind_client.cli import words
from plugind_client.cli.screen import one_line
from plugind_client.cli.words import POLICY_UID
from plugind_client.findings import Anomaly, Incident, IncidentCase, TimelineEntry

CSP: Final = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE: Final = """\
body { font: 15px/1.45 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 70rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; border-bottom: 1px solid #999; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: 1rem 0; }
dt { color: #555; }
dd { margin: 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .25rem .6rem .25rem 0; border-bottom: 1px solid #ddd; }
th { border-bottom: 1px solid #666; }
td { overflow-wrap: anywhere; min-width: 4.5em; }
td.said { min-width: 8em; }
td.time, td.log, td.kind, td.by { white-space: nowrap; overflow-wrap: normal; font-variant-numeric: tabular-nums; }
code { font-family: ui-monospace, monospace; font-size: .92em; overflow-wrap: anywhere; }
.mark { display: inline-block; border: 1px solid #666; border-radius: .3rem; padding: 0 .5rem; font-weight: 600; }
.critical, .high { border-color: #a40000; color: #a40000; }
.medium { border-color: #8a5a00; color: #8a5a00; }
@page { size: landscape; margin: 15mm; }
@media print {
  body { max-width: none; margin: 0; padding: 0; font-size: 9pt; }
  thead { display: table-header-group; }
  tr, dt, dd { break-inside: avoid; }
  h2 { break-after: avoid; }
  .mark { print-color-adjust: exact; }
}
"""
_KNOWN: Final = frozenset({"low", "medium", "high", "critical"})


def page(case: IncidentCase, made_unix_ms: int) -> str:
    """The whole document. `made_unix_ms`: when it is written, for its foot."""
    incident = case.incident
    title = f"{incident.id}: {incident.title}"
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(CSP)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_text(title)}</title>\n<style>\n{_STYLE}</style>\n</head>\n<body>",
        *_head(incident),
        *_timeline(case.timeline),
        *_anomalies(case.anomalies),
        *_plans(incident.plans),
        *_verification(case),
        f"<p>Written {_moment(made_unix_ms)} UTC from what plugind knew then.</p>\n</body>\n</html>\n",
    ]
    return "\n".join(parts)


def _text(text: str) -> str:
    return html.escape(one_line(text))


def _head(incident: Incident) -> Iterable[str]:
    known = incident.severity if incident.severity in _KNOWN else ""
    yield f"<header>\n<h1>{_text(incident.title)}</h1>"
    yield f'<p><span class="mark {known}">{_text(incident.severity)}</span>'
    yield f'<span class="mark">{_text(incident.state)}</span> {_text(incident.id)}</p>\n<dl>'
    yield _term("About", incident.label or "no version in particular")
    yield _term("Plugin", incident.plugin_id)
    yield _term("sha256", incident.digest)
    yield _term("Cause", incident.cause)
    yield _term("Opened", f"{_moment(incident.opened_unix_ms)} UTC by {_person(incident.opened_by_uid)}")
    if incident.is_open:
        yield _term("Closed", "it is open")
    else:
        yield _term("Closed", f"{_moment(incident.closed_unix_ms)} UTC by {_person(incident.closed_by_uid)}")
        yield _term("Why", incident.closing)
    yield "</dl>\n</header>"


def _term(name: str, value: str) -> str:
    return f"<dt>{_text(name)}</dt><dd>{_text(value) or '-'}</dd>"


def _timeline(entries: Sequence[TimelineEntry]) -> Iterable[str]:
    yield "<section>\n<h2>What happened</h2>"
    rows = [
        _row(
            ("time", _moment(each.at_unix_ms)),
            ("kind", each.kind),
            ("said", each.text),
            ("by", _person(each.by_uid)),
            ("", each.plan_id),
            ("log", each.audit_log),
        )
        for each in entries
    ]
    yield from _table(("Time (UTC)", "What", "Told", "By", "Plan", "Record"), rows)
    yield "</section>"


def _anomalies(anomalies: Sequence[Anomaly]) -> Iterable[str]:
    yield "<section>\n<h2>What was out of the ordinary</h2>"
    if not anomalies:
        yield "<p>The monitor found nothing.</p>"
    else:
        yield from _table(
            ("Time (UTC)", "Found by", "Severity", "Expected", "Got", "Numbers", "Record"), map(_anomaly, anomalies)
        )
    yield "</section>"


def _anomaly(found: Anomaly) -> str:
    kinds = ("kind", "kind", "said", "said", "said", "log")
    return _row(("time", _moment(found.at_unix_ms)), *zip(kinds, words.anomaly_cells(found), strict=True))


def _plans(plans: Sequence[str]) -> Iterable[str]:
    yield "<section>\n<h2>Plans it has touched</h2>"
    yield "<p>None is known.</p>" if not plans else "<ul>"
    if plans:
        yield from (f"<li>{_text(plan)}</li>" for plan in plans)
        yield "</ul>"
    yield "</section>"


def _verification(case: IncidentCase) -> Iterable[str]:
    logs = dict.fromkeys(
        [each.audit_log for each in case.timeline if each.audit_log]
        + [each.audit_log for each in case.anomalies if each.audit_log]
    )
    yield "<section>\n<h2>How to verify it</h2>"
    yield "<p>The records named here stand in the daemon's ledger, which can only grow. On its machine:</p>\n<ul>"
    yield "<li><code>plugindctl audit verify</code> checks that the whole ledger says what it always said.</li>"
    yield "<li><code>plugindctl audit show log_N</code> shows one record with its other half and its leaf hash.</li>"
    yield "</ul>"
    yield f"<p>Records: <code>{_text(', '.join(logs)) or 'none'}</code></p>\n</section>"


def _table(headings: Iterable[str], rows: Iterable[str]) -> Iterable[str]:
    cells = "".join(f'<th scope="col">{_text(heading)}</th>' for heading in headings)
    yield f"<table>\n<thead><tr>{cells}</tr></thead>\n<tbody>"
    yield from rows
    yield "</tbody>\n</table>"


def _row(*cells: tuple[str, str]) -> str:
    """Cells with their class; the classes are ours."""
    shown = (f'<td class="{kind}">{_text(text)}</td>' if kind else f"<td>{_text(text)}</td>" for kind, text in cells)
    return f"<tr>{''.join(shown)}</tr>"


def _person(uid: int) -> str:
    """A uid: whoever reads the page may be on another machine, so without a name."""
    return "the daemon" if uid == POLICY_UID else f"uid {uid}"


def _moment(unix_ms: int) -> str:
    """In UTC, to the millisecond; what no calendar has, as its number."""
    try:
        when = datetime.datetime.fromtimestamp(unix_ms / 1000, datetime.UTC)
    except (ValueError, OverflowError, OSError):
        return f"{unix_ms} ms"
    return when.strftime("%Y-%m-%d %H:%M:%S.") + f"{unix_ms % 1000:03}"
