"""The pool of slots: network namespaces with a link to the router, made ahead, each for one run at a time.

A namespace that served a run is used again for the same digest only: counters of /proc/net, IP identifiers and the like
would tell another plugin about it. Nothing inside a slot is trusted, for whoever is root of the template's user
namespace may change it: what a run may is decided in the router (rules.py), and a slot without a run may nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from pyroute2.netlink.exceptions import NetlinkError

from plugind.addresses import Endpoint
from plugind.linux import nfelements, rtnetlink, sock_diag
from plugind.sandbox.network import namespaces, rules
from plugind.sandbox.network.router import Router
from plugind.sandbox.network.words import Caps, Used
from plugind.sandbox.words import log

_FIRST_CAPS: Final = Caps(bytes_per_second=1_000_000, connections=16)
"""Of a slot that has not had a run yet. Those of the last run are kept: the next one's often are the same."""
_LAST_MARK: Final = 2**32 - 1
_MOST_OVER: Final = 100
"""Runs whose connections may wait for being forgotten."""


class FullError(Exception):
    """Every slot has a run."""


@dataclass(slots=True)
class Slot:
    """One of them."""

    number: int
    key: str
    namespace: int
    sockets: socket.socket
    """In it, and the only one there may be. Made once: one that is closed counts until the kernel has forgotten it."""
    ifindex: int
    mark: int
    caps: Caps
    digest: str = ""
    """Whose run it last had."""
    run: str = ""
    endpoints: tuple[Endpoint, ...] = ()
    unclean: bool = False
    """Its namespace is never handed out again."""


@dataclass(slots=True)
class _Template:
    user_namespace: int
    barren: bool = False
    """The last that was to be made ahead for it could not be: the next run may try."""
    idle: list[Slot] = field(default_factory=list)
    """Least recently used first."""


class Slots:
    """All of one router."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._settings = router.settings
        self._templates: dict[str, _Template] = {}
        self._running: dict[str, Slot] = {}
        self._over: set[int] = set()
        """Marks of runs whose connections are not forgotten yet."""
        self._doubtful: list[Slot] = []
        """Released, with sockets left; most of them are gone a moment later."""
        self._thrown_away: list[Slot] = []
        self._free = list(range(self._settings.most, 0, -1))
        self._mark = 0

    # -- templates

    def expect(self, key: str, user_namespace: int) -> None:
        """A template may need slots; takes the descriptor over. Another of the same key than before is another."""
        known = self._templates.get(key)
        if known is not None:
            same = os.path.sameopenfile(known.user_namespace, user_namespace)
            if same:
                os.close(user_namespace)
                return
            self.forget(key)
        self._templates[key] = _Template(user_namespace)

    def forget(self, key: str) -> None:
        """It is gone, and with it its slots; those that have a run when that is over."""
        template = self._templates.pop(key, None)
        if template is not None:
            os.close(template.user_namespace)
            self._thrown_away += template.idle
            self._thrown_away += [slot for slot in self._doubtful if slot.key == key]
            self._doubtful = [slot for slot in self._doubtful if slot.key != key]
            for slot in self._running.values():
                slot.unclean |= slot.key == key

    # -- runs

    def take(self, run: str, key: str, digest: str, endpoints: Sequence[Endpoint], caps: Caps) -> Slot:
        """The slot of a run from now on. Raises FullError, KeyError, OSError, NetlinkError, RulesetError."""
        if run in self._running:
            raise KeyError(f"{run}: has one")
        slot = self._pick(self._templates[key], key, digest)
        try:
            if slot.caps != caps:
                self._router.nft.run(rules.other_caps(slot.number, caps))
                slot.caps = caps
            # Last, and one transaction: before it nothing is allowed.
            nfelements.add(self._router.elements, rules.NAME, rules.keys(slot.number, endpoints))
        except OSError:
            self._templates[key].idle.append(slot)
            raise
        slot.run, slot.digest, slot.endpoints = run, digest, tuple(endpoints)
        self._running[run] = slot
        return slot

    def _pick(self, template: _Template, key: str, digest: str) -> Slot:
        for wanted in (digest, ""):
            for slot in reversed(template.idle):
                if slot.digest == wanted:
                    template.idle.remove(slot)
                    return slot
        slot = self._make(template, key)
        template.barren = False
        return slot

    def release(self, run: str) -> Used:
        """The end of a run, of which no process is left. Raises KeyError, OSError, ValueError."""
        slot = self._running.pop(run)
        try:
            self._cut(slot)
            used = self._used(slot)
            if used.connections:
                self._over.add(slot.mark)
            self._take_back(slot)
        except (OSError, ValueError):
            slot.unclean = True
            self._thrown_away.append(slot)
            raise
        if slot.unclean:
            self._thrown_away.append(slot)
        else:
            self._make_ready_again(slot, self._doubtful)
        return used

    def _cut(self, slot: Slot) -> None:
        try:
            rtnetlink.link_down(self._router.links, slot.ifindex)
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            slot.unclean = True  # the root of its template took it away, and what it counted is there still

    def _used(self, slot: Slot) -> Used:
        nft, number = self._router.nft, slot.number
        counted = {name: rules.count_of(nft.listed(f"set {rules.TABLE} {name}"), number) for name in rules.COUNTED}
        refused = [
            refusal
            for digit in ("4", "6")
            for refusal in rules.refusals(nft.listed(f"set {rules.TABLE} refused{digit}_{rules.link(number)}"))
        ]
        return Used(
            run=slot.run,
            sent_bytes=counted["sent"][1],
            received_bytes=counted["received"][1],
            connections=counted["begun"][0],
            refused=tuple(refused),
            refused_others=counted["others"][0],
        )

    def _take_back(self, slot: Slot) -> None:
        following = self._next_mark()
        self._router.nft.run(
            "\n".join(
                [
                    rules.allow_no_more(slot.number, slot.endpoints),
                    rules.unready(slot.number, slot.mark),
                    rules.ready(slot.number, following, slot.caps),
                ]
            )
        )
        slot.mark, slot.run, slot.endpoints = following, "", ()

    def _make_ready_again(self, slot: Slot, otherwise: list[Slot]) -> None:
        try:
            if self._has_sockets(slot):
                otherwise.append(slot)
                return
            # Now and not with the next run: a link that comes up lets nothing through for a moment. Nothing is allowed.
            rtnetlink.link_up(self._router.links, slot.ifindex)
        except OSError:
            self._thrown_away.append(slot)
        else:
            self._templates[slot.key].idle.append(slot)

    def _has_sockets(self, slot: Slot) -> bool:
        """Whether one remains that cannot be ended, or that the kernel has not quite forgotten yet."""
        with namespaces.entered(slot.namespace):
            if sock_diag.left():
                sock_diag.destroy(slot.sockets)
                return sock_diag.left()
        return False

    def _next_mark(self) -> int:
        self._mark = self._mark % _LAST_MARK + 1
        return self._mark

    # -- what is done while there is nothing else to do

    def work(self) -> bool:
        """One thing that can be done ahead; False where there is none. Raises OSError, NetlinkError, RulesetError."""
        if len(self._over) >= _MOST_OVER:
            self.tidy()
        if self._thrown_away:
            self._unmake(self._thrown_away.pop())
            return True
        for key, template in self._templates.items():
            fresh = sum(not slot.digest for slot in template.idle)
            if fresh < self._settings.spare and self._free and not template.barren:
                self._make_ahead(template, key)
                return True
        return False

    def _make_ahead(self, template: _Template, key: str) -> None:
        try:
            template.idle.append(self._make(template, key))
        except (OSError, NetlinkError) as error:
            template.barren = (
                True  # such as one whose user namespace may have no more: others are none the worse for it
            )
            log(f"networks of {key}: {error}")

    @property
    def is_untidy(self) -> bool:
        """Whether there is something for tidy() to do."""
        return bool(self._over or self._doubtful)

    def tidy(self) -> None:
        """Forget the connections of runs that are over (some 10 ms), and look again at doubtful slots. Raises OSError.

        Not at once: nothing passes by them any more, whoever has the slot, because their mark is not the present run's.
        """
        if self._over:
            self._router.forget_connections(self._over)
            self._over.clear()
        doubtful, self._doubtful = self._doubtful, []
        for slot in doubtful:
            self._make_ready_again(slot, self._thrown_away)

    def _make(self, template: _Template, key: str) -> Slot:
        number = self._free.pop() if self._free else self._evict()
        with contextlib.ExitStack() as undo:
            undo.callback(self._free.append, number)
            namespace = namespaces.owned_by(template.user_namespace)
            undo.callback(os.close, namespace)
            with namespaces.entered(namespace):
                sockets = undo.enter_context(sock_diag.connect())
            ifindex = self._router.connect(number, namespace)
            undo.callback(self._router.disconnect, number, ifindex)
            slot = Slot(number, key, namespace, sockets, ifindex, self._next_mark(), _FIRST_CAPS)
            self._router.nft.run(rules.ready(number, slot.mark, slot.caps))
            undo.pop_all()
        return slot

    def _evict(self) -> int:
        """The number of a slot that is no more: one that was thrown away, or the one that has been idle longest."""
        if not self._thrown_away and self._doubtful:
            self._thrown_away.append(self._doubtful.pop())
        if not self._thrown_away:
            idle = [template for template in self._templates.values() if template.idle]
            if not idle:
                raise FullError(f"all {self._settings.most} networks are in use")
            self._thrown_away.append(min(idle, key=lambda each: each.idle[0].mark).idle.pop(0))
        self._unmake(self._thrown_away.pop())
        return self._free.pop()

    def _unmake(self, slot: Slot) -> None:
        gone = rules.unready(slot.number, slot.mark)
        self._router.nft.run("\n".join([rules.allow_no_more(slot.number, slot.endpoints), gone]))
        self._router.disconnect(slot.number, slot.ifindex)
        slot.sockets.close()
        os.close(slot.namespace)
        self._free.append(slot.number)
