"""The plugins that are measured, and their bundles."""

from __future__ import annotations

from pathlib import Path

CODE = """import json, sys, time
def run(payload, context):
    if payload.get("hold"):
        time.sleep(payload["hold"])
    return {"total": sum(payload["values"]), "text": payload["text"]}
if __name__ == "__main__":
    payload = json.loads(sys.stdin.readline())
    print(json.dumps(run(payload, None)), flush=True)
    sys.stdin.read()
"""
"""As a plugin and as a program: reads one line, answers with one, and ends when its input does."""
SLEEP = "import time\ndef run(payload, context):\n    time.sleep(60 if payload else 0)\n"
PAYLOAD = {"values": list(range(100)), "text": "x" * 600}  # about 1 KB
ECHO = "bench_echo"
_MANIFEST = """schema = 1
name = "{name}"
version = "1.0.0"
summary = "Is measured"
license = "MIT"
origin = "authored"
runtime = "python"
requires_python = ">=3.11"
environment = "{environment}"
interface = "json"
entrypoint = "{name}:run"
stages = ["*"]
deterministic = true
"""


def write_plugin(folder: Path, name: str, code: str = CODE, limits: str = "", environment: str = "base") -> Path:
    """A bundle folder with schemas that allow anything."""
    target = folder / name
    (target / "schemas").mkdir(parents=True)
    (target / "plugin.toml").write_text(_MANIFEST.format(name=name, environment=environment) + limits)
    (target / f"{name}.py").write_text(code)
    for schema in ("input", "output"):
        (target / "schemas" / f"{schema}.json").write_text("{}")
    return target
