"""What `plugindctl top` makes of what it found: speeds, shares, rows; pure."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugind_client.cli.top import once, tables
from plugind_client.cli.top.rates import Queue, Rates, Shares, gained, queues, rates
from plugind_client.cli.top.reading import Lack
from plugind_client.errors import Unavailable
from tests.support.fake_top import HOSTILE, NOW_MS, anomaly, hold, metrics, reading, run, status

LACK = Lack("not for you")
names = st.sampled_from(["ok", "failed", "timeout"])


def test_speeds_are_differences_over_time() -> None:
    before = reading(10, metrics=metrics(runs_total={"ok": 100, "failed": 2}, denials_total={"KILLED": 5}))
    now = reading(
        14,
        metrics=metrics(
            runs_total={"ok": 120, "failed": 2}, denials_total={"KILLED": 5, "BUSY": 2}, violations_total={"syscall": 8}
        ),
    )
    assert rates(before, now) == Rates({"ok": 5.0}, {"BUSY": 0.5}, {"syscall": 2.0})
    assert (
        tables.rate_line(before, now)
        == "a second: runs 5.0 (ok 5.0), denials 0.5 (BUSY 0.5), violations 2.0 (syscall 2.0)"
    )


def test_a_counter_that_began_again_counts_from_zero() -> None:
    assert gained({"ok": 1000}, {"ok": 6}, 2) == {"ok": 3.0}


@given(st.dictionaries(names, st.integers(0, 10**6)), st.dictionaries(names, st.integers(0, 10**6)), st.floats(0.1, 60))
def test_a_speed_is_never_negative_and_never_more_than_all_there_was(old, new, took_s) -> None:
    for label, each in gained(old, new, took_s).items():
        assert 0 < each <= new[label] / took_s


def test_speeds_need_two_looks_and_metrics() -> None:
    now = reading(1, metrics=metrics(runs_total={"ok": 1}))
    assert isinstance(rates(None, now), Lack)
    assert isinstance(rates(reading(0, metrics=LACK), now), Lack)
    assert isinstance(rates(reading(1, metrics=metrics()), now), Lack)  # no time between them
    assert rates(reading(0, metrics=metrics()), reading(1, metrics=LACK)) == LACK
    assert tables.rate_line(None, reading(metrics=LACK)) == "a second: - (not for you)"


def test_who_waits() -> None:
    now = reading(metrics=metrics(queue_waiting={"2": 3, "1": 0}, queue_taken={"2": 32}, queue_places={"2": 32}))
    assert queues(now) == [Queue("1", 0, None, None), Queue("2", 3, 32, 32)]
    assert tables.queue_line(now) == "waiting: tier 1: 0, tier 2: 3 (32 of 32 places taken)"
    assert tables.queue_line(reading(metrics=LACK)) == "waiting: - (not for you)"
    assert tables.queue_line(reading()) == "waiting: - (this daemon does not count who waits)"


def test_a_share_is_between_two_samples_of_the_daemon() -> None:
    shares = Shares()
    shares.note((run(cpu_ms=1000, sampled_unix_ms=10_000),))
    assert shares.of("r1") is None
    shares.note((run(cpu_ms=2500, sampled_unix_ms=11_000),))
    assert shares.of("r1") == 150.0
    shares.note((run(cpu_ms=2500, sampled_unix_ms=11_000),))  # the same sample, looked at again
    assert shares.of("r1") == 150.0
    shares.note((run(cpu_ms=2500, sampled_unix_ms=13_000),))
    assert shares.of("r1") == 0.0
    shares.note((run(cpu_ms=None, sampled_unix_ms=0),))
    assert shares.of("r1") is None
    shares.note(())
    shares.note((run(cpu_ms=9000, sampled_unix_ms=14_000),))  # another run of that name
    assert shares.of("r1") is None


def test_what_is_not_known_is_a_dash() -> None:
    nothing = run(memory_bytes=None, cpu_ms=None, pids=None, refused_calls=None, sampled_unix_ms=0, stage="")
    row = dict(zip(tables.RUN_HEADINGS, tables.run_row(nothing, Shares(), NOW_MS), strict=True))
    assert [row[name] for name in ("cpu %", "cpu", "memory", "pids", "stage")] == ["-"] * 5
    assert (row["state"], row["age"]) == ("running", "5.0 s")


def test_a_run_in_a_row() -> None:
    row = dict(zip(tables.RUN_HEADINGS, tables.run_row(run(refused_calls=3), Shares(), NOW_MS), strict=True))
    assert row == {
        "run": "r1",
        "plugin": "costs@1.0.0",
        "age": "5.0 s",
        "cpu %": "-",
        "memory": "52.0 MiB",
        "pids": "4",
        "state": "running, 3 refused",
        "tier": "2",
        "stage": "durations",
        "uid": "1000",
        "cpu": "1.5 s",
    }


@pytest.mark.parametrize("order", tables.RUN_HEADINGS)
def test_every_order_has_every_run_and_turns_round(order) -> None:
    found = [
        run("a", memory_bytes=1, cpu_ms=None, plugin="z"),
        run("b", memory_bytes=None, pids=9, tier=1, version="2"),
    ]
    found += [run("c", stage="", started_unix_ms=5, caller_uid=0, state="starting")]
    there = [each.run_id for each in tables.chosen(found, Shares(), order)]
    back = [each.run_id for each in tables.chosen(found, Shares(), order, turned=True)]
    assert sorted(there) == sorted(back) == ["a", "b", "c"]
    if len({tables.run_row(each, Shares(), 0)[tables.RUN_HEADINGS.index(order)] for each in found}) == 3:
        assert there == back[::-1]


def test_largest_first_and_what_is_not_known_last() -> None:
    found = [run("a", memory_bytes=1), run("b", memory_bytes=None), run("c", memory_bytes=7)]
    assert [each.run_id for each in tables.chosen(found, Shares(), "memory")] == ["c", "a", "b"]
    aged = [run("old", started_unix_ms=1), run("new", started_unix_ms=2)]
    assert [each.run_id for each in tables.chosen(aged, Shares())] == ["old", "new"]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [("", 2), ("COSTS@1", 1), ("r2", 1), ("tier 1", 1), ("durations", 2), ("plug_1", 2), ("1000", 2), ("nobody", 0)],
)
def test_what_is_looked_for(wanted, found) -> None:
    runs = [run("r1"), run("r2", plugin="other", tier=1)]
    assert len(tables.chosen(runs, Shares(), wanted=wanted)) == found


def test_the_daemon_in_one_line() -> None:
    assert (
        tables.head(reading()) == "plugind 9.9, production, up 1 h 1 min, 1 run in flight, launcher and ledger in order"
    )
    wrong = status(
        launcher_problem="the launcher is gone", ledger_problem="no space", unavailable_tiers={1: "no seccomp"}
    )
    assert tables.head(reading(status=wrong)).endswith(
        "WRONG: launcher: the launcher is gone; ledger: no space; Tier 1: no seccomp"
    )
    assert tables.head(reading(status=LACK)) == "plugind: - (not for you)"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(-1, "0 s"), (59.9, "59 s"), (60, "1 min 0 s"), (3599, "59 min 59 s"), (86399, "23 h 59 min"), (90000, "1 d 1 h")],
)
def test_how_long_it_lasts(seconds, told) -> None:
    assert tables.lasted(seconds) == told


def test_why_there_is_nothing() -> None:
    away = reading(error=Unavailable("UNAVAILABLE", detail="nobody"))
    assert (
        tables.problem(away, "/nowhere/d.sock") == "plugind cannot be reached: /nowhere/d.sock: there is no such socket"
    )
    assert tables.problem(reading(), "/nowhere/d.sock") == ""


def test_anomalies_in_rows() -> None:
    assert tables.anomaly_rows([anomaly(), anomaly(hard=False, plugin="", run_id="", expected="")]) == [
        ("11-14 22:13:20", "high, hard", "dangerous_syscall", "costs@1.0.0", "r1", "mount (expected: no such call)"),
        ("11-14 22:13:20", "high, soft", "dangerous_syscall", "-", "-", "mount"),
    ]
    assert tables.anomaly_rows([anomaly(observed=True, at_unix_ms=2**64 - 1)])[0][:2] == (
        "12-31 23:59:59",
        "high, observed",
    )
    assert tables.anomaly_rows(LACK) == [("-", "-", "-", "-", "-", "not for you")]


def test_nothing_hostile_comes_through() -> None:
    rows = [
        *tables.anomaly_rows([anomaly(actual=HOSTILE, trigger=HOSTILE, plugin=HOSTILE, run_id=HOSTILE)]),
        tables.hold_row(hold(reason=HOSTILE)),
        tables.run_row(run(stage=HOSTILE, plugin=HOSTILE), Shares(), 0),
        (
            tables.head(reading(status=status(launcher_problem=HOSTILE))),
            tables.queue_line(reading(metrics=Lack(HOSTILE))),
        ),
    ]
    for cell in (cell for row in rows for cell in row):
        assert not {"\x1b", "\n", "\u202e"} & set(cell)
    assert "\\u001b[2J[bold red]boo[/]\\nall is well\\u202e" in rows[0][-1]


def test_one_frame_for_scripts(capsys) -> None:
    before = reading(1, metrics=metrics(runs_total={"ok": 0}))
    now = reading(
        2,
        runs=(run(stage=HOSTILE),),
        metrics=metrics(runs_total={"ok": 7}, queue_waiting={"2": 0}),
        anomalies=(anomaly(),),
        status=status(holds=(hold(),)),
    )
    once.show(before, now, as_json=False)
    out = capsys.readouterr().out
    for words in ("plugind 9.9", "runs 7.0 (ok 7.0)", "52.0 MiB", "dangerous_syscall", "wrong sums", "tier 2: 0"):
        assert words in out
    assert "\x1b" not in out
    once.show(before, now, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["runs"][0]["memory_bytes"] == 52 << 20
    assert told["rates"] == {"runs": {"ok": 7.0}, "denials": {}, "violations": {}}
    assert told["queues"] == [{"tier": "2", "waiting": 0, "taken": None, "places": None}]
    assert (told["anomalies"][0]["trigger"], told["status"]["holds"][0]["target"]) == (
        "dangerous_syscall",
        "costs@1.0.0",
    )
    assert told["lacks"] == {}


def test_a_frame_says_what_it_lacks(capsys) -> None:
    once.show(reading(1, metrics=LACK), reading(2, metrics=LACK, anomalies=LACK), as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["rates"] is told["queues"] is told["anomalies"] is None
    assert told["lacks"] == dict.fromkeys(("anomalies", "queues", "rates"), "not for you")
