"""What is asked before anything is stopped: why, and whether it is meant; and the help."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from plugind_client.cli.screen import one_line

_BOX = """
{name} {{ align: center middle; }}
{name} Vertical {{
    width: 76; max-width: 95%; height: auto; border: round $accent; padding: 0 1; background: $surface;
}}
{name} Static {{ width: 100%; height: auto; }}
"""


class Asked(ModalScreen[str | None]):
    """Gives the reason, or None: it is not wanted after all. Without `with_reason` it gives "" for a yes."""

    AUTO_FOCUS = ""
    """Focus is set here: what is typed after the reason is the answer."""
    CSS = _BOX.format(name="Asked")
    BINDINGS: ClassVar[list[BindingType]] = [("escape", "no", "no")]

    def __init__(self, what: str, *, with_reason: bool = True) -> None:
        """`what` is to be done, as a sentence without its end: "kill costs@1.0.0"."""
        super().__init__()
        self._what = one_line(what)
        self._with_reason = with_reason
        self._reason: str | None = None if with_reason else ""

    def compose(self) -> ComposeResult:
        """The box."""
        with Vertical():
            yield Static(Text(f"{self._what}: why? (Enter goes on, Esc does not)"), id="question")
            if self._with_reason:
                yield Input(id="reason")

    def on_mount(self) -> None:
        """Who is asked for no reason is only asked whether it is meant."""
        if self._with_reason:
            self.query_one("#reason").focus()
        else:
            self._confirm()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """The reason is there; one of blanks is none."""
        event.stop()
        if event.value.strip():
            self._reason = event.value.strip()
            self._confirm()

    def _confirm(self) -> None:
        self.set_focus(None)
        for field in self.query("#reason"):
            field.display = False
        because = f", because: {one_line(self._reason)}" if self._reason else ""
        self.query_one("#question", Static).update(Text(f"Really {self._what}{because}? [y/N]"))

    def on_key(self, event: events.Key) -> None:
        """A yes is a y; every other key is a no."""
        if self._reason is None:
            return  # still being typed
        event.stop()
        self.dismiss(self._reason if event.key in {"y", "Y"} else None)

    def action_no(self) -> None:
        """It is not wanted."""
        self.dismiss(None)


class Help(ModalScreen[None]):
    """The keys. Any of them closes it."""

    CSS = _BOX.format(name="Help")

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        """The box."""
        with Vertical():
            yield Static(Text(self._text))

    def on_key(self, event: events.Key) -> None:
        """Seen."""
        event.stop()
        self.dismiss()
