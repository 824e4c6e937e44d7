"""policy: check a policy file without a daemon, and explain what the daemon's policy makes of one request."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from plugind_client.cli import adapters
from plugind_client.cli.problems import CommandError, Exit, told
from plugind_client.cli.running import StageName
from plugind_client.cli.screen import note, one_line, print_json, table
from plugind_client.cli.settings import AdminSocketPath, JsonFlag, SocketPath, examples, settled
from plugind_client.records import Reason

if TYPE_CHECKING:
    from plugind.policy.file import Policy


class Check(Protocol):
    """One check of a request. `reasons` also say what a rule that only warns has found."""

    @property
    def name(self) -> str:
        """Such as "stage"."""

    @property
    def ok(self) -> bool:
        """Whether it holds."""

    @property
    def reasons(self) -> Sequence[Reason]:
        """Why not."""


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    policy = typer.Typer(no_args_is_help=True, help="Check the policy, and explain what it makes of a request.")
    policy.command(
        epilog=examples(
            "plugindctl policy check", "plugindctl policy check policy.toml && plugindctl policy check --json"
        )
    )(check)
    policy.command(
        epilog=examples(
            "plugindctl policy explain cost_breakdown --stage durations",
            "plugindctl policy explain plug_1@1.2.0 --sensitivity restricted --json",
        )
    )(explain)
    policy.command(epilog=examples("plugindctl policy check && plugindctl policy reload"))(reload)
    app.add_typer(policy, name="policy")


def check(
    context: typer.Context,
    file: Annotated[
        Path | None,
        typer.Argument(help="Without it the configured one, or else the one that was installed.", show_default=False),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Check a policy file: every mistake with its line and column.

    Needs no daemon. Limits and permissions are compared with the tiers' profiles too. Exit code 7 when something is
    wrong.
    """
    settings = settled(context, as_json, None)
    if file is not None and not file.is_file():
        raise CommandError(Exit.USAGE, f"{file}: expected a policy file, there is none")
    path = file or _in_force()
    policy, problems = _read(path)
    if settings.as_json:
        digest = policy.digest if policy else None
        print_json({"ok": policy is not None, "file": str(path), "sha256": digest, "problems": list(problems)})
    elif policy is not None:
        print(one_line(f"{path}: ok, {_summary(policy)}"))
    else:
        for problem in problems:
            print(one_line(problem))
        note(f"{path}: {len(problems)} problem(s); a running daemon keeps the policy that it has")
    raise typer.Exit(Exit.CHECK_FAILED if policy is None else Exit.OK)


def _read(path: Path) -> tuple[Policy | None, tuple[str, ...]]:
    """The policy in a file, or what is wrong with it."""
    with adapters.packages_of("cli"):
        from plugind.policy.file import InvalidPolicyError
        from plugind.policyfile import load_policy
    try:
        return load_policy(path, adapters.profiles()), ()
    except InvalidPolicyError as error:
        return None, error.problems


def _in_force() -> Path:
    from plugind import config
    from plugind.errors import ConfigError
    from plugind.policyfile import shipped_policy

    try:
        return config.load(config.Flags(), os.environ).policy or shipped_policy()
    except ConfigError as error:
        raise CommandError(Exit.USAGE, str(error), code="CONFIG") from None


def _summary(policy: Policy) -> str:
    settings = policy.settings
    modes = [rule.mode for rules in (policy.tiers, policy.stages, policy.sensitivities) for rule in rules.values()]
    said = [
        f"{len(policy.tiers)} tiers, {len(policy.stages)} stages, {len(policy.sensitivities)} sensitivities",
        f"approvers {settings.approvers}",
    ]
    if settings.approver_may_be_submitter:
        said.append("who publishes or submits may approve")
    not_enforced = sum(mode != "enforce" for mode in modes)
    if not_enforced:
        said.append(f"{not_enforced} rules not enforced")
    return "; ".join([*said, f"sha256 {policy.digest}"])


def reload(
    context: typer.Context,
    as_json: JsonFlag = False,
    socket: SocketPath = None,
    admin_socket: AdminSocketPath = None,
) -> None:
    """Have the daemon read its policy file again. A broken one is refused, and the policy in force stays."""
    settings = settled(context, as_json, socket, admin_socket)
    with settings.admin_client() as client:
        reloaded = client.reload_policy()
    if settings.as_json:
        print_json(dataclasses.asdict(reloaded))
    else:
        note(f"policy {reloaded.policy_sha256} {'is in force now' if reloaded.changed else 'is the same as before'}")


def explain(
    context: typer.Context,
    plugin: Annotated[str, typer.Argument(metavar="PLUGIN[@V]", help="Name or id; without version the active one.")],
    stage: StageName = None,
    sensitivity: Annotated[
        str | None, typer.Option("--sensitivity", metavar="L", help="Of the plan; internal.", show_default=False)
    ] = None,
    as_json: JsonFlag = False,
    socket: SocketPath = None,
) -> None:
    """Show every check that a run would have to pass, those that hold too.

    Nothing is run. Exit code 7 when a check does not hold.
    """
    settings = settled(context, as_json, socket)
    name, _, version = plugin.partition("@")
    with settings.client() as client:
        checks = client.explain(name, version=version or None, stage=stage, sensitivity=sensitivity)
    show(checks, as_json=settings.as_json)
    raise typer.Exit(Exit.OK if all(each.ok for each in checks) else Exit.CHECK_FAILED)


def show(checks: Sequence[Check], *, as_json: bool) -> None:
    """Prints the checks in their order; for people what follows from them goes to standard error."""
    if as_json:
        print_json(
            [
                {"name": each.name, "ok": each.ok, "reasons": [dataclasses.asdict(reason) for reason in each.reasons]}
                for each in checks
            ]
        )
        return
    table(("", "check", "found"), [row for each in checks for row in _rows(each)])
    failed = [each.name for each in checks if not each.ok]
    note(f"denied: {', '.join(failed)}" if failed else "allowed")


def _rows(check: Check) -> list[tuple[str, str, str]]:
    """A check, and what it found in lines of its own."""
    lines = [line for reason in check.reasons for line in told(reason)]
    state = "DENIES" if not check.ok else "warns" if lines else "ok"
    first, *rest = lines or [""]
    return [(state, check.name, first), *(("", "", line) for line in rest)]
