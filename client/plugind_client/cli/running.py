"""run, ps, cancel."""

from __future__ import annotations

import dataclasses
import time
from typing import Annotated

import typer

from plugind_client.cli import planoptions, report, words
from plugind_client.cli.inputs import read_input
from plugind_client.cli.planoptions import PlanFolder, SendFlag
from plugind_client.cli.problems import CommandError, Exit, exit_of
from plugind_client.cli.screen import note, print_json, table
from plugind_client.cli.settings import AdminSocketPath, JsonFlag, SocketPath, examples, settled

InputFile = Annotated[
    str | None,
    typer.Option("--input", "-i", metavar="FILE|-", help="JSON input; - is standard input.", show_default=False),
]
StageName = Annotated[
    str | None, typer.Option("--stage", metavar="S", help="The PlanExe stage that asks.", show_default=False)
]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(
        epilog=examples(
            "plugindctl run cost_breakdown --stage durations --input wbs.json",
            "plugindctl run cost_breakdown@1.2.0 -i - < wbs.json | jq .total",
            "plugindctl run plug_1 --plan plan_7 --sensitivity confidential --json",
            "plugindctl run cost_report --plan-dir /srv/plans/plan_7",
            "plugindctl run cost_report --plan-dir . --send",
        )
    )(run)
    app.command(epilog=examples("plugindctl ps", "plugindctl ps --json | jq -r .[].run_id"))(ps)
    app.command(epilog=examples("plugindctl cancel run_5f21"))(cancel)


def run(
    context: typer.Context,
    plugin: Annotated[str, typer.Argument(metavar="PLUGIN[@V]", help="Name or id, and a version if not the active.")],
    stage: StageName = None,
    input_file: InputFile = None,
    plan: Annotated[
        str | None, typer.Option(metavar="ID", help="The plan that the run belongs to.", show_default=False)
    ] = None,
    plan_dir: PlanFolder = None,
    send: SendFlag = False,
    sensitivity: Annotated[
        str | None,
        typer.Option(metavar="L", help="public, internal, confidential or restricted.", show_default="internal"),
    ] = None,
    timeout_ms: Annotated[
        int | None,
        typer.Option(metavar="MS", min=1, help="Wall limit, below what was approved.", show_default=False),
    ] = None,
    trial: Annotated[
        bool,
        typer.Option("--trial", help="As an operator: try generated code that is in quarantine from its start."),
    ] = False,
    as_json: JsonFlag = False,
    socket: SocketPath = None,
    admin_socket: AdminSocketPath = None,
) -> None:
    """Run a plugin once and print its output.

    The output goes to standard output, all else to standard error. Without --input the input is {}. Ctrl-C ends the
    run. What a plugin writes into --plan-dir comes there all at once, after it has ended well, or not at all.
    """
    settings = settled(context, as_json, socket, admin_socket)
    planoptions.checked(plan_dir, send=send)
    text = read_input(input_file)
    with settings.admin_client() if trial else settings.client() as client:
        result = planoptions.execute(
            client,
            plugin,
            plan_dir,
            send=send,
            input_json=text,
            stage=stage,
            plan_id=plan,
            sensitivity=sensitivity,
            timeout_ms=timeout_ms,
            trial=trial,
        )
    report.show(plugin.partition("@")[0], result, as_json=settings.as_json)
    raise typer.Exit(exit_of(result))


def ps(
    context: typer.Context,
    as_json: JsonFlag = False,
    socket: SocketPath = None,
    admin_socket: AdminSocketPath = None,
) -> None:
    """List the runs in flight, and what they use now.

    Your own; as an operator, with --admin-socket, all. What is not known is "-".
    """
    settings = settled(context, as_json, socket, admin_socket)
    with settings.either_client() as client:
        runs = client.runs()
    if settings.as_json:
        print_json([dataclasses.asdict(run) for run in runs])
        return
    if not runs:
        note("no run is in flight")
        return
    now_ms = time.time() * 1000
    rows = [
        (
            run.run_id,
            f"{run.plugin} {run.version}",
            run.plugin_id,
            str(run.tier),
            run.stage or "-",
            words.seconds(now_ms - run.started_unix_ms),
            words.seconds(run.cpu_ms),
            words.size(run.memory_bytes),
            words.count(run.pids),
            words.count(run.refused_calls),
            str(run.caller_uid),
            run.state,
        )
        for run in runs
    ]
    table(("run", "plugin", "id", "tier", "stage", "for", "cpu", "memory", "pids", "refused", "uid", "state"), rows)


def cancel(
    context: typer.Context,
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="Its id, as `plugindctl ps` shows it.")],
    as_json: JsonFlag = False,
    socket: SocketPath = None,
    admin_socket: AdminSocketPath = None,
) -> None:
    """End a run in flight: its instance is killed.

    One of your own; as an operator, with --admin-socket, any. Its outcome is canceled.
    """
    settings = settled(context, as_json, socket, admin_socket)
    with settings.either_client() as client:
        found = client.cancel(run_id)
    if not found:
        raise CommandError(Exit.DENIED, f"{run_id}: no such run of yours is in flight", code="NOT_FOUND")
    if settings.as_json:
        print_json({"run_id": run_id, "found": True})
    else:
        note(f"{run_id}: canceled")
