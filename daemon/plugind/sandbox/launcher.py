"""The launcher: the only process with privileges in the host's user namespace. Root, small, single-threaded.

It serves one peer, the front, and trusts nothing it says: digests, limits, tiers and descriptors are checked here,
against files that only root can write. When the front is gone it ends everything and exits; when it is gone itself,
the templates' inits die with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from plugind.errors import InvalidBundleError, InvalidRequestError, IsolationUnavailableError, PlugindError
from plugind.linux.cgroup import Base, GroupLimits
from plugind.model import Limits, Profile
from plugind.sandbox import channel, codestore, jailspec, notifier, protocol, template
from plugind.sandbox.complaints import Complaints
from plugind.sandbox.importing import Imported
from plugind.sandbox.inside.ahead import DONE, IMPORTED
from plugind.sandbox.latch import Latch
from plugind.sandbox.loop import Loop
from plugind.sandbox.preparing import Preparing
from plugind.sandbox.queue import StartQueue, kind_of
from plugind.sandbox.supervisor import FOREVER_NS, Ahead, Instance
from plugind.sandbox.templates import Templates
from plugind.sandbox.tries import Tries
from plugind.sandbox.words import is_exit_code, log, parse, short

Build = Callable[[Profile, Limits, str, int], jailspec.JailSpec]
MOST_IN_SETUP: Final = 16
"""Instances of a tier whose jails are built at one time: more orders do not fit into a zygote's socket buffer."""
KILL_CAUSES: Final = frozenset({"canceled", "killed", "output_limit", "timeout"})
"""Why the front may end an instance; all else is for the launcher to find. `timeout`: of one input of a session."""


class Launcher:
    """The loop and its state. `serve` returns when the front is gone or asked to stop."""

    def __init__(
        self,
        front: socket.socket,
        base: Base,
        profiles: Mapping[int, Profile],
        templates: Templates,
        code: codestore.CodeStore,
        builtin: frozenset[str],
        latch: Latch,
        build: Build,
        tries: Tries,
    ) -> None:
        self._front = front
        self._base = base
        self._profiles = profiles
        self._templates = templates
        self._code = code
        self._builtin = builtin
        self._latch = latch
        self._build = build
        self._tries = tries
        self._instances: dict[str, Instance] = {}
        self._done: dict[str, Instance] = {}
        """Killed after their results, and told of; the kernel is about to take them apart."""
        self._waiting = StartQueue()
        self._complaints = Complaints(log)
        self._loop = Loop()
        self._preparing = Preparing(
            templates, self._loop, self._hear_import, lambda kind: self._end_template(kind, "canceled")
        )

    def serve(self, driver: str) -> None:
        """Start notifier and templates, say so, and work until the end. Raises IsolationUnavailableError, OSError."""
        self._watch_notifier()
        # When this process dies the kernel kills its children in this order: the least trusted ones first.
        for tier in sorted(self._templates.tiers(), reverse=True):
            self._start_template(tier)
        self._loop.watch(self._front, self._from_front)
        descriptor = self._base.kill_descriptor()
        why = {str(tier): short(reason) for tier, reason in self._templates.unavailable_tiers().items()}
        self._tell(protocol.Ready(driver, why), [] if descriptor is None else [descriptor])
        if descriptor is not None:
            os.close(descriptor)
        self._loop.run(self._patience_s, self._after_messages)

    def stop(self) -> None:
        """Have `serve` return soon. For signal handlers, which must not raise into the middle of something."""
        self._loop.stop()

    def shut_down(self) -> None:
        """End every instance and template and remove their groups. Raises OSError when something outlives SIGKILL."""
        self._waiting.close()
        for instance in self._instances.values():
            instance.kill("killed")
        self._templates.kill()
        for instance in (*self._instances.values(), *self._done.values()):
            instance.finish(-signal.SIGKILL)
        self._templates.remove_groups()
        self._tries.close()
        self._base.remove()
        self._loop.close()

    # -- what the loop does beside messages

    def _after_messages(self) -> None:
        self._check_latch()
        self._check_limits()
        self._check_templates()
        if self._waiting:
            self._start_waiting()

    def _patience_s(self) -> float | None:
        watched = (*self._instances.values(), *self._done.values())
        soonest = min((instance.next_check_ns for instance in watched), default=FOREVER_NS)
        soonest = min(soonest, self._templates.next_check_ns())
        return None if soonest == FOREVER_NS else max(0.0, (soonest - time.monotonic_ns()) / 10**9)

    def _check_latch(self) -> None:
        if self._latch.look():
            for instance in self._instances.values():
                if self._latch.reason(instance.digest):
                    instance.kill("killed")

    def _check_limits(self) -> None:
        now_ns = time.monotonic_ns()
        for instance in [*self._instances.values(), *self._done.values()]:
            if not any(there.get(instance.run) is instance for there in (self._instances, self._done)):
                continue  # it went with a template that was lost just now
            if instance.stuck(now_ns):
                log(f"run {instance.run} outlives its SIGKILL; the template of {instance.kind} goes with it")
                self._lose_template(instance.kind)
            elif now_ns >= instance.next_check_ns:
                try:
                    instance.check(now_ns)
                except OSError as error:
                    log(f"run {instance.run} cannot be watched, so it ends: {error}")
                    instance.kill("fault")

    def _tell(self, message: protocol.ToFront, descriptors: Sequence[int] = ()) -> None:
        try:
            channel.send(self._front, protocol.encode(message), descriptors)
        except OSError as error:
            # Gone, or it has stopped reading: to wait for it would be to stop watching the instances.
            if not self._loop.stopping:
                log(f"the front does not listen any more: {error}")
            self._loop.stopping = True  # no front, no work

    # -- templates

    def _start_template(self, tier: int) -> None:
        try:
            running = self._templates.start(tier)
        except (IsolationUnavailableError, OSError) as error:
            log(f"tier {tier} is unavailable: {error}")
        else:
            self._loop.watch(running.sock, lambda: self._from_zygote(running))

    def _from_zygote(self, source: template.Template) -> None:
        try:
            data, _, cut = channel.receive(source.sock, protocol.MAX_MESSAGE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data, cut = b"", False
        message = {} if cut else parse(data)
        match message:
            case {"op": "exited", "run": str(run), "exit_code": int(exit_code)} if is_exit_code(exit_code):
                if instance := self._instance_of(source, run):
                    self._finish(instance, exit_code)
            case {"op": "failed", "run": str(run), "detail": str(detail)}:
                if instance := self._instance_of(source, run):
                    instance.failure = ("clone", short(detail))
                    self._finish(instance, 1)
            case _:
                log(f"the zygote of {source.kind} {'sent nonsense' if data else 'is gone'}; its runs end with it")
                self._lose_template(source.kind)

    def _instance_of(self, source: template.Template, run: str) -> Instance | None:
        """A zygote speaks for its own instances only: it could have been taken over."""
        instance = self._instances.get(run) or self._done.get(run)
        return instance if instance is not None and instance.kind == source.kind else None

    def _lose_template(self, kind: template.Kind) -> None:
        """Its zygote or init ended, or does not obey: all of it goes, and a tier's own comes again."""
        self._end_template(kind, "fault")
        if not kind.environment:
            self._start_template(kind.tier)

    def _end_template(self, kind: template.Kind, cause: str) -> None:
        running = self._templates.take(kind)
        self._loop.leave(running.sock)
        running.kill()
        for instance in (*self._instances.values(), *self._done.values()):
            if instance.kind == kind:
                instance.kill(cause)
                self._finish(instance, -signal.SIGKILL)
        self._templates.ended(kind)

    def _hear_import(self, running: template.Template, seen: Imported) -> None:
        """A template with an environment has come up."""
        self._loop.watch(running.sock, lambda: self._from_zygote(running))
        failed = {short(name): short(why) for name, why in seen.failed.items()}
        facts = (seen.uid, seen.capabilities, seen.user_namespace, seen.wall_ms)
        self._tell(protocol.Imported(running.kind.environment, running.kind.tier, *facts, failed))

    def _busy(self) -> set[template.Kind]:
        """Templates of which somebody has an instance, or waits for one."""
        return {instance.kind for instance in self._instances.values() if instance.serves} | self._waiting.kinds()

    def _check_templates(self) -> None:
        if time.monotonic_ns() >= self._templates.next_check_ns():
            self._preparing.check({instance.kind for instance in self._instances.values()})

    # -- the notifier

    def _watch_notifier(self) -> None:
        running = self._tries.start()
        self._loop.watch(running.sock, lambda: self._from_notifier(running))

    def _from_notifier(self, running: notifier.Notifier) -> None:
        try:
            said = running.receive()
        except EOFError:
            self._lose_notifier(running)
            return
        if said is not None:
            owner, why = said
            for instance in self._instances.values():
                if instance.owner == owner:
                    most = self._profiles[instance.tier].refused_calls
                    instance.refuse(f"more than {most} refused system calls" if why == notifier.TOO_MANY else "")

    def _lose_notifier(self, running: notifier.Notifier) -> None:
        """What instances try would be refused all the same, and nobody would know: they end."""
        log("the notifier is gone; the runs of all tiers end, and it is started again")
        self._loop.leave(running.sock)
        for instance in self._instances.values():
            instance.kill("fault")
        self._tries.end()
        try:
            self._watch_notifier()
        except (IsolationUnavailableError, OSError) as error:
            log(f"cannot go on without a notifier: {error}")
            self._loop.stopping = True

    # -- messages of the front

    def _from_front(self) -> None:
        try:
            message, descriptors = channel.receive_message(self._front)
        except BlockingIOError:
            return
        except (EOFError, OSError):
            self._loop.stopping = True
            return
        except InvalidRequestError as error:
            self._complaints.note(f"a message of the front: {error}")
            return
        try:
            self._obey(message, descriptors)
        except InvalidRequestError as error:
            self._complaints.note(f"{message.op} of the front: {error}")
        finally:
            channel.close(descriptors)

    def _obey(self, message: protocol.Message, descriptors: list[int]) -> None:
        match message:
            case protocol.Load():
                self._load(message, descriptors[0])
            case protocol.Use():
                self._use(message, descriptors)
            case protocol.Start():
                self._try(self._take, message, descriptors)
            case protocol.Kill():
                self._kill(message)
            case protocol.Stop():
                self._loop.stopping = True
            case _:
                raise InvalidRequestError("this message goes the other way")

    def _kill(self, message: protocol.Kill) -> None:
        if message.cause not in KILL_CAUSES:
            raise InvalidRequestError(f"cause: expected one of {', '.join(sorted(KILL_CAUSES))}, got {message.cause!r}")
        if message.run in self._waiting:
            self._waiting.drop(message.run)
            self._tell(protocol.Refused(message.run, "setup", f"{message.cause} before its jail was begun"))
        elif instance := self._instances.get(message.run):
            if not instance.started_ns:
                instance.failure = ("setup", f"{message.cause} before its jail was complete")
            instance.kill(message.cause)

    def _load(self, message: protocol.Load, descriptor: int) -> None:
        in_use = {instance.digest for instance in self._instances.values()}
        try:
            for evicted in self._code.load(message.digest, descriptor, in_use):
                self._tell(protocol.Loaded(evicted, "evicted"))
        except (InvalidBundleError, OSError) as error:
            self._complaints.note(f"load of the front: {message.digest}: {error}")
            self._tell(protocol.Loaded(message.digest, short(error)))
        else:
            self._tell(protocol.Loaded(message.digest, ""))

    def _has_room(self, kind: template.Kind) -> bool:
        """Whether one more jail of a template may be built now."""
        if kind in self._templates.starting:
            return False
        setting_up = (each.kind == kind and each.control is not None for each in self._instances.values())
        return sum(setting_up) < MOST_IN_SETUP

    def _take(self, message: protocol.Start, descriptors: list[int]) -> None:
        """Start it, or let it wait for its turn."""
        kind = kind_of(message)
        if kind.environment and kind.tier in self._profiles:
            self._preparing.prepare(kind, self._busy)
        if message.run in self._waiting or not self._has_room(kind):
            self._wait(message, descriptors)
        else:
            self._start(message, descriptors)

    def _wait(self, message: protocol.Start, descriptors: list[int]) -> None:
        if message.run in self._waiting:
            raise InvalidRequestError(f"run {message.run} is there already")
        if not isinstance(message, protocol.Park):
            self._check_places(message.tier, self._waiting.count(message.tier))
        self._waiting.put(message, descriptors)

    def _start_waiting(self) -> None:
        for message, descriptors in self._waiting.take(self._has_room):
            self._try(self._start, message, descriptors)

    def _try(
        self, begin: Callable[[protocol.Start, list[int]], None], message: protocol.Start, descriptors: list[int]
    ) -> None:
        """Begin a run, or tell the front why not."""
        try:
            begin(message, descriptors)
        except (PlugindError, OSError) as error:
            step = getattr(error, "step", "launcher")
            if isinstance(error, InvalidRequestError):  # what no front in its right mind asks for
                self._complaints.note(f"start of the front: run {message.run}: {error}")
            self._tell(protocol.Refused(message.run, step, short(error)))

    def _check_places(self, tier: int, waiting: int = 0) -> None:
        most = self._profiles[tier].instances
        if waiting + sum(each.serves for each in self._of_tier(tier)) >= most:
            raise InvalidRequestError(f"tier {tier} has its {most} instances")

    def _start(self, message: protocol.Start, descriptors: list[int]) -> None:
        profile, kind = self._admit(message, descriptors), kind_of(message)
        try:
            self._start_from(self._template_of(kind), profile, message, descriptors)
        except ConnectionError:
            # Its zygote has ended, and the loop has not come to that yet.
            self._lose_template(kind)
            if kind.environment:
                self._take(message, descriptors)
            else:
                self._start_from(self._template_of(kind), profile, message, descriptors)

    def _start_from(
        self, running: template.Template, profile: Profile, message: protocol.Start, descriptors: list[int]
    ) -> None:
        taken = {each.uid for each in (*self._instances.values(), *self._done.values()) if each.tier == message.tier}
        uid = self._templates.free_uid(message.tier, taken)
        limits = message.limits
        is_ahead = isinstance(message, protocol.Park)
        # What only a backstop holds counts import and run together, each of which has the whole.
        backstop = replace(limits, cpu_ms=2 * limits.cpu_ms) if is_ahead else limits
        spec = self._build(profile, backstop, message.digest, uid)
        order = json.dumps({"op": "start", "run": message.run, "steps": spec.wire(), "ahead": is_ahead}).encode()
        group = self._base.create(message.run, GroupLimits(limits.memory_bytes, limits.pids, profile.cpu_percent))
        if is_ahead and not group.can_freeze:
            group.remove()
            raise IsolationUnavailableError(protocol.NO_FREEZER, "there is no cgroup.freeze: no unified hierarchy")
        instance = Instance(message.run, message.digest, running.kind, limits, uid, group, self._tries.take())
        ends: tuple[int, ...] = ()
        try:
            if is_ahead:
                instance.ahead, ends = Ahead.make()
                given, stdout, stderr = descriptors
                descriptors = [given, ends[0], stdout, stderr, ends[1]]
            control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            instance.control = control
            with theirs:
                channel.send(running.sock, order, [theirs.fileno(), *descriptors])
        except OSError:
            instance.finish(1)
            raise
        finally:
            channel.close(ends)
        self._code.touch(message.digest)
        self._templates.touch(running.kind)
        self._instances[message.run] = instance
        self._loop.watch(control, lambda: self._from_instance(instance, control))
        if instance.ahead is not None:
            self._loop.watch(instance.ahead.word, lambda: self._hear(instance))

    def _admit(self, message: protocol.Start, descriptors: list[int]) -> Profile:
        """Whatever the front has decided. Raises InvalidRequestError, IsolationUnavailableError."""
        profile = self._profiles.get(message.tier)
        if profile is None:
            raise InvalidRequestError(f"tier: expected 0, 1 or 2, got {message.tier}")
        if message.run in self._instances:
            raise InvalidRequestError(f"run {message.run} is there already")
        if message.tier == 0 and message.digest not in self._builtin:
            raise InvalidRequestError(f"tier 0: {message.digest} is not in the root-owned list of built-in plugins")
        self._check_latch()
        if reason := self._latch.reason(message.digest):
            raise IsolationUnavailableError(protocol.KILLED, reason)
        session = isinstance(message, protocol.Open)
        for name, value, ceiling in jailspec.above_ceiling(message.limits, profile, session=session):
            raise InvalidRequestError(f"{name}: expected 1 to {ceiling} in tier {message.tier}, got {value}")
        if message.digest not in self._code:
            raise IsolationUnavailableError(protocol.NOT_LOADED, f"digest {message.digest} was not loaded")
        if isinstance(message, protocol.Park):
            self._check_parking(profile)
        else:
            self._check_places(message.tier)
        channel.check_descriptors(descriptors, session=session)
        return profile

    def _check_parking(self, profile: Profile) -> None:
        # Twice as many: those that gave way may be on their way out.
        if sum(not each.serves for each in self._of_tier(profile.tier)) >= 2 * profile.parked:
            raise InvalidRequestError(f"tier {profile.tier} has its {profile.parked} parked instances")

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
        del self._instances[instance.run]
        self._done[instance.run] = instance

    def _use(self, message: protocol.Use, descriptors: list[int]) -> None:
        instance = self._instances.get(message.run)
        if instance is None or instance.ahead is None or not instance.ahead.waits or instance.killed_ns:
            self._tell(protocol.Refused(message.run, protocol.NOT_PARKED, "it is not parked any more"))
            return
        try:
            self._check_latch()
            if instance.killed_ns:
                raise IsolationUnavailableError(protocol.KILLED, self._latch.reason(instance.digest))
            most = self._profiles[instance.tier].ceilings.wall_ms
            if not 0 < message.wall_ms <= most:
                raise InvalidRequestError(
                    f"wall_ms: expected 1 to {most} in tier {instance.tier}, got {message.wall_ms}"
                )
            channel.check_descriptors(descriptors)
            self._check_places(instance.tier)
            instance.use(message.wall_ms, descriptors)
        except (PlugindError, OSError) as error:
            instance.failure = (getattr(error, "step", "launcher"), short(error))
            instance.started_ns = 0  # nothing of the run has begun: it is refused
            instance.kill("fault")

    def _template_of(self, kind: template.Kind) -> template.Template:
        if not kind.environment and self._templates.may_start(kind):
            self._start_template(kind.tier)
        running = self._templates.get(kind)
        if running is None:
            raise self._templates.refusal(kind)
        return running

    def _of_tier(self, tier: int) -> list[Instance]:
        return [each for each in self._instances.values() if each.tier == tier]

    # -- messages of an instance, before plugin code runs

    def _from_instance(self, instance: Instance, control: socket.socket) -> bool:
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
            if not channel.is_below(pid, self._template_of(instance.kind).init_pid):
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

    def _finish(self, instance: Instance, exit_code: int) -> None:
        if self._done.pop(instance.run, None):
            instance.finish(exit_code)  # how it ended was told before
            return
        del self._instances[instance.run]
        if instance.ahead is not None and instance.ahead.word >= 0:
            with contextlib.suppress(KeyError):
                self._loop.leave(instance.ahead.word)
        if instance.control is not None:
            self._drain(instance, instance.control)
        instance.violations, dangerous = self._tries.of(instance.owner)
        if dangerous and not instance.killed_ns:
            instance.refuse("")  # it ended by itself while word of its call was on the way here
        ended = instance.finish(exit_code)
        if instance.started_ns:
            self._tell(ended)
        else:
            self._tell(protocol.Refused(instance.run, *instance.failure))

    def _drain(self, instance: Instance, control: socket.socket) -> None:
        # The exit can be seen before the last message on the control socket.
        while instance.control is not None:
            if not self._from_instance(instance, control):
                self._loop.leave(control)
                return
