"""`plugindctl audit restore` and `impact`: what is refused before anything is undone, and what a person is told after."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from plugind_client.cli import undoing
from plugind_client.cli.app import app
from plugind_client.undo import RestoredFile, RestoredRun


@pytest.mark.parametrize("plugin", ["cost_breakdown@", "@1.0.0", "@"])
@pytest.mark.parametrize(
    "command", [["audit", "restore", "--since", "1h", "--reason", "x", "--plugin"], ["audit", "impact"]]
)
def test_half_a_version_never_means_all_of_them(command, plugin):
    """As where a variable of the shell is empty: `--plugin cost_breakdown@$V`."""
    done = CliRunner().invoke(app, [*command, plugin, "--socket", "/nowhere", "--admin-socket", "/nowhere"])
    assert done.exit_code == 2
    assert "expected PLUGIN@VERSION" in done.output


def conflict(problem):
    file = RestoredFile("a.txt", "1", "2", "3", unchanged=False, difference="", kept_as="", problem=problem)
    return RestoredRun("log_1", "p", "1.0.0", "", "/plan", "conflict", "", files=(file,), detail="")


@pytest.mark.parametrize(
    ("force", "problem", "told", "not_told"),
    [
        (False, "", "--force puts back", "try it again"),
        (True, "", "try it again", "--force"),
        (False, "a folder", "", "--force"),
    ],
)
def test_what_to_do_about_a_conflict(capsys, force, problem, told, not_told):
    undoing._print_runs((conflict(problem),), force=force)
    said = capsys.readouterr().err
    assert told in said
    assert not_told not in said
