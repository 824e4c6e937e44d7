"""The options that every command has, before or after its name, and the sockets that follow from them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from plugind_client.client import Client

DEFAULT_ADMIN_SOCKET: Final = "/run/plugind/admin.sock"

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
SocketPath = Annotated[
    str | None,
    typer.Option("--socket", metavar="PATH", help="The daemon's socket (PLUGIND_SOCKET).", show_default=False),
]
AdminSocketPath = Annotated[
    str | None,
    typer.Option(
        "--admin-socket",
        metavar="PATH",
        help="The daemon's socket for administration (PLUGIND_ADMIN_SOCKET).",
        show_default=False,
    ),
]


@dataclass(slots=True)
class Settings:
    """What was said about output and sockets, by the main options and then by the command's own."""

    as_json: bool = False
    socket: str | None = None
    admin_socket: str | None = None
    asked: str = ""
    """The socket that this command talked to; empty when it has not yet."""
    asked_as_admin: bool = False

    def client(self) -> Client:
        """A client for runs and for looking things up. Loads gRPC."""
        from plugind_client.client import Client

        client = Client(self.socket)
        self.asked, self.asked_as_admin = client.socket, False
        return client

    def either_client(self) -> Client:
        """For what a caller may do with its own runs and an operator with all: --admin-socket where it is given."""
        return self.admin_client() if self.admin_socket else self.client()

    def admin_client(self) -> Client:
        """A client for what takes a role: --admin-socket or --socket, PLUGIND_ADMIN_SOCKET, or where it is.

        A development daemon has one socket for everything, so PLUGIND_SOCKET names it unless it is the system's.
        """
        from plugind_client.client import DEFAULT_SOCKET, Client

        only_one = os.environ.get("PLUGIND_SOCKET", "")
        client = Client(
            self.admin_socket
            or self.socket
            or os.environ.get("PLUGIND_ADMIN_SOCKET")
            or (only_one if only_one != DEFAULT_SOCKET else "")
            or DEFAULT_ADMIN_SOCKET
        )
        self.asked, self.asked_as_admin = client.socket, True
        return client


def settled(context: typer.Context, as_json: bool, socket: str | None, admin_socket: str | None = None) -> Settings:
    """The settings of this command: its own options win over those before its name."""
    settings = context.ensure_object(Settings)
    settings.as_json |= as_json
    if socket and not admin_socket:
        settings.admin_socket = None  # the command's own --socket wins over an --admin-socket before its name
    settings.socket = socket or settings.socket
    settings.admin_socket = admin_socket or settings.admin_socket
    return settings


def examples(*lines: str) -> str:
    r"""A help text's last part. \b keeps the lines as they are."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
