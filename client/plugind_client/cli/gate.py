"""submit, approve, reject, activate, rollback and history: a plugin's way to where it may run, and back."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plugind_client.cli import adapters, words
from plugind_client.cli.problems import CommandError, Exit
from plugind_client.cli.screen import agreed, note, print_json, table
from plugind_client.cli.settings import AdminSocketPath, JsonFlag, Settings, SocketPath, examples, settled
from plugind_client.records import Change, Permission, PluginVersion, Submission

if TYPE_CHECKING:
    from plugind_client.cli.adapters import Built
    from plugind_client.client import Client

OneVersion = Annotated[str, typer.Argument(metavar="PLUGIN@V", help="Name or id, and the version.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(
        epilog=examples("plugindctl submit cost_rollup-0.1.0.plugin.tar", "plugindctl submit cost_rollup/ --json")
    )(submit)
    app.command(
        epilog=examples(
            'plugindctl approve cost_rollup@0.1.0 --as-declared --reason "read the code"',
            "plugindctl approve plug_3@1.0.0 --stage durations --permission file_read --expires 90 --reason pilot",
        )
    )(approve)
    app.command(epilog=examples('plugindctl reject cost_rollup@0.1.0 --reason "sums wrongly"'))(reject)
    app.command(epilog=examples("plugindctl activate cost_rollup@0.1.0"))(activate)
    app.command(
        epilog=examples(
            'plugindctl rollback cost_rollup --reason "0.2.0 is slow"',
            "plugindctl rollback cost_rollup@0.1.0 --reason regression",
        )
    )(rollback)
    app.command(epilog=examples("plugindctl history", "plugindctl history cost_rollup --json"))(history)


# --- submit ----------------------------------------------------------------------------------------------------------


def submit(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(metavar="BUNDLE|DIR", help="A .plugin.tar, or a folder to build first.")],
    as_json: JsonFlag = False,
    socket: SocketPath = None,
    admin_socket: AdminSocketPath = None,
) -> None:
    """Hand in a bundle with the signatures beside it.

    By itself this lets nothing run. The signatures are those of BUNDLE.intoto.jsonl; for a folder, of that file here or
    beside the folder.
    """
    settings = settled(context, as_json, socket, admin_socket)
    built, signatures = _to_submit(source)
    attestations = signatures.read_bytes() if signatures.exists() else b""
    voices = adapters.voices(attestations, signatures, built.digest)
    with settings.admin_client() as client:
        submitted = client.submit(built.data, attestations)
        version = client.get(submitted.plugin_id).version(submitted.version)
    widens = version.widens if version else ()
    why = _why_not_tier_1(voices, signatures) if submitted.tier == 2 else ""
    if settings.as_json:
        print_json(dataclasses.asdict(submitted) | {"not_tier_1": why, "widens": list(widens)})
        return
    print(submitted.plugin_id)
    note(f"{built.label} is {submitted.plugin_id}, {submitted.state}, Tier {submitted.tier}; sha256 {submitted.digest}")
    if why:
        note(f"it is not Tier 1: {why}")
    for sentence in widens:
        note(f"wider than what was approved last: {sentence}")
    note(f"next: `{_next_command(submitted)}`")


def _to_submit(source: Path) -> tuple[Built, Path]:
    """The bundle, and where its signatures would be."""
    if not source.is_dir():
        return adapters.read_bundle(source), source.with_name(f"{source.name}.intoto.jsonl")
    built = adapters.build(source)
    name = f"{built.file_name}.intoto.jsonl"
    here = Path(name)
    return built, here if here.exists() else source.resolve().parent / name


def _why_not_tier_1(voices: frozenset[str], signatures: Path) -> str:
    """What is known of it here; whom the daemon trusts is for the daemon to know."""
    missing = [role for role in ("publisher", "vetter") if role not in voices]
    if len(missing) == 2:
        return f"nobody has signed these bytes in {signatures}: `plugindctl sign BUNDLE --key FILE`"
    if missing:
        return f"no {missing[0]} has signed these bytes: `plugindctl sign BUNDLE --key FILE --as {missing[0]}`"
    return "the daemon does not trust the keys that signed it, or what they signed has expired"


def _next_command(submitted: Submission) -> str:
    label = f"{submitted.name}@{submitted.version}"
    return {
        "submitted": f"plugindctl approve {label} --as-declared --reason TEXT",
        "active": f"plugindctl run {label}",
    }.get(submitted.state, f"plugindctl activate {label}")


# --- approve ---------------------------------------------------------------------------------------------------------


def approve(
    context: typer.Context,
    plugin: OneVersion,
    reason: words.Reason = None,
    tier: Annotated[
        int | None,
        typer.Option(min=0, max=2, help="The highest trust that you give.", show_default="what the evidence gives"),
    ] = None,
    permission: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND[:JSON]", help="One that it declares, or all of a kind; repeatable.", show_default=False
        ),
    ] = None,
    stage: Annotated[
        list[str] | None, typer.Option(metavar="S", help="A stage that may use it; repeatable.", show_default=False)
    ] = None,
    as_declared: Annotated[bool, typer.Option("--as-declared", help="All that it declares.")] = False,
    expires: Annotated[
        int | None,
        typer.Option(metavar="DAYS", min=1, max=3650, help="The approval lapses.", show_default="never"),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonFlag = False,
    socket: SocketPath = None,
    admin_socket: AdminSocketPath = None,
) -> None:
    """Approve what you name of what a version declares.

    Nothing else will be granted. Shows what it declares and asks first, on a terminal. With none of --as-declared,
    --stage and --permission it only shows, and ends with exit code 2.
    """
    settings = settled(context, as_json, socket, admin_socket)
    name, wanted = words.plugin_version(plugin)
    why = words.reason(reason) if as_declared or stage else ""
    if as_declared and (permission or stage):
        raise CommandError(Exit.USAGE, "--as-declared is everything: leave --stage and --permission out, or it")
    if permission and not stage:
        raise CommandError(Exit.USAGE, "it could not run anywhere: name the stages that may use it with --stage")
    with settings.admin_client() as client:
        version = _declared(client, name, wanted)
        granted = () if as_declared else _named(version, permission or ())
        _show_declared(name, version)
        if not (as_declared or stage):
            all_of_it = f"all of it: `plugindctl approve {plugin} --as-declared --reason TEXT`"
            some_of_it = "some of it: --stage S and --permission KIND"
            raise CommandError(Exit.USAGE, f"{plugin}: nothing was approved now", [all_of_it, some_of_it])
        left_out = [] if as_declared else [item for item in version.permissions if item not in granted]
        if left_out:
            note(f"declared and not approved, so that its runs are denied: {words.permissions(left_out)}")
        _ask(f"Approve {plugin} {'as declared' if as_declared else 'so'}?", yes=yes)
        approved = client.approve(
            name,
            wanted,
            tier=version.tier if tier is None else tier,
            reason=why,
            as_declared=as_declared,
            stages=stage or (),
            permissions=granted,
            limits=None if as_declared else version.limits,
            not_after_unix_ms=time.time_ns() // 1_000_000 + expires * adapters.DAY_MS if expires else 0,
        )
    _tell(settings, approved, f"{plugin}: {_approved(approved, plugin)}")


def _approved(version: PluginVersion, label: str) -> str:
    if version.approval is None:
        return f"your approval is recorded; it is {version.state} until another approver says the same"
    return "approved" + (f"; next: `plugindctl activate {label}`" if version.state == "approved" else "")


def _declared(client: Client, name: str, wanted: str) -> PluginVersion:
    found = client.get(name)
    version = found.version(wanted)
    if version is None:
        known = ", ".join(each.version for each in found.versions) or "none"
        raise CommandError(
            Exit.DENIED, f"{name}: expected one of its versions ({known}), got {wanted}", code="NOT_FOUND"
        )
    return version


def _named(version: PluginVersion, texts: Sequence[str]) -> tuple[Permission, ...]:
    """The permissions that --permission names, each once."""
    return tuple(dict.fromkeys(item for text in texts for item in _of_text(version, text)))


def _of_text(version: PluginVersion, text: str) -> list[Permission]:
    kind, colon, entry = text.partition(":")
    if not colon:
        meant = [item for item in version.permissions if item.kind == kind]
    else:
        try:
            said = json.dumps(json.loads(entry), sort_keys=True, ensure_ascii=False)
        except (ValueError, RecursionError) as error:
            raise CommandError(Exit.USAGE, f"--permission {text}: expected KIND:JSON: {error}") from None
        meant = [item for item in version.permissions if item == Permission(kind, said)]
    if not meant:
        declared = words.permissions(version.permissions)
        raise CommandError(Exit.USAGE, f"--permission {text}: expected one that it declares ({declared})")
    return meant


def _show_declared(name: str, version: PluginVersion) -> None:
    rows = [
        ("sha256", version.digest),
        ("summary", version.summary),
        ("origin", version.origin),
        ("evidence", f"Tier {version.tier}"),
        ("stages", ", ".join(version.stages)),
        ("permissions", words.permissions(version.permissions)),
        ("limits", words.limits(version.limits)),
        *(("widens", sentence) for sentence in version.widens),
    ]
    table((f"{name} {version.version}", "declares"), rows, stream=sys.stderr)


def _ask(question: str, *, yes: bool) -> None:
    if not yes and sys.stdin.isatty() and not agreed(question):
        raise CommandError(Exit.USAGE, "nothing was approved", code="NOT_CONFIRMED")


# --- reject, activate, rollback --------------------------------------------------------------------------------------


def reject(
    context: typer.Context,
    plugin: OneVersion,
    reason: words.Reason = None,
    as_json: JsonFlag = False,
    socket: SocketPath = None,
    admin_socket: AdminSocketPath = None,
) -> None:
    """Take a version's approval away.

    If it was active it is not any more.
    """
    settings = settled(context, as_json, socket, admin_socket)
    name, wanted = words.plugin_version(plugin)
    why = words.reason(reason)
    with settings.admin_client() as client:
        version = client.reject(name, wanted, reason=why)
    _tell(settings, version, f"{plugin}: rejected; it is {version.state}")


def activate(
    context: typer.Context,
    plugin: OneVersion,
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Why; kept with it.", show_default=False)] = None,
    as_json: JsonFlag = False,
    socket: SocketPath = None,
    admin_socket: AdminSocketPath = None,
) -> None:
    """Make an approved version the active one.

    The one before it is retired.
    """
    settings = settled(context, as_json, socket, admin_socket)
    name, wanted = words.plugin_version(plugin)
    with settings.admin_client() as client:
        version = client.activate(name, wanted, reason=reason)
    _tell(settings, version, f"{plugin}: active; run it with `plugindctl run {name}{_stage(version)}`")


def _stage(version: PluginVersion) -> str:
    stages = version.approval.stages if version.approval else ()
    return f" --stage {shlex.quote(stages[0])}" if stages and stages[0] != "*" else ""


def rollback(
    context: typer.Context,
    plugin: Annotated[str, typer.Argument(metavar="PLUGIN[@V]", help="Without a version the one active before.")],
    reason: words.Reason = None,
    as_json: JsonFlag = False,
    socket: SocketPath = None,
    admin_socket: AdminSocketPath = None,
) -> None:
    """Make an earlier, approved version active again."""
    settings = settled(context, as_json, socket, admin_socket)
    name, wanted = words.plugin_version(plugin) if "@" in plugin else (plugin, None)
    why = words.reason(reason)
    with settings.admin_client() as client:
        version = client.rollback(name, wanted, reason=why)
    _tell(settings, version, f"{name}: {version.version} is active again")


def _tell(settings: Settings, version: PluginVersion, said: str) -> None:
    """What has become of a version."""
    if settings.as_json:
        print_json(dataclasses.asdict(version))
        return
    note(said)
    for hold in version.holds:
        note(f"it does not run: {hold.kind} ({hold.target}): {hold.reason}")


# --- history ---------------------------------------------------------------------------------------------------------


def history(
    context: typer.Context,
    plugin: Annotated[str | None, typer.Argument(metavar="[PLUGIN]", help="Name or id.", show_default="all")] = None,
    as_json: JsonFlag = False,
    socket: SocketPath = None,
) -> None:
    """Show what people decided: when, who, what and why.

    The newest is last.
    """
    settings = settled(context, as_json, socket)
    with settings.client() as client:
        changes = client.history(plugin)
    if settings.as_json:
        print_json([dataclasses.asdict(change) | {"detail": _detail(change)} for change in changes])
        return
    if not changes:
        note("nothing was decided yet")
        return
    rows = [(words.moment(c.at_unix_ms), words.person(c.by_uid), c.action, _about(c), c.why or "-") for c in changes]
    table(("when", "who", "what", "version", "why"), rows)


def _detail(change: Change) -> Any:
    """As a JSON value; None where there is none that can be read."""
    try:
        return json.loads(change.detail_json) if change.detail_json else None
    except ValueError:
        return None


def _about(change: Change) -> str:
    """A version or plugin, or the target of a hold."""
    if change.plugin:
        return " ".join(filter(None, (change.plugin, change.version)))
    detail = _detail(change)
    target = detail.get("target") if isinstance(detail, dict) else None
    return str(target or change.digest or "-")
