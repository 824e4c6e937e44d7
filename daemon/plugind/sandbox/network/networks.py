"""The networks of runs, as the launcher sees them: names resolved, addresses checked, a namespace taken and given back.

Two processes do the work, and are started by the first run that needs them: the resolver (names) and the keeper
(namespaces, filters, counters). Only their own start is waited for, some 60 ms: a start waits in the launcher's queue
until its network is ready.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from plugind import addresses
from plugind.errors import IsolationUnavailableError
from plugind.linux.cgroup import Base
from plugind.model import NetworkUse, Profile, Violation
from plugind.sandbox.loop import Loop
from plugind.sandbox.network import keeper, resolver
from plugind.sandbox.network.keeper import Keeper
from plugind.sandbox.network.resolver import Resolver
from plugind.sandbox.network.words import Caps, Failed, Given, Settings, Used
from plugind.sandbox.protocol import ADDRESSES, NAMES, Ended, Refused, Start
from plugind.sandbox.queue import kind_of
from plugind.sandbox.template import Kind
from plugind.sandbox.words import log

PATIENCE_NS: Final = 10 * 10**9
"""A process that has not answered by then is taken to hang, and ends."""
LOST_S: Final = 0.1
"""One that is gone, or hangs, is not waited for: the loop stands still meanwhile."""
KEEPER: Final = "network"
"""The step that fails where a namespace cannot be had."""

Told = Callable[[NetworkUse, tuple[Violation, ...]], None]


class Means(Protocol):
    """How the two processes are started."""

    def keeper(self) -> Keeper:
        """Raises IsolationUnavailableError, OSError."""
        ...

    def resolver(self) -> Resolver:
        """Raises IsolationUnavailableError, OSError."""
        ...


class Processes:
    """The real ones, in groups of their own."""

    def __init__(self, base: Base, settings: Settings, nameservers: Sequence[str]) -> None:
        """Undoes what an earlier keeper has left behind, if one has."""
        self._base = base
        self._settings = settings
        self._nameservers = nameservers
        if settings.folder.exists():
            try:
                keeper.sweep(settings)
            except OSError as error:  # the next run with a network is refused for it, and no other
                log(f"networks: {error}")

    def keeper(self) -> Keeper:
        """Raises IsolationUnavailableError, OSError."""
        return keeper.start(self._settings, self._base.create_template("networks"))

    def resolver(self) -> Resolver:
        """Raises IsolationUnavailableError, OSError."""
        return resolver.start(self._base.create_template("resolver"), self._nameservers)


@dataclass(frozen=True, slots=True)
class Network:
    """What an instance gets: a namespace (a descriptor that is the launcher's to close), and the text of /etc/hosts."""

    namespace: int
    hosts: str
    cut: Callable[[], None]
    """Nothing gets through any more when it returns. Raises OSError."""


@dataclass(slots=True)
class _Grant:
    """The network of one run, from its start to its end."""

    start: Start
    since_ns: int = field(default_factory=time.monotonic_ns)
    """When the answer that is waited for was asked for."""
    answers: Mapping[str, Sequence[str]] | None = None
    """The addresses of its names, when they are known."""
    asked: bool = False
    """Whether the keeper has been."""
    given: Given | None = None
    failure: IsolationUnavailableError | None = None
    is_used: bool = False
    told: Told | None = None
    """Who is to hear of its end."""

    @property
    def waits(self) -> bool:
        """Whether a process owes it an answer."""
        asks_names = self.answers is None
        return self.told is not None or (self.failure is None and self.given is None and (asks_names or self.asked))


class Networks:
    """Of all runs that were granted some. `template` gives the pid of a template's init, None while it is starting.

    `lost` hears of the runs that have lost theirs.
    """

    def __init__(
        self,
        loop: Loop,
        profiles: Mapping[int, Profile],
        means: Means,
        template: Callable[[Kind], int | None],
        lost: Callable[[Sequence[str]], None],
    ) -> None:
        self._loop = loop
        self._private = {
            tier: tuple(ipaddress.ip_network(each) for each in profile.network_private)
            for tier, profile in profiles.items()
        }
        self._caps = {
            tier: Caps(profile.network_bytes_per_second, profile.network_connections)
            for tier, profile in profiles.items()
            if profile.network_bytes_per_second
        }
        self._means = means
        self._template = template
        self._lost = lost
        self._grants: dict[str, _Grant] = {}
        self._keeper: Keeper | None = None
        self._resolver: Resolver | None = None

    # -- before a run

    def begin(self, start: Start) -> None:
        """Have the network of a run made ready. Raises IsolationUnavailableError, OSError."""
        names = sorted({wanted.host for wanted in start.network if not addresses.is_address(wanted.host)})
        grant = _Grant(start)
        if objections := [f"{name}: {why}" for name in names if (why := addresses.name_objection(name))]:
            grant.failure = IsolationUnavailableError(ADDRESSES, "; ".join(objections))
        elif names:
            self._resolving().ask(start.run, names)
        else:
            grant.answers = {}
        self._grants[start.run] = grant

    def is_ready(self, run: str) -> bool:
        """Whether there is something to `take`, be it the reason why there is none."""
        grant = self._grants.get(run)
        if grant is None or grant.failure or grant.given:
            return True
        if grant.answers is not None and not grant.asked:
            try:
                self._ask(grant, grant.answers)
            except (IsolationUnavailableError, OSError, ValueError) as error:
                self._fail(grant, error)
        return grant.failure is not None

    def take(self, run: str) -> Network:
        """The network of a run that begins. Raises IsolationUnavailableError with the step that failed."""
        grant = self._grants.get(run)
        if grant is None or grant.given is None or self._keeper is None:
            why = grant.failure if grant and grant.failure else IsolationUnavailableError(KEEPER, "it was lost")
            self._grants.pop(run, None)
            raise why
        keeper, ifindex = self._keeper, grant.given.ifindex
        grant.is_used = True
        hosts = addresses.hosts_text(grant.answers or {})
        return Network(grant.given.namespace, hosts, lambda: keeper.cut(ifindex))

    def drop(self, run: str) -> None:
        """It does not begin after all. No effect where there is none."""
        grant = self._grants.get(run)
        if grant is None or grant.told:
            return
        if grant.given is not None and not grant.is_used:
            os.close(grant.given.namespace)
        if grant.asked and grant.failure is None and self._keeper is not None:
            self.release(run, lambda _use, _violations: None)
        else:
            del self._grants[run]

    def _ask(self, grant: _Grant, answers: Mapping[str, Sequence[str]]) -> None:
        start, kind = grant.start, kind_of(grant.start)
        init = self._template(kind)
        if init is None:
            return  # it is on its way, and so is the run's turn
        try:
            endpoints = addresses.check(start.network, answers, self._private[start.tier])
        except addresses.RefusedError as error:
            raise IsolationUnavailableError(ADDRESSES, str(error)) from None
        keeper = self._keeping()
        users = os.open(f"/proc/{init}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        try:
            keeper.take(start.run, str(kind), users, start.digest, endpoints, self._caps[start.tier])
        finally:
            os.close(users)
        grant.asked, grant.since_ns = True, time.monotonic_ns()

    def _fail(self, grant: _Grant, error: Exception) -> None:
        if not isinstance(error, IsolationUnavailableError):
            error = IsolationUnavailableError(KEEPER, str(error))
        grant.failure = error

    # -- after a run

    def release(self, run: str, told: Told) -> None:
        """Its processes are gone. `told` hears what it used, when nothing of its network is left."""
        grant = self._grants[run]
        grant.told, grant.since_ns = told, time.monotonic_ns()
        if self._keeper is not None:
            with contextlib.suppress(OSError):  # it is gone, and that is heard of soon
                self._keeper.release(run)
                return
        self._ended(grant, NetworkUse(), ())

    def forget(self, kind: Kind) -> None:
        """A template is gone, and with it what was made for its instances."""
        if self._keeper is not None:
            with contextlib.suppress(OSError):
                self._keeper.forget(str(kind))
        for grant in self._grants.values():
            if kind_of(grant.start) == kind and grant.asked and not grant.is_used and grant.told is None:
                self._fail(grant, IsolationUnavailableError(KEEPER, "its template is gone"))

    def _ended(self, grant: _Grant, use: NetworkUse, violations: tuple[Violation, ...]) -> None:
        del self._grants[grant.start.run]
        if grant.told is not None:
            grant.told(use, violations)

    # -- the two processes

    def _resolving(self) -> Resolver:
        if self._resolver is None:
            resolver = self._resolver = self._means.resolver()
            self._loop.watch(resolver.sock, lambda: self._from_resolver(resolver))
        return self._resolver

    def _from_resolver(self, resolver: Resolver) -> None:
        try:
            answer = resolver.receive()
        except EOFError:
            self._lose_resolver("the resolver is gone")
            return
        grant = self._grants.get(answer.token) if answer else None
        if answer is None or grant is None or grant.answers is not None:
            return
        if answer.failed:
            told = "; ".join(f"{name}: {why}" for name, why in sorted(answer.failed.items()))
            self._fail(grant, IsolationUnavailableError(NAMES, told))
        else:
            grant.answers = answer.addresses

    def _lose_resolver(self, why: str) -> None:
        log(f"{why}; it is started again by the next run that needs it")
        if self._resolver is not None:
            self._loop.leave(self._resolver.sock)
            self._resolver.end()
            self._resolver = None
        for grant in self._grants.values():
            if grant.answers is None and grant.failure is None:
                self._fail(grant, IsolationUnavailableError(NAMES, why))

    def _keeping(self) -> Keeper:
        if self._keeper is None:
            keeper = self._keeper = self._means.keeper()
            self._loop.watch(keeper.sock, lambda: self._from_keeper(keeper))
        return self._keeper

    def _from_keeper(self, keeper: Keeper) -> None:
        try:
            said = keeper.receive()
        except EOFError:
            self._lose_keeper("the keeper of networks is gone")
            return
        if said is None:
            return
        grant = self._grants.get(said.run)
        match said:
            case Given() if grant is None or grant.given is not None or not grant.asked:
                os.close(said.namespace)
            case Given() if grant is not None and (grant.told or grant.failure):
                os.close(said.namespace)  # it was dropped meanwhile, and is on its way back
            case Given() if grant is not None:
                grant.given = said
            case Failed() if grant is not None and grant.told:
                log(f"what run {said.run} did with its network is not known: {said.detail}")
                self._ended(grant, NetworkUse(), ())
            case Failed() if grant is not None:
                self._fail(grant, IsolationUnavailableError(KEEPER, said.detail))
            case Used() if grant is not None and grant.told:
                self._ended(grant, *_of(said))

    def _lose_keeper(self, why: str) -> None:
        log(f"{why}; runs with a network end, and it is started again by the next one")
        if self._keeper is not None:
            self._loop.leave(self._keeper.sock)
            self._keeper.end(LOST_S)
            self._keeper = None
        for grant in list(self._grants.values()):
            if grant.told is not None:
                self._ended(grant, NetworkUse(), ())
            elif grant.asked and not grant.is_used:
                if grant.given is not None:
                    os.close(grant.given.namespace)
                    grant.given = None
                self._fail(grant, IsolationUnavailableError(KEEPER, why))
        self._lost([run for run, grant in self._grants.items() if grant.is_used])

    # -- the clock

    def next_check_ns(self) -> int:
        """When to look again whether somebody hangs."""
        return min((each.since_ns + PATIENCE_NS for each in self._grants.values() if each.waits), default=2**62)

    def check(self, now_ns: int) -> None:
        """End what hangs."""
        late = [each for each in self._grants.values() if each.waits and now_ns >= each.since_ns + PATIENCE_NS]
        if any(each.answers is None for each in late):
            self._lose_resolver("the resolver does not answer")
        if any(each.answers is not None for each in late):
            self._lose_keeper("the keeper of networks does not answer")

    def close(self) -> None:
        """End both. Raises OSError."""
        for each in (self._keeper, self._resolver):
            if each is not None:
                self._loop.leave(each.sock)
                each.end()
        for grant in self._grants.values():
            if grant.given is not None and not grant.is_used:
                os.close(grant.given.namespace)
        self._grants.clear()
        self._keeper = self._resolver = None


def with_network(said: Ended | Refused, used: NetworkUse, refused: tuple[Violation, ...]) -> Ended | Refused:
    """The end of a run with what became of its network."""
    if isinstance(said, Refused):
        return said
    return replace(said, network=used, violations=(*said.violations, *refused))


def _of(used: Used) -> tuple[NetworkUse, tuple[Violation, ...]]:
    """What the keeper counted, in the words of records."""
    refused = [
        Violation("network", f"{_place(each.address, each.port)}/{each.protocol}", each.count, "refused: not approved")
        for each in used.refused
    ]
    if used.refused_others:
        refused.append(Violation("network", "", used.refused_others, "refused: other peers"))
    return NetworkUse(used.sent_bytes, used.received_bytes, used.connections), tuple(refused)


def _place(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
