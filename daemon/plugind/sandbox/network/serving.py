"""The keeper's own process: what it does with what the launcher says. Only that process imports this."""

from __future__ import annotations

import select
import socket
from typing import Final

from pyroute2.netlink.exceptions import NetlinkError

from plugind.linux import rtnetlink
from plugind.sandbox import channel
from plugind.sandbox.forked import READY
from plugind.sandbox.network import words
from plugind.sandbox.network.host import Host
from plugind.sandbox.network.router import Router
from plugind.sandbox.network.slots import FullError, Slots
from plugind.sandbox.words import log, short

_QUIET_MS: Final = 50
"""So long nobody must have wanted anything before that is done which takes long and can wait."""
_FAILURES: Final = (OSError, NetlinkError, ValueError, KeyError, FullError)


def serve(settings: words.Settings, launcher: socket.socket) -> None:
    """Until the launcher is gone, or says that it is over. Raises what the machine does not do."""
    router = Router(settings)
    for each in router.obstacles:
        log(f"networks: {each.who} drops what plugins send ({each.chain}); {each.command} lets it pass")
    try:
        with rtnetlink.connect() as link:
            launcher.settimeout(None)
            socket.send_fds(launcher, [READY], [link.fileno()])
        _Serving(Slots(router), launcher).serve()
    finally:
        router.close()


def sweep(settings: words.Settings) -> None:
    """Undo what a killed keeper left on the host. Raises IsolationUnavailableError, OSError."""
    Host(settings).sweep()


class _Serving:
    def __init__(self, slots: Slots, launcher: socket.socket) -> None:
        self._slots = slots
        self._launcher = launcher
        self._poll = select.poll()
        self._poll.register(launcher, select.POLLIN)

    def serve(self) -> None:
        more = True
        while True:
            if self._poll.poll(self._patience_ms(more)):
                if not self._hear():
                    return
                more = True
            elif more:
                more = self._slots.work()
            else:
                self._slots.tidy()

    def _patience_ms(self, more: bool) -> int | None:
        if more:
            return 0
        return _QUIET_MS if self._slots.is_untidy else None

    def _hear(self) -> bool:
        """One message; False where it was the last."""
        try:
            data, descriptors, cut = channel.receive(self._launcher, words.MAX_MESSAGE_BYTES, 1)
        except ConnectionResetError:
            return False
        if not data:
            return False
        message = words.decode(data)
        if cut or len(descriptors) != words.DESCRIPTORS.get(type(message), 0):
            raise ValueError(f"{type(message).__name__}: cut off, or with {len(descriptors)} descriptors")
        match message:
            case words.Expect():
                self._slots.expect(message.key, descriptors[0])
            case words.Take():
                self._take(message, descriptors[0])
            case words.Release():
                self._release(message.run)
            case words.Forget():
                self._slots.forget(message.key)
            case words.End():
                return False
            case _:
                raise ValueError(f"{type(message).__name__}: only the keeper says that")
        return True

    def _take(self, wanted: words.Take, user_namespace: int) -> None:
        try:
            self._slots.expect(wanted.key, user_namespace)
            slot = self._slots.take(wanted.run, wanted.key, wanted.digest, wanted.endpoints, wanted.caps)
        except _FAILURES as error:
            self._tell(words.Failed(wanted.run, _text(error)))
            return
        self._tell(words.Given(wanted.run, slot.ifindex), [slot.namespace])

    def _release(self, run: str) -> None:
        try:
            used = self._slots.release(run)
        except _FAILURES as error:
            self._tell(words.Failed(run, _text(error)))
            return
        self._tell(used)

    def _tell(self, message: words.ToLauncher, descriptors: list[int] | None = None) -> None:
        socket.send_fds(self._launcher, [words.encode(message)], descriptors or [])


def _text(error: BaseException) -> str:
    return short(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
