"""A front that was taken over: it speaks to a real launcher on a real kernel, and says whatever it likes.

No event loop and no client of ours between: each message and each descriptor is chosen by the test.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from plugind.model import Limits, Outcome
from plugind.profiles import load_profiles, profiles_dir
from plugind.sandbox import channel, codec, protocol
from plugind.sandbox.inside.runner import HEADER, NONCE_BYTES, REQUEST
from plugind.sandbox.outcome import judge
from plugind.sandbox.sealed import sealed_memfd
from plugind.sandbox.spawn import LauncherConfig, start_launcher
from tests.support.jail import bundle_of, descendants, living_instances, state_folder, sweep

PROFILES = load_profiles(profiles_dir())
CODE = """
import time
def run(payload, context):
    if payload == "sleep":
        time.sleep(60)
    return payload
"""
BUNDLE = bundle_of(plugin=CODE)
DIGEST = hashlib.sha256(BUNDLE).hexdigest()
NONCE = bytes(range(NONCE_BYTES))
TIMEOUT_S = 20
MEMORY_MAY_GROW_KIB = 2048
"""Of a launcher between two looks: Python's allocator keeps some pages for later. Ten thousand messages of 16 KiB that
were kept would be eighty times as much."""


class Front:
    """The front's end of a launcher of its own."""

    def __init__(self, state: Path, profiles: Path | None = None, **chosen: Any) -> None:
        self._log = state.with_name(f"{state.name}.log")
        self._log_read = 0
        self.state = state
        with self._log.open("wb") as log, standard_error(log.fileno()):
            self.sock, self.pid = start_launcher(LauncherConfig(state, profiles or profiles_dir(), 0, 0, **chosen))
        self.ready = self.hear()
        assert isinstance(self.ready, protocol.Ready), self.ready
        assert self.load(BUNDLE).error == ""

    # -- what it says

    def send(self, data: bytes | Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Any bytes, or an object as JSON, with any descriptors. Waits while the launcher is behind."""
        if not isinstance(data, bytes):
            data = json.dumps(data).encode()
        while True:
            try:
                channel.send(self.sock, data, descriptors)
            except BlockingIOError:
                assert select.select([], [self.sock], [], TIMEOUT_S)[1], "the launcher does not read"
            else:
                return

    def load(self, data: bytes, digest: str = "") -> protocol.Loaded:
        """Hand a bundle over as it should be."""
        memfd = sealed_memfd("bundle", data)
        self.send(codec.encode(protocol.Load(digest or hashlib.sha256(data).hexdigest())), [memfd])
        os.close(memfd)
        return self.hear_of(protocol.Loaded)

    def start(self, run: str = "r1", descriptors: Sequence[int] | None = None, **changes: Any) -> None:
        """A Start message; `changes` are its fields and single limits. Proper descriptors unless others are given."""
        fields: dict[str, Any] = {
            "op": "start",
            "run": run,
            "digest": DIGEST,
            "tier": 2,
            "environment": "",
            "network": [],
            "reads": 0,
            "write_files": 0,
            "write_bytes": 0,
        }
        limits = limits_of(2)
        for name, value in changes.items():
            (limits if name in limits else fields)[name] = value
        fields.setdefault("limits", limits)
        if descriptors is not None:
            self.send(fields, descriptors)
            return
        with proper_descriptors() as (proper, _), session_descriptors() as (of_session, _, _):
            self.send(fields, of_session if fields["op"] == "open" else proper)

    def sample(self) -> None:
        """Ask what is used."""
        self.send(codec.encode(protocol.Sample()))

    # -- what it hears

    def hear(self) -> protocol.Message:
        """The next message; its descriptors are closed."""
        assert select.select([self.sock], [], [], TIMEOUT_S)[0], f"no answer: {self.log()}"
        data, descriptors, cut = channel.receive(self.sock, protocol.MAX_MESSAGE_BYTES, 4)
        channel.close(descriptors)
        assert data, f"the launcher is gone: {self.log()}"
        assert not cut
        return codec.decode(data)

    def hear_of(self, kind: type, run: str = "") -> Any:
        """The next message of a kind, of that run if one is named."""
        while True:
            message = self.hear()
            if isinstance(message, kind) and (not run or getattr(message, "run", "") == run):
                return message

    def refused(self, run: str = "r1") -> protocol.Refused:
        """Why that run was not started; the test fails when it was."""
        message = self.hear_of((protocol.Refused, protocol.Started, protocol.Ended), run)  # type: ignore[arg-type]
        assert isinstance(message, protocol.Refused), message
        return message

    def silent(self) -> bool:
        """Whether nothing comes. All of it was read before, as a whole run was asked for and ended since."""
        return not select.select([self.sock], [], [], 0)[0]

    def works(self, run: str = "proper", tier: int = 2) -> bool:
        """A proper run is ok."""
        with proper_descriptors("hello") as (descriptors, result):
            self.start(run, descriptors, tier=tier)
            ended = self.hear_of((protocol.Ended, protocol.Refused), run)  # type: ignore[arg-type]
            assert isinstance(ended, protocol.Ended), ended
            verdict = judge(ended, os.read(result, 65536), NONCE, Limits())
        assert (verdict.outcome, verdict.output_json) == (Outcome.OK, b'"hello"'), verdict
        return True

    def talks(self, run: str = "talk", tier: int = 2, **limits: int) -> bool:
        """A proper session answers what it is asked, and ends when its requests do."""
        with session_descriptors() as (descriptors, result, requests):
            self.start(run, descriptors, tier=tier, op="open", limits=limits_of(tier, **limits))
            self.hear_of(protocol.Started, run)
            for text in (b'"one"', b"[2]"):
                os.write(requests, REQUEST.pack(len(text)) + text)
                assert select.select([result], [], [], TIMEOUT_S)[0], "no answer to a request"
                assert os.read(result, 65536) == HEADER.pack(NONCE, b"V", len(text)) + text
            os.dup2(result, requests)  # its only write end is closed, and the number stays taken
            ended = self.hear_of(protocol.Ended, run)
        assert (ended.cause, ended.exit_code) == ("", 0), ended
        return True

    # -- what can be seen of the launcher

    def log(self) -> str:
        """What it has written since it was asked last."""
        with self._log.open("rb") as stream:
            stream.seek(self._log_read)
            text = stream.read()
        self._log_read += len(text)
        return text.decode(errors="replace")

    def descriptors(self) -> list[str]:
        """What it has open."""
        return sorted(str(path.readlink()).partition(":")[0] for path in Path(f"/proc/{self.pid}/fd").iterdir())

    def left_of(self, before: Sequence[str]) -> list[str]:
        """What it has open that it did not have before, once it has tidied up: it answers first. What an earlier test
        left it to tidy up may be gone by now.
        """
        deadline = time.monotonic() + TIMEOUT_S
        while more := sorted((Counter(self.descriptors()) - Counter(before)).elements()):
            if time.monotonic() > deadline:
                break
            time.sleep(0.005)
        return more

    def memory_kib(self) -> int:
        """What it has in memory."""
        text = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        return int(next(line.split()[1] for line in text.splitlines() if line.startswith("Rss:")))

    def code(self) -> set[str]:
        """What lies unpacked, in a mount that only the launcher and its templates have."""
        status = self.state.stat()
        return set(os.listdir(f"/proc/{self.pid}/root/run/plugind-{status.st_dev:x}-{status.st_ino:x}/code"))

    def instances(self) -> list[int]:
        """The host's pids of what runs plugin code, or is about to."""
        return living_instances(descendants(self.pid))

    def end(self) -> int:
        """Close the connection; the launcher's exit code."""
        self.sock.close()
        return self.wait()

    def wait(self) -> int:
        """Until it has ended; its exit code."""
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
        raise AssertionError("the launcher does not end")


@contextlib.contextmanager
def standard_error(descriptor: int) -> Iterator[None]:
    """Standard error is that one meanwhile, for whoever is forked."""
    saved = os.dup(2)
    os.dup2(descriptor, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


@contextlib.contextmanager
def taken_over(profiles: Path | None = None, **chosen: Any) -> Iterator[Front]:
    """A launcher with such a front; it is gone afterwards, and so is everything that it made.

    `chosen`: what else its LauncherConfig has.
    """
    with state_folder() as state:
        front = Front(state, profiles, **chosen)
        try:
            yield front
        finally:
            front.sock.close()
            if front.pid:
                with contextlib.suppress(AssertionError):
                    front.wait()
            if front.pid:
                os.kill(front.pid, signal.SIGKILL)
                os.waitpid(front.pid, 0)
            sweep(state)
            front._log.unlink()


@contextlib.contextmanager
def proper_descriptors(payload: object = None) -> Iterator[tuple[list[int], int]]:
    """Input and three pipes as a run has them, and the result's read end, which never blocks."""
    readers, writers = zip(*(os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK) for _ in range(3)), strict=True)
    given = [input_memfd("run", json.dumps(payload).encode()), *writers]
    try:
        yield given, readers[0]
    finally:
        channel.close([*given, *readers])


@contextlib.contextmanager
def session_descriptors() -> Iterator[tuple[list[int], int, int]]:
    """Input, three pipes and the pipe of requests as a session has them; the result's read, the requests' write end."""
    readers, writers = zip(*(os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK) for _ in range(3)), strict=True)
    theirs, requests = os.pipe2(os.O_CLOEXEC)
    given = [input_memfd("session"), *writers, theirs]
    try:
        yield given, readers[0], requests
    finally:
        channel.close([*given, *readers, requests])


def input_memfd(mode: str, content: bytes = b"") -> int:
    """An input as the front makes it."""
    call = {"stage": "", "plan_id": "", "interface": "json", "entrypoint": "plugin:run", "mode": mode}
    head = json.dumps(call).encode()
    return sealed_memfd("input", NONCE + len(head).to_bytes(4, "big") + head + content)


@contextlib.contextmanager
def unmoved(front: Front) -> Iterator[None]:
    """After whatever is tried in here a proper run is ok, and the launcher has what it had before, and no more."""
    assert front.works()
    before, memory = front.descriptors(), front.memory_kib()
    code, below = front.code(), descendants(front.pid)
    yield
    assert front.works()
    assert front.silent()
    assert not front.left_of(before)
    assert front.code() == code
    after = descendants(front.pid)
    assert after.items() <= below.items(), "something is left"
    # A helper of the test before may have been there, and is gone; a template is to stay.
    assert {pid for pid, name in below.items() if name != "plugind-plan"} <= after.keys(), "a template ended"
    grown = min(front.memory_kib() - memory for _ in range(5) if front.works())  # what is kept is there each time
    assert grown <= MEMORY_MAY_GROW_KIB, f"the launcher has {grown} KiB more in memory"


def limits_of(tier: int, **changes: int) -> dict[str, int]:
    """A tier's default limits, changed, as a message has them; of time all that there is, on a busy machine too."""
    profile = PROFILES[tier]
    limits = replace(profile.default_limits, wall_ms=profile.ceilings.wall_ms)
    return dict(replace(limits, **changes).items())
