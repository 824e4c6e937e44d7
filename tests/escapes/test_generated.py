"""Hundreds of hostile modules, loaded as generated code is: each is refused or contained, and its caller is as it was.

The variants are data (generated/). All go through one daemon, so that what one leaves behind would meet the next.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from plugind_client import Client, InvalidSource, PluginFailed
from plugind_client import Denied as DeniedError
from plugind_client.errors import BY_OUTCOME, PlugindError, sentence
from tests.escapes.attack import OWN, attack
from tests.escapes.box import Box
from tests.escapes.caller import state
from tests.escapes.generated import families, in_session
from tests.escapes.generated.variant import (
    Denied,
    Either,
    Ends,
    Expected,
    Fails,
    Gives,
    Raises,
    Refused,
    Unsent,
    Variant,
)
from tests.support.daemon import Daemon
from tests.support.jail import INSTANCE, PARKED, descendants
from tests.support.pace import stretched
from tests.support.sentences import FORBIDDEN

HARMLESS = "def f():\n    return 'well'\n"


@dataclass
class Loader:
    """A daemon, a client of it, and the processes that it had before anything hostile came."""

    daemon: Daemon
    client: Client
    processes: dict[int, str]


@pytest.fixture(scope="module")
def loader() -> Iterator[Loader]:
    with Daemon() as daemon:
        client = daemon.client()
        assert client.load_source(HARMLESS).f() == "well"
        with pytest.raises(InvalidSource):
            client.load_source("")
        yield Loader(daemon, client, _processes(daemon))


GRPCS_OWN = re.compile(
    r"Traceback \(most recent call last\):\n(?:  .*\n)+grpc\._cython\.cygrpc\.ExecuteBatchError: .*\n"
)
"""What grpc itself prints, seldom, when a caller is gone just before his call's status could be sent."""


def _processes(daemon: Daemon) -> dict[int, str]:
    """The daemon's own: without instances, which end or come while one looks."""
    found = descendants(daemon.process.pid)
    return {pid: name for pid, name in found.items() if name not in (INSTANCE, PARKED)}


def test_there_are_hundreds_and_no_two_are_the_same() -> None:
    assert len(families.ALL) >= 500
    assert len({name for name, _ in families.ALL}) == len(families.ALL)
    assert len({variant.source for _, variant in families.ALL}) == len(families.ALL)
    sizes = Counter(name.partition(":")[0] for name, _ in families.ALL)
    assert len(sizes) >= 20
    assert min(sizes.values()) >= 5
    assert set(in_session.BY_NAME) <= {name for name, _ in families.ALL}


@attack(
    OWN,
    f"{len(families.ALL)} generated modules: effects at import, hidden imports, changed builtins and runner, forged "
    "frames, values and exceptions that lie, tricks of the source text",
    "read and never imported by who loads them; the jail; one typed error for each end",
)
@pytest.mark.parametrize("variant", [pytest.param(each, id=name) for name, each in families.ALL])
def test_it_is_refused_or_contained(
    loader: Loader, variant: Variant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = state()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        got = _load_and_call(loader.client, variant)
    check(got, variant.in_session or variant.expected)
    if variant.in_session is not None:
        check(_load_and_run(loader.client, variant), variant.expected)
    assert [str(each.message) for each in warned] == []
    assert state() == before


def _load_and_call(client: Client, variant: Variant) -> Any:
    """What comes of it: a value, or the exception. Anything that would end this process is let through."""
    try:
        module = client.load_source(variant.source, name=variant.name, timeout_ms=variant.timeout_ms)
        assert variant.function in dir(module)
        return getattr(module, variant.function)(**variant.arguments)
    except Exception as error:  # noqa: BLE001 - which one it may be is what is tested
        return error


def _load_and_run(client: Client, variant: Variant) -> Any:
    """The same in an execution of its own, whose end is known before its answer is given."""
    call = {"function": variant.function, "arguments": dict(variant.arguments)}
    module = client.load_source(variant.source, name=variant.name, timeout_ms=variant.timeout_ms)
    try:
        return client.run(module.__name__, call, version=module.__version__, timeout_ms=variant.timeout_ms).output
    except Exception as error:  # noqa: BLE001 - as above
        return error


def check(got: Any, expected: Expected) -> None:
    """Whether it is what was to come: of exactly that type, with that text, and typed."""
    match expected:
        case Either(one, other):
            check(got, other if isinstance(got, PlugindError) and isinstance(other, Ends) else one)
        case Gives(value):
            assert (type(got), repr(got)) == (type(value), repr(value))  # NaN is not equal to itself
        case Refused(text):
            assert type(got) is InvalidSource, repr(got)
            assert text in got.detail
            assert got.detail.isprintable()
        case Unsent(kind, text):
            assert type(got).__name__ == kind, repr(got)
            assert text in (got.detail if isinstance(got, PlugindError) else str(got))
        case Denied(code):
            assert type(got) is DeniedError, repr(got)
            assert got.code == code
        case Raises(kind, message):
            assert type(got) is kind, repr(got)
            assert message in str(got)
            assert type(got.__cause__) is PluginFailed
            got = got.__cause__
        case Fails(kind, text):
            assert type(got) is PluginFailed, repr(got)
            assert (got.type, text in got.message) == (kind, True), (got.type, got.message)
        case Ends(outcomes, text):
            assert isinstance(got, PlugindError), repr(got)
            assert got.code in outcomes, (got.code, got.detail)
            assert type(got) is BY_OUTCOME[got.code]
            assert text in got.detail
    if isinstance(got, PlugindError):
        assert str(got) == sentence(got.code)
        assert [word for word in FORBIDDEN if word in str(got).lower()] == []


def test_checks_can_fail() -> None:
    """What a variant expects is compared in type and value."""
    for got, expected in (
        (1, Gives(True)),
        (math.nan, Gives(0.0)),
        (SystemError(), Raises(ValueError, "")),
        (ValueError("x"), Raises(ValueError, "x")),  # raised here, and not by a plugin
        (PluginFailed("failed", detail="ended"), Fails("E", "")),
        (PluginFailed("failed"), Ends(("timeout",))),
        (PluginFailed("timeout"), Ends(("timeout",))),
        (TypeError("y"), Unsent("TypeError", "x")),
        (InvalidSource("INVALID_SOURCE", detail="a"), Refused("b")),
        (None, Denied("INPUT_INVALID")),
    ):
        with pytest.raises(AssertionError):
            check(got, expected)


IMPORTED = """
import json, os, sys
from tests.escapes.caller import state
from tests.escapes.generated import families
dump, leave, write = json.dumps, os._exit, os.write
sources = {name: variant.source for name, variant in families.ALL}
try:
    state()
    for name in sys.argv[1:]:
        before = state()
        exec(sources[name], {"__name__": "__main__", "__file__": "imported.py"})
        write(1, dump([key for key, value in state().items() if value != before[key]]).encode() + b"\\n")
finally:
    leave(0)  # threads and functions for the end would keep it
"""


def test_imported_they_change_their_caller(tmp_path: Path) -> None:
    """What is looked at in this process does change in one that imports them: so the comparison can fail."""
    changes = {
        "import leaves something behind: a file where it is": ["place"],
        "import leaves something behind: another working directory": ["place"],
        "import leaves something behind: another umask and environment": ["place"],
        "import leaves something behind: a thread": ["threads"],
        "import leaves something behind: a function for the end": ["at the end"],
        "import leaves something behind: a handler of signals": ["signals"],
        "import leaves something behind: a tracer": ["hooks"],
        "import leaves something behind: itself as another module": ["modules"],
        "import leaves something behind: no paths": ["imports"],
        "library: sys.stdout is a number": ["streams"],
        "library: os.write writes backwards": ["library"],
        "builtin: sorted = None": ["builtins"],
    }
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED, *changes],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])},
        capture_output=True,
        text=True,
        timeout=stretched(60),
        check=True,
    )
    assert [json.loads(line) for line in done.stdout.splitlines()] == list(changes.values()), done.stderr


def test_afterwards_the_daemon_is_as_it_was(loader: Loader) -> None:
    """No process of it has died, nothing of an instance is left, and the audit tells of each run how it ended."""
    daemon, client = loader.daemon, loader.client
    deadline = time.monotonic() + stretched(1)
    while _processes(daemon) != loader.processes and time.monotonic() < deadline:
        time.sleep(0.01)  # a clone for an import has the zygote's name at first
    assert _processes(daemon) == loader.processes
    assert daemon._launcher() == daemon.pids[1]
    assert client.load_source(HARMLESS).f() == "well"
    deadline = time.monotonic() + stretched(10)
    while client.runs() and time.monotonic() < deadline:  # a module's session ends by itself, after an idle moment
        time.sleep(0.05)
    assert client.runs() == []
    assert Box(daemon, 2).left() == []
    report = client.audit.verify()
    assert (report.findings, report.open_intents) == ((), ())
    records = [
        json.loads(line)
        for segment in sorted(daemon.state.glob("ledger/*.jsonl"))
        for line in segment.read_text().splitlines()
    ]
    intents = [each["index"] for each in records if each["event"] == "INTENT"]
    assert sorted(each["intent"] for each in records if each["event"] == "OUTCOME") == intents
    assert {each["outcome"] for each in records if each["event"] == "OUTCOME"}.isdisjoint({"fault", "unknown"})
    log = GRPCS_OWN.sub("", daemon.log.read_text())
    assert "Traceback" not in log
    assert "fault" not in log
