"""list and show: what the registry holds."""

from __future__ import annotations

import dataclasses
import datetime
from typing import Annotated

import typer

from plugind_client.cli.problems import CommandError, Exit
from plugind_client.cli.screen import print_json, table
from plugind_client.cli.settings import JsonFlag, SocketPath, examples, settled
from plugind_client.records import Limits, Permission, Plugin, PluginVersion


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(name="list", epilog=examples("plugindctl list", "plugindctl list --json | jq -r .[].name"))(list_all)
    app.command(epilog=examples("plugindctl show cost_breakdown", "plugindctl show plug_1@1.2.0 --json"))(show)


def list_all(context: typer.Context, as_json: JsonFlag = False, socket: SocketPath = None) -> None:
    """List all plugins."""
    settings = settled(context, as_json, socket)
    with settings.client() as client:
        plugins = client.list()
    if settings.as_json:
        print_json([dataclasses.asdict(plugin) for plugin in plugins])
        return
    table(("id", "plugin", "active", "tier", "state", "stages", "summary"), [_line(plugin) for plugin in plugins])


def _line(plugin: Plugin) -> tuple[str, ...]:
    """A plugin in one line: of its active version, or of its newest."""
    version = plugin.version()
    if version is None:
        return (plugin.plugin_id, plugin.name, "-", "-", "-", "-", "")
    return (
        plugin.plugin_id,
        plugin.name,
        plugin.active_version or "-",
        str(version.tier),
        version.state,
        ", ".join(version.stages),
        version.summary,
    )


def show(
    context: typer.Context,
    plugin: Annotated[str, typer.Argument(metavar="PLUGIN[@V]", help="Name or id; without version the active one.")],
    as_json: JsonFlag = False,
    socket: SocketPath = None,
) -> None:
    """Show a plugin: its versions, what it asks for, what was approved."""
    settings = settled(context, as_json, socket)
    name, _, wanted = plugin.partition("@")
    with settings.client() as client:
        found = client.get(name)
    version = found.version(wanted)
    if version is None:
        known = ", ".join(each.version for each in found.versions) or "no version"
        raise CommandError(Exit.DENIED, f"{found.name}: no version {wanted}; there is {known}", code="NOT_FOUND")
    if settings.as_json:
        print_json(dataclasses.asdict(found) | ({"versions": [dataclasses.asdict(version)]} if wanted else {}))
        return
    table((found.name, found.plugin_id), _about(version))
    print()
    rows = [(v.version, v.state, str(v.tier), _day(v.submitted_unix_ms), v.digest) for v in found.versions]
    table(("version", "state", "tier", "submitted", "sha256"), rows)


def _about(version: PluginVersion) -> list[tuple[str, str]]:
    asked = [
        ("version", version.version),
        ("state", version.state),
        ("tier", f"{version.tier} by its evidence"),
        ("summary", version.summary),
        ("license", version.license),
        ("origin", version.origin),
        ("runs as", f"{version.runtime}, interface {version.interface}, {version.entrypoint}"),
        ("stages", ", ".join(version.stages)),
        ("asks for", _permissions(version.permissions)),
        ("limits", _limits(version.limits, "the tier's defaults")),
    ]
    approval = version.approval
    if approval is None:
        return [*asked, ("approved", "no")]
    return [
        *asked,
        ("approved", f"{_day(approval.at_unix_ms)} by uid {approval.by_uid} for tier {approval.tier}"),
        ("because", approval.reason),
        ("for stages", ", ".join(approval.stages)),
        ("granted", _permissions(approval.permissions)),
        ("granted limits", _limits(approval.limits, "the tier's defaults")),
    ]


def _permissions(permissions: tuple[Permission, ...]) -> str:
    return "; ".join(f"{permission.kind} {permission.entry_json}" for permission in permissions) or "no permissions"


def _limits(limits: Limits, unset: str) -> str:
    return ", ".join(f"{name} {value}" for name, value in dataclasses.asdict(limits).items() if value) or unset


def _day(unix_ms: int) -> str:
    """A moment in UTC, to the minute."""
    return datetime.datetime.fromtimestamp(unix_ms / 1000, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
