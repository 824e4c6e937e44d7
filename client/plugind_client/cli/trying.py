"""try: from a folder to a run in one command, with a daemon that was started with --dev."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plugind_client.cli import adapters, planoptions, report
from plugind_client.cli.adapters import Built, Case
from plugind_client.cli.authoring import PluginFolder
from plugind_client.cli.devkeys import development_key
from plugind_client.cli.inputs import read_input, same_json
from plugind_client.cli.planoptions import PlanFolder, SendFlag
from plugind_client.cli.problems import CommandError, Exit, exit_of
from plugind_client.cli.running import InputFile, StageName
from plugind_client.cli.screen import note
from plugind_client.cli.settings import JsonFlag, SocketPath, examples, settled
from plugind_client.errors import NotFound
from plugind_client.records import RunResult

if TYPE_CHECKING:
    from plugind_client.client import Client


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        name="try",
        epilog=examples(
            "plugindctl try cost_rollup",
            "plugindctl try cost_rollup --input wbs.json --stage durations",
            "plugindctl try cost_rollup --tier 1 --keep --json",
            "plugindctl try cost_report --plan-dir plans/garden",
            "plugindctl try cost_report --plan-dir plans/garden --learn",
        ),
    )(try_folder)


def try_folder(
    context: typer.Context,
    folder: PluginFolder,
    input_file: InputFile = None,
    tier: Annotated[
        int, typer.Option(min=1, max=2, help="1 adds the vetter's signature, as if the plugin had been checked.")
    ] = 2,
    stage: StageName = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave bundle and attestations beside DIR.")] = False,
    plan_dir: PlanFolder = None,
    send: SendFlag = False,
    learn: Annotated[
        bool,
        typer.Option(
            "--learn",
            help="Let it read all of --plan-dir, keep nothing, and tell which permissions it needs. For Python.",
        ),
    ] = False,
    as_json: JsonFlag = False,
    socket: SocketPath = None,
) -> None:
    """Build, sign, submit, approve, activate and run in one step.

    Signs with development keys, which only a daemon with --dev takes, and approves what the plugin declares. Without
    --input the first of the plugin's cases is run, and its output compared. An edited folder gets a version of its own,
    such as 1.2.0+try.5f0c21aa. With --learn nothing of the plan is changed, and what is told is which files the plugin
    tried to open, and the smallest [[permissions]] for them.
    """
    settings = settled(context, as_json, socket)
    planoptions.checked(plan_dir, send=send)
    plain = adapters.build(folder)
    if learn:
        _require_learnable(plain, plan_dir, send=send)
    case = None if input_file else _first_case(plain)
    text = json.dumps(case.input).encode() if case else read_input(input_file)
    with settings.client() as client:
        built = _versioned(client, folder, plain)
        attestations, public_keys = _signed(built, tier)
        if keep:
            _leave(folder, built, attestations)
        _install(client, built, attestations, public_keys)
        name, version = built.manifest.name, built.manifest.version

        def run() -> RunResult:
            return planoptions.execute(
                client,
                name,
                plan_dir,
                send=send,
                version=version,
                input_json=text,
                stage=stage or _stage(built, case),
                learn=learn,
            )

        result = _run(client, f"{name}@{version}", run)
    report.show(name, result, as_json=settings.as_json, learned=learn)
    exit_code = exit_of(result)
    if case and exit_code == Exit.OK:
        exit_code = _compared(case, result)
    raise typer.Exit(exit_code)


def _require_learnable(built: Built, plan_dir: Path | None, *, send: bool) -> None:
    if plan_dir is None or send:
        raise CommandError(Exit.USAGE, "--learn: expected --plan-dir DIR without --send: the daemon opens the plan")
    if built.manifest.runtime != "python":
        message = f"--learn: expected a plugin whose runtime is python, got {built.manifest.runtime}: {built.label}"
        raise CommandError(Exit.USAGE, message, ["Python tells what it opens; of a program nobody does"])


def _run(client: Client, label: str, run: Callable[[], RunResult]) -> RunResult:
    """One run. What an earlier try has brought into quarantine begins anew: an author tries until it is right."""
    result = run()
    held = next((reason for reason in result.reasons if reason.code == "QUARANTINED"), None)
    if held is None:
        return result
    note(f"released from quarantine, as this is a development daemon ({held.actual})")
    client.begin_anew(label, "plugindctl try")
    return run()


def _first_case(built: Built) -> Case:
    if not built.cases:
        raise CommandError(Exit.USAGE, f"{built.label} has no case in cases/: name its input with --input FILE")
    return built.cases[0]


def _stage(built: Built, case: Case | None) -> str | None:
    """A stage that the plugin is for: of its case, or the first that it declares."""
    if case and case.stage:
        return case.stage
    declared = built.manifest.stages[0] if built.manifest.stages else "*"
    return None if declared == "*" else declared


def _versioned(client: Client, folder: Path, plain: Built) -> Built:
    """The bundle under a version that the daemon does not know with other bytes."""
    try:
        stored = client.get(plain.manifest.name).version(plain.manifest.version)
    except NotFound:
        return plain
    if stored is None or stored.digest == plain.digest:
        return plain
    return adapters.build(folder, f"+try.{hashlib.sha256(plain.data).hexdigest()[:8]}")


def _signed(built: Built, tier: int) -> tuple[bytes, list[str]]:
    """The attestations that give this tier, and the public keys that they verify with."""
    publisher = development_key("publisher")
    vetter = development_key("vetter") if tier == 1 else None
    attestations = adapters.attest(built, publisher, vetter, time.time_ns() // 1_000_000)
    keys = [publisher, vetter] if vetter else [publisher]
    return attestations, [key.public.to_pem().decode() for key in keys]


def _leave(folder: Path, built: Built, attestations: bytes) -> None:
    beside = folder.resolve().parent
    for name, data in ((built.file_name, built.data), (f"{built.file_name}.intoto.jsonl", attestations)):
        (beside / name).write_bytes(data)
        note(f"kept {beside / name}")


def _install(client: Client, built: Built, attestations: bytes, public_keys: list[str]) -> None:
    submitted = client.submit(built.data, attestations, development_public_keys=public_keys)
    name, version = built.manifest.name, built.manifest.version
    client.approve(name, version, tier=submitted.tier, as_declared=True, reason="plugindctl try")
    client.activate(name, version)


def _compared(case: Case, result: RunResult) -> Exit:
    """Whether the output is the case's."""
    if not case.has_output:
        return Exit.OK
    if same_json(case.output, result.output):
        note(f"case {case.name}: the output is as expected")
        return Exit.OK
    note(f"case {case.name}: expected {json.dumps(case.output, ensure_ascii=False)}")
    note(f"case {case.name}: got      {json.dumps(result.output, ensure_ascii=False)}")
    return Exit.CHECK_FAILED
