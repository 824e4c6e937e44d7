"""try: from a folder to a run in one command, with a daemon that was started with --dev."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plugind_client.cli import adapters, report
from plugind_client.cli.adapters import Built, Case
from plugind_client.cli.authoring import PluginFolder
from plugind_client.cli.devkeys import development_key
from plugind_client.cli.inputs import read_input, same_json
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
    as_json: JsonFlag = False,
    socket: SocketPath = None,
) -> None:
    """Build, sign, submit, approve, activate and run in one step.

    Signs with development keys, which only a daemon with --dev takes, and approves what the plugin declares. Without
    --input the first of the plugin's cases is run, and its output compared. An edited folder gets a version of its own,
    such as 1.2.0+try.5f0c21aa.
    """
    settings = settled(context, as_json, socket)
    plain = adapters.build(folder)
    case = None if input_file else _first_case(plain)
    text = json.dumps(case.input).encode() if case else read_input(input_file)
    with settings.client() as client:
        built = _versioned(client, folder, plain)
        attestations, public_keys = _signed(built, tier)
        if keep:
            _leave(folder, built, attestations)
        _install(client, built, attestations, public_keys)
        result = _run(client, built, text, stage or _stage(built, case))
    report.show(built.manifest.name, result, as_json=settings.as_json)
    exit_code = exit_of(result)
    if case and exit_code == Exit.OK:
        exit_code = _compared(case, result)
    raise typer.Exit(exit_code)


def _run(client: Client, built: Built, text: bytes, stage: str | None) -> RunResult:
    """One run. What an earlier try has brought into quarantine begins anew: an author tries until it is right."""
    name, version = built.manifest.name, built.manifest.version
    result = client.execute(name, input_json=text, version=version, stage=stage)
    held = next((reason for reason in result.reasons if reason.code == "QUARANTINED"), None)
    if held is None:
        return result
    note(f"released from quarantine, as this is a development daemon ({held.actual})")
    client.begin_anew(f"{name}@{version}", "plugindctl try")
    return client.execute(name, input_json=text, version=version, stage=stage)


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
