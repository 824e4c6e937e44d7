"""`plugindctl top` with a made-up daemon and a made-up terminal: what is on it, and what the keys do."""

from __future__ import annotations

import asyncio
import time

import pytest
from textual.widgets import DataTable, Input, Static

from plugind_client.cli.top.app import TopApp
from tests.support.fake_top import HOSTILE, FakeTopDaemon, anomaly, hold, run

SIZES = [(80, 24), (120, 40), (200, 50)]


def line(app, name):
    return str(app.screen.query_one(f"#{name}", Static).render())


def rows(app, name):
    table = app.query_one(f"#{name}", DataTable)
    return [[str(cell) for cell in table.get_row_at(place)] for place in range(table.row_count)]


async def until(pilot, what):
    """Looks come from a thread."""
    deadline = time.monotonic() + 10
    while not what():
        assert time.monotonic() < deadline, "it did not happen"
        await pilot.pause(0.01)


async def looked(pilot, daemon):
    """One more look is shown."""
    before = daemon.looks
    await pilot.press("r")
    await until(pilot, lambda: daemon.looks > before and not pilot.app._looking)


async def shown(app, pilot):
    await until(pilot, lambda: app._now is not None)
    await pilot.pause()


async def typed(pilot, text):
    await pilot.press(*("space" if each == " " else each for each in text))


def made(*runs):
    daemon = FakeTopDaemon(*runs)
    return daemon, TopApp(daemon, 3600)


@pytest.mark.parametrize("size", SIZES)
async def test_everything_is_in_sight(size) -> None:
    daemon, app = made(run("r1"), run("r2", plugin="other"))
    daemon.holds.append(hold())
    daemon.anomalies = (anomaly(),)
    async with app.run_test(size=size) as pilot:
        await shown(app, pilot)
        assert line(app, "head").startswith("plugind 9.9, production, up 1 h")
        assert [row[0] for row in rows(app, "runs")] == ["r1", "r2"]
        assert rows(app, "holds")[0][:2] == ["killed", "costs@1.0.0"]
        assert rows(app, "anomalies")[0][2] == "dangerous_syscall"
        for name in ("runs", "anomalies", "holds"):
            region = app.query_one(f"#{name}").region
            assert region.height >= 3, name
            assert region.bottom < size[1], name
        assert not app.query_one("#problem").display
    assert daemon.closed


async def test_kill_asks_why_and_whether_it_is_meant() -> None:
    daemon, app = made(run("r1"))
    async with app.run_test(size=(120, 40)) as pilot:
        await shown(app, pilot)
        await pilot.press("k")
        assert line(app, "question") == "kill costs@1.0.0: why? (Enter goes on, Esc does not)"
        await pilot.press("space", "enter")  # no reason
        await typed(pilot, "wrong kq sums")
        assert app.screen.query_one("#reason", Input).value.strip() == "wrong kq sums"
        await pilot.press("enter")
        assert line(app, "question") == "Really kill costs@1.0.0, because: wrong kq sums? [y/N]"
        assert daemon.asked == []
        await pilot.press("y")
        await until(pilot, lambda: line(app, "told") == "kill of costs@1.0.0 is done")
        await until(pilot, lambda: rows(app, "runs") == [])
        assert daemon.asked == [("kill", "costs@1.0.0", "wrong kq sums")]
        assert rows(app, "holds")[0][4] == "wrong kq sums"


@pytest.mark.slow
@pytest.mark.parametrize(
    "no", [["escape"], ["x", "escape"], ["x", "enter", "n"], ["x", "enter", "enter"], ["x", "enter", "k"]]
)
@pytest.mark.parametrize("key", ["k", "s"])
async def test_anything_but_a_yes_is_a_no(key, no) -> None:
    daemon, app = made(run("r1"))
    async with app.run_test() as pilot:
        await shown(app, pilot)
        await pilot.press(key, *no)
        await pilot.pause()
        assert line(app, "told").endswith(": not done")
        assert daemon.asked == []


async def test_quarantine_cancel_and_lift() -> None:
    daemon, app = made(run("r1"))
    daemon.holds += [hold("suspended"), hold("killed", "other")]
    async with app.run_test() as pilot:
        await shown(app, pilot)
        await pilot.press("s", "o", "d", "d", "enter", "y")
        await until(pilot, lambda: len(daemon.asked) == 1)
        await pilot.press("c")
        assert line(app, "question") == "Really cancel r1? [y/N]"
        await pilot.press("y")
        await until(pilot, lambda: len(daemon.asked) == 2)
        await pilot.press("l")
        assert line(app, "told") == "select a kill in the holds first: Tab goes there"
        await pilot.press("tab", "tab", "down", "l", "x", "enter", "y")
        await until(pilot, lambda: len(daemon.asked) == 3)
    assert daemon.asked == [("quarantine", "costs@1.0.0", "odd"), ("cancel", "r1"), ("lift", "other", "x")]


async def test_a_refusal_is_a_line() -> None:
    daemon, app = made(run("r1"))
    daemon.refuses = True
    async with app.run_test(size=(200, 50)) as pilot:
        await shown(app, pilot)
        await pilot.press("k", "x", "enter", "y")
        await until(pilot, lambda: "does not allow" in line(app, "told"))
        told = line(app, "told")
        assert told.startswith(
            "kill costs@1.0.0: The role of the caller does not allow this: Kill: expected role operator"
        )
        assert "\\u001b[2J[bold red]boo[/]\\nall is well" in told
        assert "\x1b" not in told
        assert rows(app, "runs")[0][0] == "r1"


async def test_no_run_no_version_no_kill() -> None:
    daemon, app = made()
    async with app.run_test() as pilot:
        await shown(app, pilot)
        for key in ("k", "s", "c"):
            await pilot.press(key)
            assert line(app, "told") == "no run is selected"
        daemon.runs.append(run("r1", version=""))
        await looked(pilot, daemon)
        await pilot.press("k")
        assert "will be known in a moment" in line(app, "told")
        assert len(app.screen_stack) == 1


async def test_it_goes_on_when_the_daemon_goes_and_comes() -> None:
    daemon, app = made(run("r1"))
    async with app.run_test(size=(120, 40)) as pilot:
        await shown(app, pilot)
        daemon.away = True
        await looked(pilot, daemon)
        assert line(app, "problem").startswith("plugind cannot be reached: /nowhere/plugind.sock")
        assert app.query_one("#problem").display
        assert rows(app, "runs") == []
        daemon.away, daemon.breaks = False, True
        await looked(pilot, daemon)
        assert "ZeroDivisionError" in line(app, "problem")
        daemon.breaks = False
        await looked(pilot, daemon)
        assert not app.query_one("#problem").display
        assert rows(app, "runs")[0][0] == "r1"


async def test_the_keys_work_while_the_daemon_does_not_answer() -> None:
    daemon, app = made(run("r1"))
    async with app.run_test() as pilot:
        await shown(app, pilot)
        daemon.answers.clear()
        await pilot.press("r", "r", "r")
        assert daemon.looks == 2, "one look at a time"
        await pilot.press("question_mark")
        assert len(app.screen_stack) == 2
        await pilot.press("x")
        assert len(app.screen_stack) == 1
        await asyncio.wait_for(pilot.press("q"), 5)
    assert daemon.closed


async def test_who_is_selected_stays_so() -> None:
    daemon, app = made(run("a", started_unix_ms=1), run("b", started_unix_ms=2), run("c", started_unix_ms=3))
    async with app.run_test() as pilot:
        await shown(app, pilot)
        await pilot.press("down")
        daemon.runs.insert(0, run("first", started_unix_ms=0))
        await looked(pilot, daemon)
        await pilot.press("c")
        assert line(app, "question") == "Really cancel b? [y/N]"
        await pilot.press("n")
        del daemon.runs[-1]
        await looked(pilot, daemon)
        assert app._selected_run().run_id == "b"


async def test_order_and_find() -> None:
    _, app = made(run("a", memory_bytes=1, plugin="one"), run("b", memory_bytes=9, plugin="two"))
    async with app.run_test(size=(120, 40)) as pilot:
        await shown(app, pilot)
        while app._order != "memory":
            await pilot.press("o")
        assert [row[0] for row in rows(app, "runs")] == ["b", "a"]
        await pilot.press("O")
        assert [row[0] for row in rows(app, "runs")] == ["a", "b"]
        await pilot.press("slash", "t", "w", "o", "enter")
        assert [row[0] for row in rows(app, "runs")] == ["b"]
        await pilot.press("c")
        assert line(app, "question") == "Really cancel b? [y/N]"
        await pilot.press("escape")
        await pilot.press("escape")
        assert [row[0] for row in rows(app, "runs")] == ["a", "b"]


async def test_hostile_text_is_text() -> None:
    daemon, app = made(run("r1", stage=HOSTILE, plugin=HOSTILE))
    daemon.holds.append(hold(reason=HOSTILE))
    daemon.anomalies = (anomaly(actual=HOSTILE),)
    async with app.run_test(size=(200, 50)) as pilot:
        await shown(app, pilot)
        for name in ("runs", "holds", "anomalies"):
            told = " ".join(rows(app, name)[0])
            assert "\\u001b[2J[bold red]boo[/]\\nall is well\\u202e" in told
        await pilot.press("k")
        assert "[bold red]" in line(app, "question")
