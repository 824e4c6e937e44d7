"""The launcher: the only process with privileges in the host's user namespace. Root, small, single-threaded.

It serves one peer, the front, and trusts nothing it says: digests, limits, tiers and descriptors are checked here,
against files that only root can write. When the front is gone it ends everything and exits; when it is gone itself,
the templates' inits die with it.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from plugind.errors import InvalidBundleError, InvalidRequestError, IsolationUnavailableError, PlugindError
from plugind.linux.cgroup import Base
from plugind.model import Profile
from plugind.sandbox import channel, codec, codestore, gathering, notifier, protocol, template
from plugind.sandbox.complaints import Complaints
from plugind.sandbox.crowd import Crowd
from plugind.sandbox.gate import Gate
from plugind.sandbox.hearing import Hearing
from plugind.sandbox.importing import Imported
from plugind.sandbox.instances import Instances
from plugind.sandbox.latch import Latch
from plugind.sandbox.loop import Loop
from plugind.sandbox.network.networks import Means, Networks, with_network
from plugind.sandbox.plans import works
from plugind.sandbox.preparing import Preparing
from plugind.sandbox.queue import StartQueue, kind_of
from plugind.sandbox.sampler import Sampler
from plugind.sandbox.starter import Build, Starter
from plugind.sandbox.supervisor import FOREVER_NS, Instance
from plugind.sandbox.templates import Templates
from plugind.sandbox.tries import Tries
from plugind.sandbox.words import is_exit_code, log, parse, short

MOST_IN_SETUP: Final = min(16, 2 * (os.cpu_count() or 1))
"""Jails of a template that are built at one time: with more each takes longer, and none is sooner ready. More than 16
orders do not fit into a zygote's socket buffer."""
LATCH_S: Final = 1.0
"""So often the latch is looked at while there are instances, if nothing else happens."""
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
        means: Means,
        folders: works.Means,
    ) -> None:
        self._front = front
        self._base = base
        self._profiles = profiles
        self._templates = templates
        self._code = code
        self._latch = latch
        self._tries = tries
        self._instances = Instances()
        self._gate = Gate(profiles, builtin, latch, code, self._instances)
        self._waiting = StartQueue()
        self._crowd = Crowd()
        self._due_ns = 0
        """When something was to be looked at, as of the last wait."""
        self._complaints = Complaints(log)
        self._loop = Loop()
        self._sampler = Sampler(self._instances, tries, self._tell)
        self._hearing = Hearing(self._loop, profiles, templates, tries, self._instances, self._tell)
        self._works = works.Works(self._loop, folders, self._tell)
        self._networks = Networks(self._loop, profiles, means, self._init_of, self._lose_networks)
        self._starter = Starter(base, templates, code, build, tries, self._instances, self._hearing, self._networks)
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
        self._works.close()
        for instance in self._instances:
            instance.kill("killed")
        self._templates.kill()
        for instance in self._instances.all():
            instance.finish(-signal.SIGKILL)
        self._networks.close()
        self._templates.remove_groups()
        self._tries.close()
        self._base.remove()
        self._loop.close()

    # -- what the loop does beside messages

    def _after_messages(self) -> None:
        self._check_latch()
        if time.monotonic_ns() >= self._due_ns:  # messages alone make nothing due
            self._check_limits()
        self._check_templates()
        self._works.check(time.monotonic_ns())
        self._sampler.answer()
        for instance, exit_code in self._crowd.over(time.monotonic_ns()):
            self._finish(instance, exit_code)
        if self._waiting:
            self._start_waiting()

    def _patience_s(self) -> float | None:
        instances = self._instances.all()
        soonest = min((instance.next_check_ns for instance in instances), default=FOREVER_NS)
        soonest = min(soonest, self._templates.next_check_ns(), self._networks.next_check_ns())
        soonest = min(soonest, self._works.next_check_ns())
        soonest = self._due_ns = min(soonest, self._crowd.next_check_ns, self._sampler.next_check_ns())
        patience_s = max(0.0, (soonest - time.monotonic_ns()) / 10**9)
        if instances:  # also where all of them wait, and nobody says anything
            return min(LATCH_S, patience_s)
        return None if soonest == FOREVER_NS else patience_s

    def _check_latch(self) -> None:
        if self._latch.look():
            for instance in self._instances:
                if self._latch.reason(instance.digest, instance.tier):
                    instance.kill("killed")

    def _check_limits(self) -> None:
        now_ns = time.monotonic_ns()
        if now_ns >= self._networks.next_check_ns():
            self._networks.check(now_ns)
        for instance in self._instances.all():
            if not self._instances.has(instance):
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
            channel.send(self._front, codec.encode(message), descriptors)
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
                instance = self._instances.of(source.kind, run)
                if instance and not self._crowd.takes(instance, exit_code):
                    self._finish(instance, exit_code)
            case {"op": "failed", "run": str(run), "detail": str(detail)}:
                if instance := self._instances.of(source.kind, run):
                    instance.failure = ("clone", short(detail))
                    self._finish(instance, 1)
            case _:
                log(f"the zygote of {source.kind} {'sent nonsense' if data else 'is gone'}; its runs end with it")
                self._lose_template(source.kind)

    def _lose_template(self, kind: template.Kind) -> None:
        """Its zygote or init ended, or does not obey: all of it goes, and a tier's own comes again."""
        self._end_template(kind, "fault")
        if not kind.environment:
            self._start_template(kind.tier)

    def _end_template(self, kind: template.Kind, cause: str) -> None:
        running = self._templates.take(kind)
        self._loop.leave(running.sock)
        running.kill()
        for instance in self._instances.all():
            if instance.kind == kind:
                instance.kill(cause)
                self._finish(instance, -signal.SIGKILL)
        self._templates.ended(kind)
        self._networks.forget(kind)

    def _hear_import(self, running: template.Template, seen: Imported) -> None:
        """A template with an environment has come up."""
        self._loop.watch(running.sock, lambda: self._from_zygote(running))
        failed = {short(name): short(why) for name, why in seen.failed.items()}
        facts = (seen.uid, seen.capabilities, seen.user_namespace, seen.wall_ms)
        self._tell(protocol.Imported(running.kind.environment, running.kind.tier, *facts, failed))

    def _busy(self) -> set[template.Kind]:
        """Templates of which somebody has an instance, or waits for one."""
        return self._instances.kinds(serving=True) | self._waiting.kinds()

    def _check_templates(self) -> None:
        if time.monotonic_ns() >= self._templates.next_check_ns():
            self._preparing.check(self._instances.kinds())

    def _template_of(self, kind: template.Kind) -> template.Template:
        if not kind.environment and self._templates.may_start(kind):
            self._start_template(kind.tier)
        running = self._templates.get(kind)
        if running is None:
            raise self._templates.refusal(kind)
        return running

    def _init_of(self, kind: template.Kind) -> int | None:
        return None if kind in self._templates.starting else self._template_of(kind).init_pid

    def _lose_networks(self, runs: Sequence[str]) -> None:
        for run in runs:
            if instance := self._instances.get(run):
                instance.kill("fault")

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
            for instance in self._instances:
                if instance.owner == owner:
                    most = self._profiles[instance.tier].refused_calls
                    instance.refuse(f"more than {most} refused system calls" if why == notifier.TOO_MANY else "")

    def _lose_notifier(self, running: notifier.Notifier) -> None:
        """What instances try would be refused all the same, and nobody would know: they end."""
        log("the notifier is gone; the runs of all tiers end, and it is started again")
        self._loop.leave(running.sock)
        for instance in self._instances:
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
            case protocol.PlanWork():
                self._works.take(message, descriptors[0])
            case protocol.Kill():
                self._kill(message.run, message.cause)
            case protocol.Sample():
                self._sampler.ask()
            case protocol.KillMany():
                there = [run for run in message.runs if run in self._instances]
                for run in message.runs:
                    self._kill(run, message.cause)
                self._crowd.begin(there, time.monotonic_ns())
            case protocol.Stop():
                self._loop.stopping = True
            case _:
                raise InvalidRequestError("this message goes the other way")

    def _kill(self, run: str, cause: str) -> None:
        if cause not in KILL_CAUSES:
            raise InvalidRequestError(f"cause: expected one of {', '.join(sorted(KILL_CAUSES))}, got {cause!r}")
        if run in self._waiting:
            self._waiting.drop(run)
            self._networks.drop(run)
            self._tell(protocol.Refused(run, "setup", f"{cause} before its jail was begun"))
        elif instance := self._instances.get(run):
            if not instance.started_ns:
                instance.failure = ("setup", f"{cause} before its jail was complete")
            instance.kill(cause)

    def _load(self, message: protocol.Load, descriptor: int) -> None:
        in_use = {instance.digest for instance in self._instances}
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
        return self._instances.in_setup(kind) < MOST_IN_SETUP

    def _take(self, message: protocol.Start, descriptors: list[int]) -> None:
        """Start it, or let it wait for its turn."""
        kind = kind_of(message)
        if kind.environment and kind.tier in self._profiles:
            self._preparing.prepare(kind, self._busy)
        if message.run in self._waiting or message.network or not self._has_room(kind):
            self._wait(message, descriptors)
        else:
            self._start(message, descriptors)

    def _wait(self, message: protocol.Start, descriptors: list[int]) -> None:
        if message.run in self._waiting or message.run in self._instances:
            raise InvalidRequestError(f"run {message.run} is there already")
        if message.network:
            self._gate.check_network(message)
        self._gate.admit_waiting(message, self._waiting)
        if message.network:
            self._networks.begin(message)
        self._waiting.put(message, descriptors)

    def _start_waiting(self) -> None:
        for message, descriptors in self._waiting.take(self._may_start):
            self._try(self._start, message, descriptors)

    def _may_start(self, message: protocol.Start) -> bool:
        return self._has_room(kind_of(message)) and (not message.network or self._networks.is_ready(message.run))

    def _try(
        self, begin: Callable[[protocol.Start, list[int]], None], message: protocol.Start, descriptors: list[int]
    ) -> None:
        """Begin a run, or tell the front why not."""
        try:
            begin(message, descriptors)
        except (PlugindError, OSError) as error:
            step = getattr(error, "step", "launcher")
            if message.run not in self._waiting and message.run not in self._instances:
                self._networks.drop(message.run)
            if isinstance(error, InvalidRequestError):  # what no front in its right mind asks for
                self._complaints.note(f"start of the front: run {message.run}: {error}")
            self._tell(protocol.Refused(message.run, step, short(str(error).removeprefix(f"{step}: "))))

    def _start(self, message: protocol.Start, descriptors: list[int]) -> None:
        self._check_latch()
        profile, kind = self._gate.admit(message, descriptors), kind_of(message)
        try:
            self._starter.start(self._template_of(kind), profile, message, descriptors)
        except ConnectionError:
            # Its zygote has ended, and the loop has not come to that yet.
            self._lose_template(kind)
            if kind.environment:
                self._take(message, descriptors)
            else:
                self._starter.start(self._template_of(kind), profile, message, descriptors)

    def _use(self, message: protocol.Use, descriptors: list[int]) -> None:
        instance = self._instances.get(message.run)
        if instance is None or instance.ahead is None or not instance.ahead.waits or instance.killed_ns:
            self._tell(protocol.Refused(message.run, protocol.NOT_PARKED, "it is not parked any more"))
            return
        try:
            self._check_latch()
            self._gate.admit_use(instance.tier, instance.digest, message, descriptors)
            instance.use(message.wall_ms, descriptors)
        except (PlugindError, OSError) as error:
            instance.failure = (getattr(error, "step", "launcher"), short(error))
            instance.started_ns = 0  # nothing of the run has begun: it is refused
            instance.kill("fault")

    def _finish(self, instance: Instance, exit_code: int) -> None:
        if not self._instances.has(instance):
            return  # it went with its template
        if self._instances.remove(instance):
            instance.finish(exit_code)  # how it ended was told before
            return
        self._hearing.end(instance)
        instance.violations, dangerous = self._tries.of(instance.owner)
        if dangerous and not instance.killed_ns:
            instance.refuse("")  # it ended by itself while word of its call was on the way here
        folder = instance.give_folder()
        ended = instance.finish(exit_code)
        if folder is not None:
            if instance.started_ns:
                tell = lambda memfd: self._tell(protocol.Wrote(instance.run), [memfd])  # noqa: E731
                ended = gathering.gather(folder, ended, tell)
            folder.close()
        refused = protocol.Refused(instance.run, *instance.failure)
        said: protocol.Ended | protocol.Refused = ended if instance.started_ns else refused
        if instance.cut is None:
            self._tell(said)
        else:
            self._networks.release(instance.run, lambda used, refused: self._tell(with_network(said, used, refused)))
