"""A keeper and a resolver in memory: what they are asked is kept, and they say what a test has them say."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plugind.addresses import Endpoint
from plugind.errors import IsolationUnavailableError
from plugind.sandbox.network.resolver import Answer
from plugind.sandbox.network.words import Caps, Failed, Given, Used


class _Process:
    """One end of a socket that is readable when there is something in `words`; an empty word is its end."""

    def __init__(self) -> None:
        self.sock, self._theirs = socket.socketpair()
        self.sock.setblocking(False)
        self._words: list[Any] = []
        self.ended = False
        self.error: OSError | None = None

    def say(self, word: object) -> None:
        """Have `receive` give this."""
        self._words.append(word)
        self._theirs.send(b"!")

    def die(self) -> None:
        """Have `receive` find that it is gone."""
        self._theirs.close()

    def receive(self) -> Any:
        """What `say` was told."""
        try:
            if not self.sock.recv(1):
                raise EOFError
        except BlockingIOError:
            return None
        return self._words.pop(0)

    def end(self, patience_s: float = 0) -> None:
        """It is over."""
        self.ended = True
        self.sock.close()
        self._theirs.close()


class FakeResolver(_Process):
    """`asked` holds what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, tuple[str, ...]]] = []

    def ask(self, token: str, names: Sequence[str]) -> None:
        """Keep it."""
        if self.error:
            raise self.error
        self.asked.append((token, tuple(names)))

    def answer(self, token: str, **addresses: Sequence[str]) -> None:
        """Answer with these addresses: `_` in a name stands for a dot."""
        self.say(Answer(token, {name.replace("_", "."): tuple(found) for name, found in addresses.items()}, {}))

    def fail(self, token: str, name: str, why: str) -> None:
        """Answer that there is no answer."""
        self.say(Answer(token, {}, {name: why}))


class FakeKeeper(_Process):
    """`calls` holds what it was asked, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[object, ...]] = []

    def take(
        self, run: str, key: str, user_namespace: int, digest: str, endpoints: Sequence[Endpoint], caps: Caps
    ) -> None:
        """Keep it."""
        if self.error:
            raise self.error
        assert str(Path(f"/proc/self/fd/{user_namespace}").readlink()).startswith("user:[")
        self.calls.append(("take", run, key, digest, tuple(endpoints), caps))

    def release(self, run: str) -> None:
        """Keep it."""
        if self.error:
            raise self.error
        self.calls.append(("release", run))

    def forget(self, key: str) -> None:
        """Keep it."""
        self.calls.append(("forget", key))

    def cut(self, ifindex: int) -> None:
        """Keep it."""
        self.calls.append(("cut", ifindex))

    def give(self, run: str, ifindex: int = 7) -> None:
        """Give a namespace: some descriptor."""
        self.say(Given(run, ifindex, os.open("/proc/self/ns/net", os.O_RDONLY)))

    def fail(self, run: str, detail: str) -> None:
        """It could not."""
        self.say(Failed(run, detail))

    def used(self, run: str, sent: int = 0, received: int = 0, connections: int = 0, **more: Any) -> None:
        """Nothing of it is left."""
        self.say(Used(run, sent, received, connections, **({"refused": (), "refused_others": 0} | more)))


class FakeMeans:
    """Each start makes another one; `broken` ones cannot start."""

    def __init__(self) -> None:
        self.keepers: list[FakeKeeper] = []
        self.resolvers: list[FakeResolver] = []
        self.broken: set[str] = set()

    def keeper(self) -> FakeKeeper:
        """One more."""
        if "keeper" in self.broken:
            raise IsolationUnavailableError("network", "no nf_tables")
        self.keepers.append(FakeKeeper())
        return self.keepers[-1]

    def resolver(self) -> FakeResolver:
        """One more."""
        if "resolver" in self.broken:
            raise IsolationUnavailableError("network.names", "no dnspython")
        self.resolvers.append(FakeResolver())
        return self.resolvers[-1]
