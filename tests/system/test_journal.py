"""A real journald: every record arrives as one entry with its fields, whatever its data tries, and verify compares.

journald runs in a mount namespace of its own, with its own /run and /var/log: the host's are not touched.
"""

import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from plugind.audit import segments
from plugind.audit.journal import MESSAGE_IDS, seen
from plugind.audit.verify import verify

JOURNALD = "/lib/systemd/systemd-journald"
START = f"""
set -e
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /var/log
mkdir -p /run/systemd/journal /run/systemd/journald.conf.d /var/log/journal
mount --bind "$1" /var/log/journal
touch /run/systemd/journal/flushed
cat > /run/systemd/journald.conf.d/test.conf <<END
[Journal]
Storage=persistent
ReadKMsg=no
Audit=
RateLimitIntervalSec=1s
RateLimitBurst=10000000
ForwardToSyslog=no
ForwardToKMsg=no
ForwardToConsole=no
ForwardToWall=no
END
exec {JOURNALD}
"""

# Runs beside journald, where its socket is.
WRITE = """
import asyncio, json, sys
from pathlib import Path
from plugind.audit.journal import Journal
from plugind.audit.ledger import Ledger
from plugind.audit.records import Changed, Denied, Ended, Intent, Refused, Stopped, Subject
from plugind.model import Code, Limits, Reason

def subject(plugin="demo", plan="plan-1", stage="durations"):
    return Subject("r1", 1000, "plug_1", plugin, "1.2.0", "ab" * 32, 2, stage, plan, "internal")

async def main():
    journal = Journal()
    print(json.dumps(journal.state))
    ledger, _ = Ledger.open(Path(sys.argv[1]), "dev", journal=journal)
    for text in json.loads(sys.stdin.read()):
        await ledger.append(Ended(0, subject(plan=text), "failed", text))
    intent = await ledger.append(Intent(subject(), ("network",), Limits()))
    await ledger.append(Ended(intent, subject(), "ok"))
    await ledger.append(Denied(subject("other"), (Reason(Code.BUSY, "r"), Reason(Code.INPUT_INVALID, "r"))))
    await ledger.append(Changed("kill", "plug_1", "demo", "1.2.0", "", 0, "it misbehaves"))
    await ledger.append(Refused("Approve", 1000, "approver"))
    await ledger.append(Stopped("SIGTERM"))
    await ledger.close()
    print(json.dumps([journal.sent, journal.lost, journal.state]))

asyncio.run(main())
"""


@dataclass
class Journald:
    process: subprocess.Popen
    files: Path
    ledger: Path

    def write(self, texts=()):
        """A ledger's life beside it: what its journal said at the start and at the end."""
        done = subprocess.run(
            ["nsenter", "--target", str(self.process.pid), "--mount", sys.executable, "-c", WRITE, str(self.ledger)],
            input=json.dumps(list(texts)),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()], done.stderr

    def entries(self, *matches):
        """What journalctl finds, oldest first."""
        command = ["journalctl", "-D", str(self.files), "-o", "json", "--all", "--no-pager", *matches]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]

    def wait_for(self, count):
        """All entries of plugind, as soon as there are so many."""
        until = time.monotonic() + 20
        while len(found := self.entries("SYSLOG_IDENTIFIER=plugind")) < count and time.monotonic() < until:
            time.sleep(0.05)
        assert len(found) == count
        return found


@pytest.fixture
def journald(tmp_path):
    assert Path(JOURNALD).exists(), "systemd is not installed"
    files, ledger = tmp_path / "journal", tmp_path / "ledger"
    files.mkdir()
    ledger.mkdir()
    process = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", START, "sh", str(files)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        socket = Path(f"/proc/{process.pid}/root/run/systemd/journal/socket")
        until = time.monotonic() + 20
        while not (is_own(process) and socket.exists()):
            assert process.poll() is None, "journald ended"
            assert time.monotonic() < until, "journald does not open its socket"
            time.sleep(0.02)
        yield Journald(process, files, ledger)
    finally:
        process.kill()
        process.wait(10)


def is_own(process):
    """Whether it has its own mount namespace and is journald: before that its /run is the host's."""
    try:
        ours, its = Path("/proc/self/ns/mnt").readlink(), Path(f"/proc/{process.pid}/ns/mnt").readlink()
        return ours != its and Path(f"/proc/{process.pid}/comm").read_text() == "systemd-journal\n"
    except OSError:
        return False


def test_every_record_arrives_once_with_its_fields(journald):
    (before, after), _ = journald.write()
    assert (before, after) == ("", [7, 0, ""])
    found = journald.wait_for(7)
    events = ["START", "INTENT", "OUTCOME", "DENIED", "CHANGE", "REFUSED", "STOP"]
    assert [entry["PLUGIND_EVENT"] for entry in found] == events
    assert [entry["MESSAGE_ID"] for entry in found] == [MESSAGE_IDS[event] for event in events]
    assert [entry["PRIORITY"] for entry in found] == ["6", "6", "6", "4", "5", "4", "6"]
    assert [entry["PLUGIND_AUDIT_ID"] for entry in found] == [f"log_{index}" for index in range(7)]
    leaves = [entry["PLUGIND_LEAF_HASH"] for entry in found]
    ours = [(int(entry["PLUGIND_LEAF_INDEX"]), leaf) for entry, leaf in zip(found, leaves, strict=True)]
    assert verify(journald.ledger, ours).journal_records == 7
    intent, outcome, denied = found[1:4]
    about = {"PLUGIND_PLUGIN": "demo", "PLUGIND_VERSION": "1.2.0", "PLUGIND_TIER": "2", "PLUGIND_STAGE": "durations"}
    assert about.items() <= intent.items()
    assert (intent["PLUGIND_PLAN"], intent["PLUGIND_DECISION"]) == ("plan-1", "allow")
    assert outcome["PLUGIND_OUTCOME"] == "ok"
    assert (denied["PLUGIND_DECISION"], denied["PLUGIND_REASONS"]) == ("deny", "BUSY INPUT_INVALID")


def test_journalctl_finds_them_by_field(journald):
    journald.write()
    journald.wait_for(7)
    by_plugin = journald.entries("PLUGIND_PLUGIN=demo")
    assert [entry["PLUGIND_EVENT"] for entry in by_plugin] == ["INTENT", "OUTCOME", "CHANGE"]
    assert len(journald.entries("PLUGIND_DECISION=deny")) == 2
    assert len(journald.entries(f"MESSAGE_ID={MESSAGE_IDS['DENIED']}")) == 1
    assert journald.entries("PLUGIND_PLUGIN=nobody") == []


HOSTILE = [
    "x\nMESSAGE=forged\nPLUGIND_PLUGIN=forged\n\nMESSAGE=a second entry",
    "\x1b[2J\x1b]0;title\x07\x1b[31mred",
    "next\x85line\u2028and\u2029more",
    "PLUGIND_EVENT=START",
    "nul\0byte",
    "\u202eright to left",
    "\ud800 alone",
    "x" * 100_000,
    "",
]


def test_data_that_tries_to_forge_stays_one_entry_and_is_shown_escaped(journald):
    (_, after), _ = journald.write(HOSTILE)
    assert after == [7 + len(HOSTILE), 0, ""]
    found = journald.wait_for(7 + len(HOSTILE))
    assert journald.entries("PLUGIND_PLUGIN=forged") == []
    assert len(journald.entries("PLUGIND_EVENT=START")) == 1
    hostile = found[1 : 1 + len(HOSTILE)]
    assert [entry["PLUGIND_EVENT"] for entry in hostile] == ["OUTCOME"] * len(HOSTILE)
    assert [entry["PLUGIND_LEAF_INDEX"] for entry in hostile] == [str(n + 1) for n in range(len(HOSTILE))]
    ours = [value for entry in hostile for name, value in entry.items() if name.startswith(("PLUGIND_", "MESSAGE"))]
    assert all(isinstance(value, str) and value.isprintable() for value in ours)
    assert hostile[0]["MESSAGE"].endswith(r": x\nMESSAGE=forged\nPLUGIND_PLUGIN=forged\n\nMESSAGE=a second entry")
    assert hostile[1]["MESSAGE"].endswith(r": \x1b[2J\x1b]0;title\x07\x1b[31mred")
    assert r"next\x85line\u2028and\u2029more" in hostile[2]["PLUGIND_PLAN"]


def test_verify_compares_the_ledger_with_this_journal(journald):
    journald.write()
    journald.wait_for(7)
    (folder,) = journald.files.iterdir()
    origin = verify(journald.ledger).origin
    assert [index for index, _ in seen(origin, 0, folder)] == list(range(7))
    assert list(seen("plugind/" + "0" * 32, 0, folder)) == []
    assert list(seen(origin, 12345, folder)) == []
    report = verify(journald.ledger, seen(origin, 0, folder))
    assert (report.journal_records, report.findings, report.notes[1:]) == (7, (), ())
    (path,) = segments.segments(journald.ledger)
    path.write_bytes(path.read_bytes().replace(b"plan-1", b"plan-2", 1))
    told = {(each.segment, each.log_id) for each in verify(journald.ledger, seen(origin, 0, folder)).findings}
    assert told == {(path.name, "log_1"), ("checkpoint", ""), ("journal", "log_1")}


def test_a_journald_that_died_is_told_and_the_ledger_goes_on(journald):
    saved = journald.process
    keeper = subprocess.Popen(["nsenter", "--target", str(saved.pid), "--mount", "sleep", "60"])
    try:
        until = time.monotonic() + 10
        while Path(f"/proc/{keeper.pid}/comm").read_text() != "sleep\n":
            assert time.monotonic() < until
            time.sleep(0.01)
        saved.kill()
        saved.wait(10)
        (before, after), told = Journald(keeper, journald.files, journald.ledger).write()
    finally:
        keeper.kill()
        keeper.wait(10)
    assert before == ""  # its socket is still there
    assert after[:2] == [0, 7]
    assert "7 records are in the ledger only" in after[2]
    assert told.count("journal:") == 1
    assert verify(journald.ledger).records == 7


def test_where_no_journald_is_it_is_said(tmp_path):
    if Path("/run/systemd/journal/socket").exists():
        hide = [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            'mount -t tmpfs tmpfs /run && exec "$@"',
            "sh",
        ]
    else:
        hide = []
    done = subprocess.run(
        [*hide, sys.executable, "-c", WRITE, str(tmp_path)],
        input="[]",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    before, after = map(json.loads, done.stdout.splitlines())
    assert before == "no journald here: records are in the ledger only"
    assert after == [0, 7, "no journald here: records are in the ledger only (7 records are in the ledger only)"]


def test_the_catalog_is_one_that_systemd_accepts(tmp_path):
    catalog = Path(__file__).parents[2] / "packaging" / "plugind.catalog"
    folder = tmp_path / "usr/lib/systemd/catalog"
    folder.mkdir(parents=True)
    (tmp_path / "var/lib/systemd/catalog").mkdir(parents=True)
    shutil.copy(catalog, folder)
    journalctl = ["journalctl", f"--root={tmp_path}", "--no-pager"]
    made = subprocess.run([*journalctl, "--update-catalog"], capture_output=True, text=True, timeout=60, check=False)
    assert made.returncode == 0, made.stderr
    assert made.stderr == ""
    listed = subprocess.run(
        [*journalctl, "--dump-catalog", *MESSAGE_IDS.values()], capture_output=True, text=True, timeout=60, check=True
    )
    assert listed.stdout.count("Defined-By: plugind") == len(MESSAGE_IDS)
