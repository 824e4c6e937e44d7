"""What instances say to the launcher: how their jails come on, before plugin code runs, and when an import is over.

Until the jail is complete it is our own code that speaks, in a process that a zygote made; afterwards it may be
anybody's. Either is held to what it may say at that moment, and whoever says anything else ends.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Protocol

from plugind.errors import IsolationUnavailableError
from plugind.model import Profile
from plugind.sandbox import channel, protocol
from plugind.sandbox.inside.ahead import DONE, IMPORTED
from plugind.sandbox.instances import Instances
from plugind.sandbox.loop import Loop
from plugind.sandbox.supervisor import Instance
from plugind.sandbox.templates import Templates
from plugind.sandbox.tries import Tries
from plugind.sandbox.words import parse, short


class Tell(Protocol):
    """How the front is told."""

    def __call__(self, message: protocol.ToFront, descriptors: Sequence[int] = ()) -> None:
        """Never waits; a front that does not listen ends the launcher."""


class Hearing:
    """Of all instances."""

    def __init__(
        self,
        loop: Loop,
        profiles: Mapping[int, Profile],
        templates: Templates,
        tries: Tries,
        instances: Instances,
        tell: Tell,
    ) -> None:
        self._loop = loop
        self._profiles = profiles
        self._templates = templates
        self._tries = tries
        self._instances = instances
        self._tell = tell

    def watch(self, instance: Instance) -> None:
        """Listen to a new one."""
        control = instance.control
        assert control is not None  # noqa: S101 - it is new
        self._loop.watch(control, lambda: self.take(instance, control))
        if instance.ahead is not None:
            self._loop.watch(instance.ahead.word, lambda: self._hear(instance))

    def end(self, instance: Instance) -> None:
        """It has ended. What it had said and was not heard yet counts."""
        if instance.ahead is not None and instance.ahead.word >= 0:
            with contextlib.suppress(KeyError):
                self._loop.leave(instance.ahead.word)
        if instance.control is not None:
            self._drain(instance, instance.control)
        if instance.control is not None:
            self._loop.leave(instance.control)

    # -- instances that import ahead

    def _hear(self, instance: Instance) -> None:
        """One word of an instance that imports ahead."""
        assert instance.ahead is not None  # noqa: S101 - only such a one is heard
        ahead = instance.ahead
        if instance.control is not None:
            self._drain(instance, instance.control)  # what was said before the import, and has to be known before this
        said = os.read(ahead.word, 1)
        if not said or instance.killed_ns or not instance.started_ns or ahead.waits:
            # It has ended, or is about to. Or it speaks where it stands still: then somebody has thawed it.
            self._loop.leave(ahead.word)
            if ahead.waits:
                instance.kill("fault")
            return
        try:
            if said == IMPORTED and not instance.serves:
                self._tell(instance.park())
                return
            self._loop.leave(ahead.word)  # also for a word out of place: what follows it is not listened to
            if said == DONE and instance.serves:
                self._end_early(instance)
        except ValueError as error:
            instance.detail = str(error)
            instance.kill("killed")
        except OSError as error:
            instance.failure = ("freezer", short(error))
            instance.kill("fault")

    def _end_early(self, instance: Instance) -> None:
        """It is done: the answer need not wait until the kernel has taken it apart."""
        instance.violations, dangerous = self._tries.of(instance.owner)
        if dangerous:
            return  # word of it is on its way here, and ends the run
        self._tell(instance.done())
        self._instances.set_done(instance)

    # -- messages of an instance, before plugin code runs

    def take(self, instance: Instance, control: socket.socket) -> bool:
        """Take one message; False where there was none."""
        try:
            data, descriptors, _ = channel.receive(control, protocol.MAX_MESSAGE_BYTES, 1)
        except BlockingIOError:
            return False
        except OSError:
            data, descriptors = b"", []  # it died with an unread message of ours
        message = parse(data)
        if message.get("op") == "hello" and len(descriptors) == 1 and instance.pidfd < 0:
            self._welcome(instance, control, descriptors[0])
            return True
        self._loop.leave(control)
        instance.close_control()
        if message.get("op") == "ready" and len(descriptors) == 1:
            self._begin(instance, descriptors[0])
        elif message.get("op") == "failed":
            instance.failure = (short(message.get("step"))[:64], short(message.get("detail")))
        channel.close(descriptors)
        return True

    def _begin(self, instance: Instance, listener: int) -> None:
        """Its jail is complete, and plugin code begins. Until somebody listens, what is refused waits."""
        try:
            if instance.pidfd < 0:
                raise OSError(0, "it went on before it was in its groups")
            self._tries.watch(instance.owner, self._profiles[instance.tier].refused_calls, listener)
        except OSError as error:
            instance.failure = ("notifier", short(error))
            instance.kill("fault")
            return
        instance.started()
        self._tell(protocol.Started(instance.run))

    def _welcome(self, instance: Instance, control: socket.socket, pidfd: int) -> None:
        """Put it into its groups, and let it go on."""
        try:
            pid = channel.pid_of(pidfd)
            if not channel.is_below(pid, self._init_pid(instance)):
                raise OSError(0, "expected a pidfd of its own")  # SO_PEERPIDFD gives it one of the launcher
        except (IsolationUnavailableError, OSError) as error:
            # Not kept: to send a signal by a folder of /proc works as well, and may be anybody's.
            os.close(pidfd)
            instance.failure = ("cgroup", short(error))
            instance.kill("fault")
            return
        instance.pidfd = pidfd
        if instance.killed_ns:
            instance.kill(instance.cause)  # until now there was nothing that could be killed
            return
        try:
            instance.group.attach(pid)
            self._hand_over_reins(instance)
            channel.send(control, b"go")
        except OSError as error:
            instance.failure = ("cgroup", short(error))
            instance.kill("fault")

    def _hand_over_reins(self, instance: Instance) -> None:
        # Before the plugin can run: from its first instruction on the front can end it without us.
        reins = instance.group.reins()
        if reins is not None:
            self._tell(protocol.Placed(instance.run), reins)
            channel.close(reins)

    def _drain(self, instance: Instance, control: socket.socket) -> None:
        # The exit, or a word, can be seen before the last message on the control socket.
        while instance.control is not None and self.take(instance, control):
            pass

    def _init_pid(self, instance: Instance) -> int:
        running = self._templates.get(instance.kind)
        if running is None:
            raise self._templates.refusal(instance.kind)
        return running.init_pid
