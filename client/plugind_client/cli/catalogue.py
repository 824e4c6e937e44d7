"""list and show: what the registry holds."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from plugind_client.cli import words
from plugind_client.cli.problems import CommandError, Exit
from plugind_client.cli.screen import note, print_json, table
from plugind_client.cli.settings import JsonFlag, SocketPath, examples, settled
from plugind_client.records import Plugin, PluginVersion


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
    if not plugins:
        note("there are no plugins yet: `plugindctl try DIR` submits one")
        return
    headings = ("id", "plugin", "active", "tier", "state", "held", "stages", "summary")
    table(headings, [_line(plugin) for plugin in plugins])


def _line(plugin: Plugin) -> tuple[str, ...]:
    """A plugin in one line: of its active version, or of its newest; held are those of all its versions."""
    version = plugin.version()
    if version is None:
        return (plugin.plugin_id, plugin.name, "-", "-", "-", "-", "-", "")
    return (
        plugin.plugin_id,
        plugin.name,
        plugin.active_version or "-",
        str(version.tier),
        version.state,
        ", ".join(f"{each.version} {_held(each)}" for each in plugin.versions if each.holds) or "-",
        ", ".join(version.stages),
        version.summary,
    )


def _held(version: PluginVersion) -> str:
    return " and ".join(dict.fromkeys(hold.kind for hold in version.holds))


def show(
    context: typer.Context,
    plugin: Annotated[str, typer.Argument(metavar="PLUGIN[@V]", help="Name or id; without version the active one.")],
    as_json: JsonFlag = False,
    socket: SocketPath = None,
) -> None:
    """Show a plugin: what it asks for, and what was approved."""
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
    rows = [
        (
            each.version,
            each.state,
            _held(each) or "-",
            str(each.tier),
            words.moment(each.submitted_unix_ms),
            each.digest,
        )
        for each in found.versions
    ]
    table(("version", "state", "held", "tier", "submitted", "sha256"), rows)


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
        ("asks for", words.permissions(version.permissions)),
        ("limits", words.limits(version.limits)),
        *(("widens", sentence) for sentence in version.widens),
        *((hold.kind, words.hold(hold)) for hold in version.holds),
    ]
    approval = version.approval
    if approval is None:
        return [*asked, ("approved", "no")]
    return [
        *asked,
        (
            "approved",
            f"{words.moment(approval.at_unix_ms)} by uid {words.person(approval.by_uid)} for tier {approval.tier}",
        ),
        ("because", approval.reason),
        ("for stages", ", ".join(approval.stages)),
        ("granted", words.permissions(approval.permissions)),
        ("granted limits", words.limits(approval.limits)),
    ]
