"""`make demo` does what it says, shows it, and leaves nothing behind."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
DEMO = REPO / "client/examples/demo.py"
PLUGINS = sorted(path.parent.name for path in (REPO / "client/examples/plugins").rglob("plugin.toml"))
SECONDS = 60

pytestmark = [pytest.mark.root, pytest.mark.slow]


def folders():
    return set(Path("/tmp").glob("plugind-demo-*"))


def test_demo_runs_every_plugin_and_ends_with_zero():
    before, began = folders(), time.monotonic()
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "100"}
    done = subprocess.run(
        [sys.executable, DEMO], capture_output=True, text=True, timeout=110, check=False, env=environment
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert time.monotonic() - began < SECONDS
    assert [name for name in PLUGINS if name not in done.stdout] == []
    for word in (
        "governance",
        "usage",
        "audit_log",
        "pids_exceeded",
        "out_of_memory",
        "cpu_exceeded",
        "timeout",
        "output_limit",
        "violation",
        "STAGE_NOT_ALLOWED",
    ):
        assert word in done.stdout
    assert re.search(r"\d+ steps in [\d.]+ s: \d+ as expected, 0 not\n$", done.stdout)
    assert "\x1b" not in done.stdout, "colours are for terminals"
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert folders() == before


def test_demo_stops_its_daemon_on_ctrl_c():
    before = folders()
    demo = subprocess.Popen([sys.executable, "-B", DEMO], stdout=subprocess.PIPE, text=True)
    assert demo.stdout is not None
    with demo.stdout:
        for line in demo.stdout:
            if "plugind starts" in line:
                break
        own = folders() - before
        demo.send_signal(signal.SIGINT)
        rest = demo.stdout.read()
    assert demo.wait(30) == 130, rest
    assert "interrupted" in rest
    assert len(own) == 1
    assert folders() == before
    assert not [pid for pid in Path("/proc").glob("[0-9]*") if str(next(iter(own))) in command_line(pid)]


def command_line(process):
    try:
        return (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def test_demo_says_that_it_needs_root():
    # As somebody else, after everything was imported: the interpreter may lie where only root may look.
    code = (
        f"import os, sys; sys.path.insert(0, {str(DEMO.parent)!r}); import demo;"
        " os.setresuid(65534, 65534, 65534); sys.exit(demo.main())"
    )
    if not os.access(DEMO, os.R_OK):
        pytest.fail(f"cannot read {DEMO}")
    done = subprocess.run([sys.executable, "-B", "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert "needs root" in done.stdout + done.stderr
    assert done.returncode == 2
