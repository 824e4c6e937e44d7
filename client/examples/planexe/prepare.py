"""Hands in, approves and activates the plugins that the pipeline calls: what a person does once for each version.

    python client/examples/planexe/prepare.py [--socket PATH] [--admin-socket PATH]

It types the commands of `plugindctl` and shows them. With a development daemon whoever may use its socket may do all of
this; with any other it takes the admin socket and the groups plugind-operator and plugind-approver, and whoever approves is
to have read the code. What is active already stays as it is.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from plugind_client import Client

HERE = Path(__file__).parent
PLUGINS = (
    HERE.parent / "plugins/schedule_monte_carlo",
    HERE.parent / "plugins/cost_breakdown",
    HERE / "plugins/results_page",
)
REASON = "example of plugind; the code was read"


class CommandFailed(Exception):
    """A command of plugindctl failed; the text is what it said."""


def prepare(socket: str, admin_socket: str = "") -> bool:
    """Whether all plugins are active in the end. Says what it does, and what went wrong."""
    environment = os.environ | {"PLUGIND_SOCKET": socket}
    if admin_socket:
        environment["PLUGIND_ADMIN_SOCKET"] = admin_socket
    try:
        for folder in PLUGINS:
            manifest = tomllib.loads((folder / "plugin.toml").read_text())
            name, version = manifest["name"], manifest["version"]
            plugindctl(environment, "submit", str(folder))
            state = state_of(socket, name, version)
            if state == "submitted":
                plugindctl(environment, "approve", f"{name}@{version}", "--as-declared", "--reason", REASON)
            if state in ("submitted", "approved"):
                plugindctl(environment, "activate", f"{name}@{version}")
    except CommandFailed as error:
        print(error, file=sys.stderr)
        return False
    return True


def state_of(socket: str, name: str, version: str) -> str:
    """submitted, approved, active, …; every caller may ask."""
    with Client(socket) as client:
        found = client.get(name).version(version)
    return found.state if found else ""


def plugindctl(environment: dict[str, str], *arguments: str) -> None:
    """Shows a command and carries it out. Raises CommandFailed."""
    beside = Path(sys.executable).with_name("plugindctl")  # of the same virtual environment
    command = str(beside) if beside.exists() else shutil.which("plugindctl")
    if command is None:
        raise CommandFailed("prepare: there is no plugindctl: pip install 'plugind[cli]'")
    print(f"$ plugindctl {shlex.join(arguments)}", flush=True)
    done = subprocess.run([command, *arguments], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise CommandFailed(f"{done.stderr.strip()}\nprepare: plugindctl {arguments[0]} ended with {done.returncode}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--socket", default=os.environ.get("PLUGIND_SOCKET", ""), help="else PLUGIND_SOCKET")
    parser.add_argument("--admin-socket", default="", help="else PLUGIND_ADMIN_SOCKET; none with a development daemon")
    given = parser.parse_args()
    if not given.socket:
        parser.error("expected --socket PATH, or the variable PLUGIND_SOCKET")
    return 0 if prepare(given.socket, given.admin_socket) else 1


if __name__ == "__main__":
    sys.exit(main())
