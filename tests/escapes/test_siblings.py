"""Two instances at one time, or one after the other: neither can read, end, mark or signal the other."""

from __future__ import annotations

import contextlib
import random
import secrets
import socket
import threading
import time
from typing import Any

import pytest

from tests.escapes.attack import OWN, attack, succeeds
from tests.escapes.box import Box, Ran

BITS = 10
SLOT_S = 0.05
BEGIN_S = 0.3
"""Both ends have started by then."""


TRIES = 8
"""What was seen counts only when both ends kept their time."""


def _late(ran: Ran) -> bool:
    return ran.result.error is not None and ran.result.error.type == "LateError"


class Channel:
    """A try to get random bits from one instance into another one of the same tier."""

    def __init__(self, box: Box, sender: str, receiver: str, module: str = "channels", **arguments: Any) -> None:
        self.bits = [1, 0, *random.sample([0, 1] * BITS, BITS - 2)]
        for _ in range(TRIES):
            given = {"start": time.time() + BEGIN_S, "slot": SLOT_S} | arguments
            self.sent, self.received = box.together(
                lambda: box.run(f"{module}.send_{sender}", bits=self.bits, **given),  # noqa: B023 - called at once
                lambda: box.run(f"{module}.receive_{receiver}", count=BITS, **given),  # noqa: B023
            )
            if not any(_late(ran) for ran in (self.sent, self.received)):
                return
        raise AssertionError(f"the machine was too busy for a clock, {TRIES} times")

    def assert_nothing_came_through(self) -> None:
        """The receiver could not look, or saw the same in every slot: it learned nothing of what was sent."""
        for ran in (self.sent, self.received):
            refused = ran.result.error is not None and ran.result.error.type in ("OSError", "PermissionError")
            assert ran.outcome in ("ok", "violation") or refused, ran.why()
        if self.received.outcome == "ok":
            seen = self.received.value()
            assert len(seen) == BITS
            assert len(set(seen)) == 1, f"sent {self.bits}, received {[int(each) for each in seen]}"


@pytest.fixture(autouse=True)
def _installed(boxes: dict[int, Box]) -> None:
    """So that the clock of a channel does not run while the plugin is installed."""
    for box in boxes.values():
        box._attacks({})


@attack(
    15,
    "read a sibling's memory, environment and files through /proc; signal it by number; kill(-1)",
    "own pid namespace, proc with subset=pid, own uid",
)
def test_a_canary_in_a_sibling_stays_unread(box: Box) -> None:
    secret = secrets.token_hex(16)

    def hunt() -> Ran:
        deadline = time.monotonic() + 10
        while not box.instances() and time.monotonic() < deadline:
            time.sleep(0.01)
        return box.run("siblings.hunt_canary", first=1, last=2000)

    held, hunted = box.together(lambda: box.run("siblings.hold_canary", secret=secret, seconds=1.5), hunt)
    assert held.value() == 1, "the sibling was ended"
    found = hunted.value()
    assert secret not in str(hunted.result)
    assert (found["seen"], found["signalled"], found["opened"]) == ([], [], [])
    assert (found["kill everybody"], found["kill the group"]) == ("ESRCH", "ESRCH")
    assert found["/tmp"] == []
    assert "CANARY" not in found["environment"]
    assert found["proc"] == ["1", "self", "thread-self"]


@attack(15, "ptrace and process_vm_readv of another process", "seccomp ends the run")
@pytest.mark.parametrize("call", ["ptrace", "process_vm_readv", "process_vm_writev"])
def test_memory_of_other_processes_is_out_of_reach(box: Box, call: str) -> None:
    box.run("siblings.read_other_process", call=call, pid=1).assert_killed_for(call)


@attack(
    17,
    "abstract Unix sockets of the host: connect to them, or send to them from half of a pair",
    "socket() is refused; a network namespace without sockets of the host",
)
def test_abstract_sockets_of_the_host_are_out_of_reach(box: Box) -> None:
    name = f"plugind-escape-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX) as stream, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagram:
        stream.bind(f"\0{name}")
        datagram.bind(f"\0{name}-datagrams")
        stream.listen()
        for sock in (stream, datagram):
            sock.settimeout(0)
        for target in (name, f"{name}-datagrams"):
            ran = box.run("siblings.abstract_socket", name=target)
            answers = ran.value()
            assert answers["socket"] == answers["inet"] == "EPERM"
            tried = [got for what, got in answers.items() if not what.startswith("sendto")]  # its own peer may get it
            assert [got for got in tried if got.startswith("done")] == [], answers
            assert ran.tried["socket"] == 2
        with pytest.raises(BlockingIOError):
            stream.accept()
        with pytest.raises(BlockingIOError):
            datagram.recv(1)


@attack(
    36,
    "shared memory, semaphores, queues, /dev/shm and names that a sibling knows",
    "own IPC, UTS and mount namespace; RLIMIT_MSGQUEUE 0",
)
@attack(55, "port and name binds, sock_diag, /proc/net", "sockets are refused; nothing of it is shared")
def test_nothing_has_a_name_that_a_sibling_knows(box: Box) -> None:
    channel = Channel(box, "named", "named")
    assert channel.sent.value()["shm"] == "done: 4"
    found = channel.received.value()
    for name in ("shmget", "semget", "msgget"):
        assert found[name] == "ENOENT", found
    assert found["mq_open"] in ("ENOENT", "EMFILE", "EPERM")
    assert (found["shm"], found["tmp"], found["host"], found["ipc"]) == ([], [], "plugin", [])
    assert found["processes"] == ["1"]


CHANNELS = {
    "flock": ("flock", "flock", {}),
    "leases": ("lease", "lease", {}),
    "record locks of a descriptor": ("record_lock", "record_lock", {"ofd": True}),
    "inotify": ("opens", "inotify", {}),
    "fanotify": ("opens", "fanotify", {}),
    "dnotify": ("opens", "dnotify", {}),
    "cachestat": ("page_cache", "cachestat", {}),
    "mincore": ("page_cache", "mincore", {}),
    "access times, link counts, free space": ("access_time", "access_time", {}),
}


@attack(
    36,
    "flock, leases and locks on a read-only file that both see; inotify, fanotify, dnotify, cachestat, mincore, access times",
    "the calls are refused; read-only mounts; the kernel tells residency to owners only",
)
@pytest.mark.parametrize("channel", CHANNELS)
def test_files_that_both_see_carry_nothing(box: Box, channel: str) -> None:
    sender, receiver, arguments = CHANNELS[channel]
    Channel(box, sender, receiver, "file_channels", **arguments).assert_nothing_came_through()


@attack(36, "record locks (fcntl) on a file that both see", "refused in Tier 2")
def test_record_locks_carry_nothing_in_tier_2(tier2: Box) -> None:
    channel = Channel(tier2, "record_lock", "record_lock", "file_channels", ofd=False)
    channel.assert_nothing_came_through()
    assert "fcntl" in channel.received.tried


@attack(
    OWN, "status flags or signal number of a descriptor that both inherited", "every instance opens /dev/null itself"
)
@pytest.mark.parametrize("what", ["flags", "signal_number"])
def test_inherited_descriptors_carry_nothing(box: Box, what: str) -> None:
    Channel(box, what, what).assert_nothing_came_through()


@attack(
    55,
    "datagrams to the name that the kernel gives half of a socket pair (autobind), found in /proc/self/net/unix",
    "no datagram socket pairs; nothing shared to bind in",
)
@attack(17, "the same on an abstract socket of a sibling", "the same")
def test_socket_pairs_carry_nothing_to_a_sibling(box: Box) -> None:
    Channel(box, "datagrams", "datagrams").assert_nothing_came_through()


@attack(55, "count a sibling's sockets in /proc/self/net", "a network namespace of its own")
def test_socket_counts_carry_nothing(box: Box) -> None:
    Channel(box, "socket_count", "socket_count").assert_nothing_came_through()


@attack(
    55,
    "watch the counters below /proc/self/net that are the whole machine's: sockets, their memory, packets of each CPU",
    "taken away in each network namespace",
)
def test_counters_of_the_whole_machine_are_out_of_sight(box: Box) -> None:
    over = threading.Event()

    def make_traffic() -> None:
        while not over.is_set():
            with socket.create_server(("127.0.0.1", 0)) as server, contextlib.ExitStack() as stack:
                for _ in range(20):
                    one = stack.enter_context(socket.create_connection(server.getsockname()))
                    one.send(b"x" * 1000)

    traffic = threading.Thread(target=make_traffic)
    traffic.start()
    try:
        seen = box.run("siblings.counters", seconds=0.5).value()
    finally:
        over.set()
        traffic.join()
    assert seen["changed"] == []
    assert {"/proc/self/net/sockstat", "/proc/self/net/softnet_stat"} <= set(seen["refused"])
    assert seen["read"] > 10, "what is its own namespace's is there"


@attack(
    OWN,
    "futex wait and wake on a page of a file that both map",
    "none: threads need shared waits, and the kernel itself wakes at the end of a thread",
)
@succeeds("the page cache is shared, and a futex on a page of a file is one key for all who map it")
@pytest.mark.parametrize("sender", ["futex", "exiting_thread"])
def test_futexes_carry_nothing(box: Box, sender: str) -> None:
    Channel(box, sender, "futex").assert_nothing_came_through()


@attack(
    OWN,
    "read a page, or have it forgotten (fadvise), and ask for it without waiting (RWF_NOWAIT)",
    "both refused, by argument",
)
def test_the_page_cache_carries_nothing(box: Box) -> None:
    Channel(box, "page_cache", "page_cache", "file_channels").assert_nothing_came_through()


@attack(
    41,
    "leave something for the next run: files, environment, priority, flags of descriptors, shared memory",
    "a fresh instance and fresh tmpfs for each run",
)
def test_nothing_is_left_for_the_next_run(box: Box) -> None:
    first, second = (box.run("siblings.leave_marks").value() for _ in range(2))
    first.pop("flags")
    second.pop("flags")  # the next test
    assert first == second
    assert (first["/tmp"], first["/dev/shm"], first["modules"]) == ("done: []", "done: []", False)
    assert "MARK" not in first["environment"]


@attack(41, "leave status flags on an inherited descriptor for the next run", "every instance opens /dev/null itself")
def test_no_flag_is_left_for_the_next_run(box: Box) -> None:
    box.run("siblings.clear_flags")
    first, second = (box.run("siblings.leave_marks").value() for _ in range(2))
    assert first["flags"] == second["flags"]


@attack(
    56,
    "guess a sibling's random numbers: random, ssl, uuid, tempfile",
    "the zygote never draws; state is reseeded in the clone",
)
def test_two_hundred_instances_draw_nothing_twice(tier1: Box, tier2: Box) -> None:
    runs = [lambda: tier1.run("twins.draw"), lambda: tier2.run("twins.draw")] * 2
    drawn = [ran.value() for _ in range(50) for ran in tier1.together(*runs)]
    assert len(drawn) == 200
    for column in zip(*drawn, strict=True):
        assert len(set(column)) == 200
