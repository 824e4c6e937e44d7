"""The resolver as a process: what it is, what it may, that it answers, and that nothing is left of it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from plugind.errors import ConfigError, IsolationUnavailableError
from plugind.linux import cgroup
from plugind.sandbox import uids
from plugind.sandbox.network import resolver
from tests.support import dns as names
from tests.support.descriptors import opened
from tests.support.dns import DnsServer, fixed

A, A6 = "93.184.215.14", "2606:2800:21f:cb07::1"


@pytest.fixture
def base():
    made = cgroup.detect().create_base(f"test-resolver-{os.getpid()}")
    yield made
    made.remove()


@pytest.fixture
def server():
    with DnsServer(["127.0.0.1", "::1"]) as running:
        running.names = {"api.example.org": fixed(A, A6)}
        yield running


@pytest.fixture
def running(base, server):
    before = opened()
    started = resolver.start(base.create_template("resolver"), server.servers)
    yield started
    started.end()
    assert opened() <= before


def wait(running, within_s=10.0):
    assert select.select([running.sock], [], [], within_s)[0]
    return running.receive()


def test_it_resolves_names(running, server):
    running.ask("run_1", ["api.example.org", "none.example.org"])
    said = wait(running)
    assert (said.token, set(said.addresses["api.example.org"])) == ("run_1", {A, A6})
    assert said.failed == {"none.example.org": "no such name (NXDOMAIN)"}
    server.names["big.example.org"] = names.truncated(A)
    running.ask("run_2", ["big.example.org"])
    assert wait(running).addresses == {"big.example.org": (A,)}


def test_it_is_nobody_and_has_only_what_it_needs(running, base):
    running.ask("run_1", ["api.example.org"])
    assert wait(running).addresses
    pid = running.process.pid
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    assert status["Name"].strip() == "plugind-resolve"
    assert status["Uid"].split() == status["Gid"].split() == [str(uids.RESOLVER)] * 4
    assert status["Groups"].split() == []
    assert {status[f"Cap{name}"].strip() for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert (status["NoNewPrivs"].strip(), status["Seccomp"].strip(), status["Threads"].strip()) == ("1", "2", "1")
    # Standard error, the launcher, and what its loop waits with. Sockets to name servers are closed again.
    kinds = {fd: str(Path(f"/proc/{pid}/fd/{fd}").readlink()).split(":")[0] for fd in os.listdir(f"/proc/{pid}/fd")}
    assert kinds.pop("2") == str(Path("/proc/self/fd/2").readlink()).split(":")[0]
    assert sorted(kinds.values()) == ["anon_inode", "socket", "socket", "socket"]
    assert Path(f"/proc/{pid}/mem").stat().st_uid == 0, "not dumpable: nobody of its uid can look into it"
    assert running.process.group.pids() == [pid]
    assert uids.RESOLVER not in (uids.FRONT, uids.NOTIFIER, *range(*uids.slice_of(0)))


def test_its_limits_are_in_force(running):
    soft, hard = (
        Path(f"/proc/{running.process.pid}/limits")
        .read_text()
        .partition("Max open files")[2]
        .splitlines()[0]
        .split()[:2]
    )
    assert int(soft) == int(hard) <= 1024
    memory = running.process.group.stats().memory_peak_bytes
    assert 0 < memory < resolver.BUDGET.memory_bytes / 2, "or it has no room to work in"


TRIES = """
import os, socket, sys
from plugind.linux import seccomp, syscalls
from plugind.sandbox import nobody, uids
parent = os.getpid()
program = seccomp.resolver_filter()
child = os.fork()
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
nobody.give_up_root(uids.RESOLVER, parent, "test")
syscalls.seccomp_load(program)
def refused(what):
    try:
        what()
    except PermissionError:
        return True
    print("allowed", file=sys.stderr)
    os._exit(1)
refused(lambda: os.fork())
refused(lambda: os.execv("/bin/true", ["true"]))
refused(lambda: os.open("/tmp/x", os.O_WRONLY | os.O_CREAT))
refused(lambda: os.open("/dev/null", os.O_WRONLY))
refused(lambda: os.open("/dev/null", os.O_RDWR))
refused(lambda: os.mkdir("/tmp/plugind-resolver-test"))
refused(lambda: os.unlink("/tmp/x"))
refused(lambda: os.kill(parent, 0))
refused(lambda: os.listdir("/"))
refused(lambda: socket.socket(socket.AF_UNIX))
refused(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))
refused(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
refused(lambda: socket.socket(socket.AF_INET).bind(("127.0.0.1", 0)))
refused(lambda: socket.socket(socket.AF_INET).listen())
os.close(os.open("/etc/hostname", os.O_RDONLY))
for family in (socket.AF_INET, socket.AF_INET6):
    socket.socket(family, socket.SOCK_DGRAM).close()
os._exit(0)
"""


def test_its_filter_refuses_all_that_a_process_does_to_others():
    done = subprocess.run([sys.executable, "-c", TRIES], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_it_lives_on_after_garbage_and_slow_answers(running, server):
    server.names |= {
        "slow.example.org": names.slow(1.0, A),
        "cut.example.org": names.changed(lambda wire: [wire[:-2]], A),
        "huge.example.org": names.garbage(b"\0" * 60000),
        "loop.example.org": names.alias("loop.example.org", "loop.example.org"),
        "silent.example.org": names.silent(),
    }
    began = time.monotonic()
    running.ask("bad", ["cut.example.org", "huge.example.org", "silent.example.org", "loop.example.org"])
    running.ask("slow", ["slow.example.org"])
    running.ask("good", ["api.example.org"])
    assert wait(running).token == "good"
    assert wait(running).token == "slow"
    bad = wait(running)
    assert 4.5 < time.monotonic() - began < 7
    assert bad.addresses == {}
    assert bad.failed["loop.example.org"] == "its aliases (CNAME) lead nowhere"
    assert bad.failed["silent.example.org"].startswith("no answer from 127.0.0.1:")
    assert bad.failed["cut.example.org"].startswith("no proper answer from 127.0.0.1:")
    running.ask("again", ["api.example.org"])
    assert wait(running).addresses


def test_a_hundred_runs_at_one_time(running, server):
    server.names |= {f"n{number}.example.org": names.slow(0.2, A) for number in range(1000)}
    began = time.monotonic()
    for run in range(100):
        running.ask(f"run_{run}", [f"n{run * 10 + number}.example.org" for number in range(10)])
    for _ in range(100):
        assert len(wait(running).addresses) == 10
    assert time.monotonic() - began < 10


def test_without_servers_those_of_this_machine_are_asked(base):
    started = resolver.start(base.create_template("resolver"), [])
    try:
        started.ask("run", ["plugind.invalid"])  # RFC 6761: nobody has it
        assert set(wait(started).failed) == {"plugind.invalid"}
    finally:
        started.end()


@pytest.mark.parametrize("gone", [signal.SIGKILL, signal.SIGTERM])
def test_when_it_is_gone_that_is_seen(running, gone):
    os.kill(running.process.pid, gone)
    with pytest.raises(EOFError):
        wait(running)


def test_it_ends_with_its_launcher(base):
    group = base.create_template("resolver")
    read, write = os.pipe()
    launcher = os.fork()
    if launcher == 0:
        started = resolver.start(group, ["127.0.0.1"])
        os.write(write, str(started.process.pid).encode())
        signal.pause()
    pid = int(os.read(read, 20))
    os.kill(launcher, signal.SIGKILL)
    os.waitpid(launcher, 0)
    until = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]:
        assert time.monotonic() < until
        time.sleep(0.01)
    os.close(read)
    os.close(write)
    group.remove()


def children() -> str:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text()


class BadGroup:
    def __init__(self):
        self.removed = False

    def set_limits(self, limits):
        pass

    def attach(self, pid):
        raise OSError("no such group")

    def remove(self):
        self.removed = True


def test_one_that_cannot_be_started_leaves_nothing():
    before, group, others = opened(), BadGroup(), children()
    with pytest.raises(OSError, match="no such group"):
        resolver.start(group, [])
    assert group.removed
    assert opened() <= before
    with pytest.raises(ConfigError):
        resolver.start(group, ["dns.example"])
    assert children() == others


FRESH = """
import select, sys
from plugind.sandbox.network import resolver
class Group:
    def set_limits(self, limits): pass
    def attach(self, pid): pass
    def remove(self): pass
running = resolver.start(Group(), sys.argv[1:])
running.ask("run", ["api.example.org", "big.example.org", "cut.example.org", "fail.example.org", "none.example.org"])
select.select([running.sock], [], [], 20)
print(running.receive())
running.end()
"""


def test_it_needs_no_module_any_more_once_it_is_nobody(server):
    """From then on it may not even list the folders they are in. A fresh interpreter: a test's has loaded everything."""
    server.names |= {
        "big.example.org": names.truncated(A),
        "cut.example.org": names.changed(lambda wire: [wire[:-2]], A),
        "fail.example.org": names.servfail(),
    }
    for servers, expected in ((server.servers, f"'big.example.org': ('{A}',)"), ([], "addresses={}")):
        fresh = [sys.executable, "-c", FRESH, *servers]
        done = subprocess.run(fresh, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert expected in done.stdout
        assert "itself failed" not in done.stdout
        assert "Error in what" not in done.stdout


def test_what_fails_in_it_is_told(base, monkeypatch):
    monkeypatch.setattr(resolver.nobody, "give_up_root", lambda *_: 1 / 0)
    with pytest.raises(IsolationUnavailableError, match="resolver: ZeroDivisionError"):
        resolver.start(base.create_template("resolver"), [])


def test_the_launcher_itself_loads_nothing_of_it():
    code = "import sys, plugind.sandbox.network.resolver; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "plugind" in loaded
    assert not {"dns", "asyncio", "ssl", "logging"} & set(loaded)
