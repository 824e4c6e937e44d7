"""The terminal's picture of the daemon. Whatever is asked of the daemon is asked in a thread: the keys always work."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import ClassVar, Final

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.coordinate import Coordinate
from textual.message import Message
from textual.widgets import DataTable, Footer, Input, Static

from plugind_client.cli.screen import one_line
from plugind_client.cli.top import tables
from plugind_client.cli.top.dialogs import Asked, Help
from plugind_client.cli.top.rates import Shares
from plugind_client.cli.top.reading import Lack, Reading
from plugind_client.cli.top.source import Daemon, joined
from plugind_client.errors import Fault, PlugindError
from plugind_client.records import Hold, RunningRun

HELP: Final = """\
k      kill the selected run's version: it ends, and nothing of it starts any more
s      put the selected run's version into quarantine
c      cancel the selected run
l      lift the selected kill (Tab goes to the holds)
o, O   order by the next column; turn the order round
/      show only the runs in which a text is found (Esc shows all)
r      look again now
Tab    go to the next table; arrows, Page Up and Page Down move in it
q      quit

k, s and l ask why, and whether it is meant; c asks whether it is meant."""


class TopApp(App[None]):
    """Looks every `interval_s` seconds, and goes on trying when there is no daemon."""

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    .line { height: auto; max-height: 2; }
    .title { height: 1; text-style: bold; }
    #problem { color: $error; display: none; }
    #runs { height: 1fr; min-height: 4; }
    #anomalies, #holds { height: 20%; min-height: 3; }
    #filter { display: none; height: 1; border: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("k", "kill", "kill"),
        Binding("s", "quarantine", "quarantine"),
        Binding("c", "cancel_run", "cancel"),
        Binding("l", "lift", "lift"),
        Binding("o", "order", "order"),
        Binding("O", "turn", "turn", show=False),
        Binding("slash", "filter", "find", key_display="/"),
        Binding("r", "look", "look"),
        Binding("question_mark", "help", "help", key_display="?"),
        Binding("q", "quit", "quit"),
        Binding("escape", "show_all", "show all", show=False),
    ]

    class Looked(Message):
        """One look is over."""

        def __init__(self, reading: Reading) -> None:
            super().__init__()
            self.reading = reading

    class Told(Message):
        """Something that was asked for is done, or is not."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    def __init__(self, daemon: Daemon, interval_s: float) -> None:
        super().__init__()
        self._daemon = daemon
        self._interval_s = interval_s
        self._looking = False
        self._before: Reading | None = None
        self._now: Reading | None = None
        self._shares = Shares()
        self._order = "age"
        self._turned = False
        self._wanted = ""
        self._runs: list[RunningRun] = []
        """As they are shown."""
        self._holds: list[Hold] = []

    def compose(self) -> ComposeResult:
        """From top to bottom."""
        for name in ("head", "queue", "rates", "problem"):
            yield Static(id=name, classes="line", markup=False)
        yield DataTable[Text](id="runs", cursor_type="row")
        yield Static("violations and anomalies", classes="title", markup=False)
        yield DataTable[Text](id="anomalies", cursor_type="row")
        yield Static("holds", classes="title", markup=False)
        yield DataTable[Text](id="holds", cursor_type="row")
        yield Input(id="filter", placeholder="show runs with", compact=True)
        yield Static(id="told", classes="line", markup=False)
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Begin to look."""
        self._name_columns()
        for name, headings in (("anomalies", tables.ANOMALY_HEADINGS), ("holds", tables.HOLD_HEADINGS)):
            self._table(name).add_columns(*map(Text, headings))
        self._line("head", "looking for the daemon ...")
        self._table("runs").focus()
        self.set_interval(self._interval_s, self.action_look)
        self.action_look()

    def on_unmount(self) -> None:
        """Nobody waits for the daemon any more: a thread that does would keep the process."""
        self._daemon.close()

    # -- looking

    def action_look(self) -> None:
        """Look, unless a look is under way."""
        if not self._looking:
            self._looking = True
            self.run_worker(self._look, thread=True, exit_on_error=False)

    def _look(self) -> None:
        """In a thread."""
        try:
            reading = self._daemon.look()
        except Exception as error:  # noqa: BLE001 - a fault of ours is told, and does not end the looking
            reading = Reading(time.monotonic(), time.time_ns() // 10**6, error=Fault("FAULT", detail=repr(error)))
        self.post_message(self.Looked(reading))

    def on_top_app_looked(self, message: TopApp.Looked) -> None:
        """Show it."""
        self._looking = False
        self._before, self._now = self._now, message.reading
        self._shares.note(message.reading.runs)
        self._show()

    def _show(self) -> None:
        now = self._now
        if now is None:
            return
        self._line("head", tables.head(now))
        self._line("queue", tables.queue_line(now))
        self._line("rates", tables.rate_line(self._before, now))
        problem = tables.problem(now, self._daemon.socket)
        self._line("problem", problem)
        self.query_one("#problem").display = bool(problem)
        self._show_runs(now)
        rows = tables.anomaly_rows(now.anomalies)
        self._fill("anomalies", [(str(number), row) for number, row in enumerate(rows)])
        self._holds = [] if isinstance(now.status, Lack) else [*now.status.holds]
        self._fill("holds", [(f"{hold.kind} {hold.target}", tables.hold_row(hold)) for hold in self._holds])

    def _show_runs(self, now: Reading) -> None:
        self._runs = tables.chosen(now.runs, self._shares, self._order, turned=self._turned, wanted=self._wanted)
        self._fill("runs", [(run.run_id, tables.run_row(run, self._shares, now.unix_ms)) for run in self._runs])

    # -- keys that look elsewhere

    def action_order(self) -> None:
        """By the next column."""
        place = tables.RUN_HEADINGS.index(self._order)
        self._order = tables.RUN_HEADINGS[(place + 1) % len(tables.RUN_HEADINGS)]
        self._turned = False
        self._name_columns()
        self._show()

    def action_turn(self) -> None:
        """The other way round."""
        self._turned = not self._turned
        self._name_columns()
        self._show()

    def on_data_table_header_selected(self, event: DataTable.HeaderSelected) -> None:
        """A click on a heading orders by it, a second one turns that round."""
        if event.data_table.id == "runs":
            clicked = tables.RUN_HEADINGS[event.column_index]
            self._turned = clicked == self._order and not self._turned
            self._order = clicked
            self._name_columns()
            self._show()

    def action_filter(self) -> None:
        """Ask for a text."""
        field = self.query_one("#filter", Input)
        field.display = True
        field.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Show what is found while it is typed."""
        if event.input.id == "filter":
            self._wanted = event.value
            self._show()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Back to the runs; the text stays in sight where there is one."""
        if event.input.id == "filter":
            event.input.display = bool(event.value)
            self._table("runs").focus()

    def action_show_all(self) -> None:
        """Away with the text."""
        field = self.query_one("#filter", Input)
        field.value = ""
        field.display = False
        self._table("runs").focus()

    def action_help(self) -> None:
        """What the keys do."""
        self.push_screen(Help(HELP))

    # -- keys that stop something

    def action_kill(self) -> None:
        """The kill switch for a version."""
        self._stop_version("kill", self._daemon.kill)

    def action_quarantine(self) -> None:
        """Quarantine for a version."""
        self._stop_version("quarantine", self._daemon.quarantine)

    def _stop_version(self, what: str, do: Callable[[str, str], str]) -> None:
        run = self._selected_run()
        if run is None:
            return
        if not run.plugin or not run.version:
            self._say(f"{run.run_id}: of which version it is will be known in a moment; try again then")
            return
        target = f"{run.plugin}@{run.version}"
        self._ask(f"{what} {target}", lambda reason: do(target, reason))

    def action_cancel_run(self) -> None:
        """One run ends."""
        if run := self._selected_run():
            run_id = run.run_id
            self._ask(f"cancel {run_id}", lambda _: self._daemon.cancel(run_id), with_reason=False)

    def action_lift(self) -> None:
        """What was killed may run again."""
        place = self._table("holds").cursor_row
        hold = self._holds[place] if place < len(self._holds) else None
        if hold is None or hold.kind != "killed":
            self._say("select a kill in the holds first: Tab goes there")
            return
        target = hold.target
        self._ask(f"lift the kill of {target}", lambda reason: self._daemon.lift(target, reason))

    def _selected_run(self) -> RunningRun | None:
        place = self._table("runs").cursor_row
        if place < len(self._runs):
            return self._runs[place]
        self._say("no run is selected")
        return None

    def _ask(self, what: str, do: Callable[[str], str], *, with_reason: bool = True) -> None:
        def go_on(reason: str | None) -> None:
            if reason is None:
                self._say(f"{what}: not done")
                return
            self._say(f"{what} ...")
            self.run_worker(functools.partial(self._do, what, do, reason), thread=True, exit_on_error=False)

        self.push_screen(Asked(what, with_reason=with_reason), go_on)

    def _do(self, what: str, do: Callable[[str], str], reason: str) -> None:
        """In a thread."""
        try:
            told = do(reason)
        except PlugindError as error:
            reasons = (": ".join(filter(None, (each.code, each.actual))) for each in error.reasons)
            told = joined(f"{what}: {error}", "; ".join(filter(None, (*reasons, error.detail))))
        except Exception as error:  # noqa: BLE001 - as above
            told = f"{what}: a fault of plugindctl: {error!r}"
        self.post_message(self.Told(told))

    def on_top_app_told(self, message: TopApp.Told) -> None:
        """Show it, and what became of it."""
        self._say(message.text)
        self.action_look()

    # -- widgets

    def _table(self, name: str) -> DataTable[Text]:
        return self.query_one(f"#{name}", DataTable)

    def _line(self, name: str, text: str) -> None:
        self.query_one(f"#{name}", Static).update(Text(text, overflow="ellipsis"))

    def _say(self, text: str) -> None:
        self._line("told", one_line(text))

    def _name_columns(self) -> None:
        down = (self._order in tables.LARGEST_FIRST) != self._turned
        table = self._table("runs")
        table.clear(columns=True)
        for heading in tables.RUN_HEADINGS:
            mark = (" ▼" if down else " ▲") if heading == self._order else ""
            table.add_column(Text(heading + mark), key=heading)

    def _fill(self, name: str, rows: Sequence[tuple[str, tables.Row]]) -> None:
        """Show these rows. Who was selected stays so, wherever it is now."""
        table = self._table(name)
        shown = [key.value for key in table.rows]
        keys = [key for key, _ in rows]
        if shown == keys:
            for place, (_, row) in enumerate(rows):
                for column, cell in enumerate(row):
                    table.update_cell_at(Coordinate(place, column), Text(cell), update_width=True)
            return
        place = table.cursor_row
        selected = shown[place] if place < len(shown) else None
        table.clear()
        for key, row in rows:
            table.add_row(*map(Text, row), key=key)
        table.move_cursor(row=keys.index(selected) if selected in keys else place)
