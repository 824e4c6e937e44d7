"""What a call is, and how both clients come to have it as a method: one returns its answer, the other is awaited."""

from __future__ import annotations

import functools
import operator
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, ParamSpec, Protocol, TypeVar, overload

from plugind_client.errors import NotFound

if TYPE_CHECKING:
    from plugind_client.channel import Connection  # loads gRPC, which the calls themselves do not need

Result = TypeVar("Result")
Given = ParamSpec("Given")

SHORT_CALL_S: Final = 30.0
"""Deadline of calls that only look something up or change a row."""


def _raised(error: NotFound) -> Any:
    raise error


@dataclass(frozen=True, slots=True)
class Call(Generic[Result]):
    """One call: `method` is "service.Method" of a Connection; `read` turns the answer into a record, or raises."""

    method: str
    request: object
    read: Callable[[Any], Result]
    deadline_s: float | None = SHORT_CALL_S
    missing: Callable[[NotFound], Result] = _raised
    """What it gives when the daemon knows of no such thing."""
    again_s: float = 0.0
    """For how long it is sent again while no daemon can be reached: only what runs once however often it is sent."""
    used_up: Mapping[str, object] | None = None
    """Arguments that making the call has used up, as they were: what an iterator gave."""

    def on(self, connection: Connection) -> Any:
        """The callable of this connection that makes the call."""
        return operator.attrgetter(self.method)(connection)


FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 1.0


def pauses(made: Call[Any]) -> Iterator[float]:
    """Seconds to wait before each time that a call is sent again; ends when it is time to give up."""
    until = time.monotonic() + made.again_s
    pause_s = FIRST_PAUSE_S
    while time.monotonic() + pause_s <= until:
        yield pause_s
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


class Blocking(Protocol):
    """A client whose methods return when the answer is there."""

    def answer(self, build: Callable[[], Call[Result]]) -> Result:
        """The answer to the call that `build` makes."""


class Awaiting(Protocol):
    """A client whose methods are awaited."""

    async def answer(self, build: Callable[[], Call[Result]]) -> Result:
        """The answer to the call that `build` makes."""


class Method(Generic[Given, Result]):
    """A method of both clients, out of the function that makes its call: the same arguments, and its answer."""

    def __init__(self, build: Callable[Given, Call[Result]]) -> None:
        self._build = build

    @overload
    def __get__(self, client: None, owner: object = None) -> Callable[Given, Call[Result]]: ...
    @overload
    def __get__(self, client: Blocking, owner: object = None) -> Callable[Given, Result]: ...
    @overload
    def __get__(self, client: Awaiting, owner: object = None) -> Callable[Given, Coroutine[Any, Any, Result]]: ...
    def __get__(self, client: Any, owner: object = None) -> Callable[Given, Any]:
        """The method of one client; of the class it is the function itself, for its signature and help."""
        if client is None:
            return self._build

        @functools.wraps(self._build)
        def method(*args: Given.args, **kwargs: Given.kwargs) -> Any:
            return client.answer(functools.partial(self._build, *args, **kwargs))

        return method
