"""What the demo's steps share: small plugins, the plan's files, and what about an answer is not as expected."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from pathlib import Path

from demo_support import GOVERNANCE_KEYS, REPO, Answer, Json

EXAMPLES = Path("client/examples")
PLUGINS = EXAMPLES / "plugins"


def variant(parent: Path, name: str, extra: str) -> Path:
    """cost_breakdown under another name, with more in its manifest."""
    target = parent / name
    shutil.copytree(REPO / PLUGINS / "cost_breakdown", target)
    manifest = target / "plugin.toml"
    text = re.sub(
        r"(?m)^(name|version) = .*$",
        lambda found: f'{found[1]} = "{dict(name=name, version="1.0.0")[found[1]]}"',
        manifest.read_text(),
    )
    manifest.write_text(text + extra)
    return target


def small(parent: Path, name: str, code: str, extra: str) -> Path:
    """A plugin with one function, whose schemas allow everything. `extra` goes to the end of its manifest."""
    target = parent / name
    (target / "schemas").mkdir(parents=True)
    (target / f"{name}.py").write_text(code)
    for schema in ("input", "output"):
        (target / "schemas" / f"{schema}.json").write_text("true")
    (target / "plugin.toml").write_text(
        f'schema = 1\nname = "{name}"\nversion = "1.0.0"\nsummary = "Of the demo"\nlicense = "MIT"\n'
        f'origin = "authored"\nentrypoint = "{name}:run"\nstages = ["*"]\n{extra}'
    )
    return target


def read(path: Path) -> Json:
    return json.loads((REPO / path).read_text())


def differ(what: str, expected: Json, got: Json) -> list[str]:
    return [] if expected == got else [f"{what}: expected {expected}, got {got}"]


def wrong_answer(answer: Answer, outcomes: list[str], exit_code: int) -> list[str]:
    """What about a plugindctl call is not as expected: outcome (or denial), exit code, the governance record's keys."""
    problems = []
    if answer.outcome not in outcomes:
        detail = answer.stderr or str(answer.object.get("stderr") or answer.object.get("detail") or "")
        problems.append(f"outcome: expected {' or '.join(outcomes)}, got {answer.outcome}. {detail[-600:]}")
    problems += differ("exit code", exit_code, answer.exit_code)
    governance = answer.object.get("governance") or {}
    if outcomes != ["PLUGIN_NOT_FOUND"]:
        problems += differ("keys of the governance record", GOVERNANCE_KEYS, list(governance))
    return problems


def usage_text(answer: Answer) -> str:
    usage = answer.object.get("usage") or {}
    peak = usage.get("memory_peak_bytes", 0) / 2**20
    return f"wall {usage.get('wall_ms', '?')} ms, CPU {usage.get('cpu_ms', '?')} ms, memory peak {peak:.1f} MiB"


def headline(name: str) -> str:
    """The summary in a hostile plugin's plugin.toml."""
    with (REPO / PLUGINS / "hostile" / name / "plugin.toml").open("rb") as file:
        return str(tomllib.load(file)["summary"])


def descriptions(task: Json) -> dict[str, str]:
    """Description of every task by its id."""
    found = {task["id"]: task["description"]}
    for child in task.get("task_children", []):
        found |= descriptions(child)
    return found
