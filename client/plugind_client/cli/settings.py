"""The options that every command has, before or after its name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from plugind_client.client import Client

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
SocketPath = Annotated[
    str | None,
    typer.Option("--socket", metavar="PATH", help="The daemon's socket (PLUGIND_SOCKET).", show_default=False),
]


@dataclass(slots=True)
class Settings:
    """What was said about output and socket, by the main options and then by the command's own."""

    as_json: bool = False
    socket: str | None = None

    def client(self) -> Client:
        """A client for the daemon's socket. Loads gRPC."""
        from plugind_client.client import Client

        return Client(self.socket)


def settled(context: typer.Context, as_json: bool, socket: str | None) -> Settings:
    """The settings of this command: its own options win over those before its name."""
    settings = context.ensure_object(Settings)
    settings.as_json |= as_json
    settings.socket = socket or settings.socket
    return settings


def examples(*lines: str) -> str:
    r"""A help text's last part. \b keeps the lines as they are."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
