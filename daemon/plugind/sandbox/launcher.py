"""The launcher: the only process with privileges in the host's user namespace. Root, small, single-threaded.

It serves one peer, the front, and trusts nothing it says: digests, limits, tiers and descriptors are checked here,
against files that only root can write. When the front is gone it ends everything and exits; when it is gone itself,
the templates' inits die with it.
"""

from __future__ import annotations

import array
import fcntl
import json
import os
import selectors
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from plugind.errors import InvalidBundleError, InvalidRequestError, IsolationUnavailableError, PlugindError
from plugind.linux.cgroup import Base, GroupLimits
from plugind.model import Profile
from plugind.sandbox import codestore, jailspec, protocol, template
from plugind.sandbox.supervisor import Instance

INPUT_LIMIT_BYTES = 256 * 1024 * 1024
RESTART_NS = 10**9
"""A template that cannot start is tried again by the first request after this."""


class Launcher:
    """The loop and its state. `serve` returns when the front is gone or asked to stop."""

    def __init__(
        self,
        front: socket.socket,
        base: Base,
        profiles: Mapping[int, Profile],
        specs: Mapping[int, template.TemplateSpec],
        code: codestore.CodeStore,
        builtin: frozenset[str],
        unavailable: dict[int, str],
    ) -> None:
        self._front = front
        self._base = base
        self._profiles = profiles
        self._specs = specs
        self._code = code
        self._builtin = builtin
        self._unavailable = unavailable
        self._retry_ns: dict[int, int] = {}
        self._templates: dict[int, template.Template] = {}
        self._groups: dict[int, Any] = {}
        self._instances: dict[str, Instance] = {}
        self._uids = dict.fromkeys(specs, 0)
        self._stopping = False
        self._selector = selectors.DefaultSelector()

    def serve(self, driver: str) -> None:
        """Start the templates, say so, and work until the end."""
        for tier in self._specs:
            if tier not in self._unavailable:
                self._start_template(tier)
        self._watch(self._front, self._from_front)
        descriptor = self._base.kill_descriptor()
        why = {str(tier): reason for tier, reason in self._unavailable.items()}
        self._tell(protocol.Ready(driver, why), [] if descriptor is None else [descriptor])
        if descriptor is not None:
            os.close(descriptor)
        while not self._stopping:
            for key, _ in self._selector.select(self._patience_s()):
                if key.fileobj in self._selector.get_map():  # an earlier event may have closed it
                    key.data()
            self._check_limits()

    def shut_down(self) -> None:
        """End every instance and template and remove their groups."""
        for instance in self._instances.values():
            instance.kill("killed")
        for running in self._templates.values():
            running.kill()
        for instance in self._instances.values():
            instance.finish(-signal.SIGKILL)
        for group in self._groups.values():
            group.remove()
        self._base.remove()

    # -- the loop's plumbing

    def _watch(self, sock: socket.socket, handler: Callable[[], None]) -> None:
        self._selector.register(sock, selectors.EVENT_READ, handler)

    def _patience_s(self) -> float | None:
        if not self._instances:
            return None
        soonest = min(instance.next_check_ns for instance in self._instances.values())
        return max(0.0, (soonest - time.monotonic_ns()) / 10**9)

    def _check_limits(self) -> None:
        now_ns = time.monotonic_ns()
        for instance in list(self._instances.values()):
            if instance.stuck(now_ns):
                self._lose_template(instance.tier)
            elif now_ns >= instance.next_check_ns:
                instance.check(now_ns)

    def _tell(self, message: protocol.ToFront, descriptors: Sequence[int] = ()) -> None:
        try:
            socket.send_fds(self._front, [protocol.encode(message)], list(descriptors))
        except OSError:
            self._stopping = True  # no front, no work

    # -- templates

    def _start_template(self, tier: int) -> None:
        group = self._groups.get(tier) or self._base.create_template(f"tier{tier}")
        self._groups[tier] = group
        try:
            running = template.start(self._specs[tier], group)
        except (IsolationUnavailableError, OSError) as error:
            self._unavailable[tier] = str(error)
            self._retry_ns[tier] = time.monotonic_ns() + RESTART_NS
            log(f"tier {tier} is unavailable: {error}")
            return
        self._unavailable.pop(tier, None)
        self._templates[tier] = running
        self._watch(running.sock, lambda: self._from_zygote(running))

    def _from_zygote(self, source: template.Template) -> None:
        try:
            data = source.sock.recv(protocol.MAX_MESSAGE_BYTES)
            message = json.loads(data) if data else None
        except (OSError, ValueError):
            message = None
        if message is None:
            log(f"the zygote of tier {source.tier} is gone; it is started again")
            self._lose_template(source.tier)
        elif message.get("op") == "exited":
            self._finish(self._instances.get(message.get("run", "")), message["exit_code"])
        elif message.get("op") == "failed" and (instance := self._instances.get(message.get("run", ""))):
            instance.failure = ("clone", str(message.get("detail", "")))
            self._finish(instance, 1)

    def _lose_template(self, tier: int) -> None:
        """Its zygote or init ended, or does not obey: all of it goes, and a new one comes."""
        running = self._templates.pop(tier)
        self._selector.unregister(running.sock)
        running.kill()
        for instance in [each for each in self._instances.values() if each.tier == tier]:
            instance.kill("fault")
            self._finish(instance, -signal.SIGKILL)
        self._start_template(tier)

    # -- messages of the front

    def _from_front(self) -> None:
        try:
            message, descriptors = receive(self._front)
        except EOFError:
            self._stopping = True
            return
        except InvalidRequestError as error:
            log(f"refused a message of the front: {error}")
            return
        try:
            self._obey(message, descriptors)
        except InvalidRequestError as error:
            log(f"refused {message.op} of the front: {error}")
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _obey(self, message: protocol.Message, descriptors: list[int]) -> None:
        match message:
            case protocol.Load():
                self._load(message, descriptors[0])
            case protocol.Start():
                try:
                    self._start(message, descriptors)
                except (PlugindError, OSError) as error:
                    step = getattr(error, "step", "launcher")
                    self._tell(protocol.Refused(message.run, step, str(error)))
            case protocol.Kill():
                if instance := self._instances.get(message.run):
                    instance.kill(message.cause)
            case protocol.Stop():
                self._stopping = True
            case _:
                raise InvalidRequestError("this message goes the other way")

    def _load(self, message: protocol.Load, descriptor: int) -> None:
        in_use = {instance.digest for instance in self._instances.values()}
        try:
            for evicted in self._code.load(message.digest, descriptor, in_use):
                self._tell(protocol.Loaded(evicted, "evicted"))
        except (InvalidBundleError, OSError) as error:
            self._tell(protocol.Loaded(message.digest, str(error)))
        else:
            self._tell(protocol.Loaded(message.digest, ""))

    def _start(self, message: protocol.Start, descriptors: list[int]) -> None:
        profile = self._admit(message, descriptors)
        running = self._template_of(message.tier)
        uid = self._free_uid(message.tier)
        limits = message.limits
        group = self._base.create(message.run, GroupLimits(limits.memory_bytes, limits.pids, profile.cpu_percent))
        control, control_theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        instance = Instance(message.run, message.digest, message.tier, limits, uid, group, control)
        spec = jailspec.build(profile, limits, message.digest, uid)
        order = json.dumps({"op": "start", "run": message.run, "steps": spec.wire()}).encode()
        try:
            with control_theirs:
                socket.send_fds(running.sock, [order], [control_theirs.fileno(), *descriptors])
        except OSError:
            instance.finish(1)
            raise
        self._code.touch(message.digest)
        self._instances[message.run] = instance
        self._watch(control, lambda: self._from_instance(instance, control))

    def _admit(self, message: protocol.Start, descriptors: list[int]) -> Profile:
        """The launcher's own checks, whatever the front decided. Raises InvalidRequestError, IsolationUnavailableError."""
        profile = self._profiles.get(message.tier)
        if profile is None:
            raise InvalidRequestError(f"tier: expected 0, 1 or 2, got {message.tier}")
        if message.run in self._instances:
            raise InvalidRequestError(f"run {message.run} is there already")
        if message.tier == 0 and message.digest not in self._builtin:
            raise InvalidRequestError(f"tier 0: {message.digest} is not in the root-owned list of built-in plugins")
        for name, value, ceiling in jailspec.above_ceiling(message.limits, profile):
            raise InvalidRequestError(f"{name}: expected 1 to {ceiling} in tier {message.tier}, got {value}")
        if message.digest not in self._code:
            raise IsolationUnavailableError(protocol.NOT_LOADED, f"digest {message.digest} was not loaded")
        if len([one for one in self._instances.values() if one.tier == message.tier]) >= profile.instances:
            raise InvalidRequestError(f"tier {message.tier} has its {profile.instances} instances")
        check_descriptors(descriptors)
        return profile

    def _template_of(self, tier: int) -> template.Template:
        if tier not in self._templates and time.monotonic_ns() >= self._retry_ns.get(tier, 2**63):
            self._start_template(tier)
        if tier not in self._templates:
            raise IsolationUnavailableError(f"template of tier {tier}", self._unavailable.get(tier, "not running"))
        return self._templates[tier]

    def _free_uid(self, tier: int) -> int:
        """A uid of the tier's slice that no running instance has; 0 is the zygote's."""
        taken = {instance.uid for instance in self._instances.values() if instance.tier == tier}
        uid = self._uids[tier]
        while True:
            uid = uid % (self._specs[tier].uid_count - 1) + 1
            if uid not in taken:
                self._uids[tier] = uid
                return uid

    # -- messages of an instance, before plugin code runs

    def _from_instance(self, instance: Instance, control: socket.socket) -> None:
        data, descriptors, _, _ = socket.recv_fds(control, 4096, 1, socket.MSG_CMSG_CLOEXEC)
        message = _parse(data)
        if message.get("op") == "hello" and len(descriptors) == 1 and instance.pidfd < 0:
            instance.pidfd = descriptors[0]
            try:
                instance.group.attach(pid_of(instance.pidfd))
                control.send(b"go")
            except OSError as error:
                instance.failure = ("cgroup", str(error))
                instance.kill("fault")
            return
        for descriptor in descriptors:
            os.close(descriptor)
        self._selector.unregister(control)
        instance.close_control()
        if message.get("op") == "ready":
            instance.started()
            self._tell(protocol.Started(instance.run))
        elif message.get("op") == "failed":
            instance.failure = (str(message.get("step"))[:64], str(message.get("detail"))[:1000])

    def _finish(self, instance: Instance | None, exit_code: int) -> None:
        if instance is None:
            return
        del self._instances[instance.run]
        if instance.control is not None:
            self._drain(instance, instance.control)
        ended = instance.finish(exit_code)
        if instance.started_ns:
            self._tell(ended)
        else:
            self._tell(protocol.Refused(instance.run, *instance.failure))

    def _drain(self, instance: Instance, control: socket.socket) -> None:
        # The exit can be seen before the last message on the control socket.
        control.setblocking(False)
        try:
            while instance.control is not None:
                self._from_instance(instance, control)
        except OSError:
            self._selector.unregister(control)


def _parse(data: bytes) -> dict[str, Any]:
    try:
        message = json.loads(data)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}


def receive(sock: socket.socket) -> tuple[protocol.Message, list[int]]:
    """One checked message with exactly the descriptors its kind has. Raises EOFError, InvalidRequestError."""
    data, control, flags, _ = sock.recvmsg(
        protocol.MAX_MESSAGE_BYTES + 1, socket.CMSG_SPACE(16 * 4), socket.MSG_CMSG_CLOEXEC
    )
    descriptors = array.array("i")
    for level, kind, content in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    if not data:
        raise EOFError
    try:
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise InvalidRequestError("message: too long or with too many descriptors")
        message = protocol.decode(data)
        if len(descriptors) != message.descriptors:
            raise InvalidRequestError(f"expected {message.descriptors} descriptors, got {len(descriptors)}")
    except InvalidRequestError:
        for descriptor in descriptors:
            os.close(descriptor)
        raise
    return message, list(descriptors)


def check_descriptors(descriptors: Sequence[int]) -> None:
    """Input a sealed memfd, the others write ends of pipes; never a directory. Raises InvalidRequestError."""
    first, *pipes = descriptors
    try:
        sealed = fcntl.fcntl(first, fcntl.F_GET_SEALS) & codestore.SEALS == codestore.SEALS
    except OSError:
        sealed = False
    if not sealed or os.fstat(first).st_size > INPUT_LIMIT_BYTES:
        raise InvalidRequestError(f"input: expected a sealed memfd of at most {INPUT_LIMIT_BYTES} bytes")
    for pipe in pipes:
        writable = fcntl.fcntl(pipe, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY
        if not stat.S_ISFIFO(os.fstat(pipe).st_mode) or not writable:
            raise InvalidRequestError("descriptor: expected the write end of a pipe")


def pid_of(pidfd: int) -> int:
    """The host's pid of a pidfd. Raises OSError for any other descriptor. Source: pidfd_open(2)."""
    for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "Pid" and int(value) > 0:
            return int(value)
    raise OSError(0, "expected a pidfd of a living process")


def log(text: str) -> None:
    """One line on standard error, which systemd or the person at the terminal sees."""
    sys.stderr.write(f"plugind-launcher: {text}\n")
    sys.stderr.flush()
