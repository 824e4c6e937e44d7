"""FakeClient and AsyncFakeClient: the clients without a daemon, for unit tests of programs that run plugins.

    from plugind_client.testing import FakeClient

    fake = FakeClient({"cost_breakdown": lambda payload: {"total": sum(payload)}})
    fake.answers("wage_lookup", Denied("BUSY"), {"wage": 31})     # the first run is denied, all later ones are answered
    fake.denies("risk_score", "NOT_APPROVED")
    fake.ends("monte_carlo", "timeout")
    total = compute_costs(fake)                                   # your code, which takes a Client
    assert fake.calls[0].method == "run" and fake.calls[0].arguments["stage"] == "durations"

It has all methods of the real client with the same signatures, the same records and the same errors: it is made of the
same calls, and only what answers them is in memory. What is not there: a jail, signatures (everything is Tier 2),
schemas and a policy beyond states, stages and holds; a drill finds nothing wrong, and `audit.restore` undoes nothing
(InvalidRequest). `submit`, `approve`, `kill`, the audit and all else work on a registry in memory; `audit.tail` ends
with the newest record instead of waiting for more.
`load_source` hands its code in and runs none of it: `fake.answers(module.__name__, answer)` says what a call
{"function": …, "arguments": …} gives. In `calls` a session that was opened is a call "session", and each of its inputs,
also by a module, a "session.call".

A fake belongs to one process: what a forked child calls is not seen in its parent. It imports no gRPC, but for `audit`.
"""

from __future__ import annotations

import copy
import functools
import inspect
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from plugind_client.calls import Calls
from plugind_client.errors import BY_OUTCOME, DENIALS, Denied, InvalidRequest, NotFound, Unavailable
from plugind_client.memory.answers import Answers
from plugind_client.memory.batches import AsyncMemoryStream, MemoryStream
from plugind_client.memory.daemon import Daemon
from plugind_client.method import Call
from plugind_client.modules import AwaitsModules, LoadsModules
from plugind_client.records import Reason
from plugind_proto.v1 import monitor_pb2, runtime_pb2

if TYPE_CHECKING:
    # For a type checker a fake is a client, so that it can be handed to what wants one. While running it is none:
    # that would load gRPC.
    from plugind_client.aio import AsyncClient
    from plugind_client.audit import Audit
    from plugind_client.client import Client
else:
    Client, AsyncClient = LoadsModules, AwaitsModules

__all__ = ["AsyncFakeClient", "FakeCall", "FakeClient"]

Result = TypeVar("Result")
VERSION: Final = "1.0.0"
"""Of a plugin that a test answers for and names no version of."""
_OF_SESSION: Final = ("plugin", "version", "stage", "plan_id", "plan_dir", "sensitivity", "timeout_ms")
_METHODS: Final = {getattr(Calls, name): name for name in dir(Calls) if not name.startswith("_")}
"""Names of the client's methods, by the functions that make their calls."""


@dataclass(frozen=True, slots=True)
class FakeCall:
    """One call that reached the fake: the client's method, and all its arguments by name, defaults included."""

    method: str
    arguments: dict[str, Any]


class Scripted:
    """What both fakes have beside the client's methods: what a test says beforehand, and asks afterwards."""

    def __init__(self, answers: Mapping[str, object] | None = None) -> None:
        """`answers`: as many `fake.answers(name, answer)`."""
        vars(self)["socket"] = "in memory"  # an attribute of the real clients that no subclass may set
        self.calls: Final[list[FakeCall]] = []
        self._daemon = Daemon()
        self._away = ""
        self._ended = False
        for name, answer in (answers or {}).items():
            self.answers(name, answer)

    def answers(self, plugin: str, *answers: object) -> None:
        """Lets a plugin answer; it is then approved and active. Several answers: one each run, the last ever after.

        `plugin` is a name or NAME@VERSION. An answer is a function of the payload (or of payload and context, as a
        plugin's own: see `permits`), an exception (then the plugin
        raises it; one of this client's errors instead ends the run, or fails the call, so), or a JSON value. The
        payload is what JSON makes of it, as in the jail: tuples are lists. Each payload of `map`, each row of `Columns`
        and each call of a session takes an answer as a run does; SessionOver ends a session before that call.
        """
        if not answers:
            raise TypeError("expected at least one answer")
        name, _, version = plugin.partition("@")
        with self._daemon.lock:
            self._daemon.registry.install(name, version or VERSION)
            self._daemon.runs.answers[name, version or VERSION] = Answers(answers)

    def permits(self, plugin: str, *, read: Sequence[str] = (), write: Sequence[str] = ()) -> None:
        """Approves patterns for files of a plan, such as "wbs_*.json", in the place of those before.

        An answer of two arguments, as a plugin's own run(payload, context), then finds what it may read in real files
        at `context.plan_dir`, and what it leaves at `context.output_dir` comes into the plan, all or nothing.
        """
        name, _, version = plugin.partition("@")
        with self._daemon.lock:
            self._daemon.registry.permit(name, version, {"file_read": read, "file_write": write})

    def denies(self, plugin: str, *codes: str) -> None:
        """Lets every run of a plugin be denied, for all of these reason codes."""
        unknown = [code for code in codes if code not in DENIALS]
        if unknown or not codes:
            raise ValueError(f"expected reason codes of SPEC.md, got {unknown or 'nothing'}")
        reasons = tuple(Reason(code, "test", actual="the test denies it") for code in codes)
        self.answers(plugin, Denied(codes[0], reasons=reasons))

    def ends(self, plugin: str, outcome: str, detail: str = "") -> None:
        """Lets every run of a plugin end with an outcome of SPEC.md, such as timeout or out_of_memory."""
        if outcome not in BY_OUTCOME:
            raise ValueError(f"expected one of {', '.join(BY_OUTCOME)}, got {outcome!r}")
        self.answers(plugin, BY_OUTCOME[outcome](outcome, detail=detail))

    def goes_away(self, code: str = "UNAVAILABLE") -> None:
        """Lets every call raise Unavailable, as without a daemon; `code` may also be NO_ANSWER."""
        self._away = code

    def comes_back(self) -> None:
        """Lets calls be answered again."""
        self._away = ""

    def _answered(self, build: Callable[[], Call[Result]]) -> Result:
        made = build()
        self._admit(*_named(build, made))
        try:
            given = self._daemon.answer(made.method, made.request)
        except NotFound as error:
            return made.missing(error)
        return made.read(given)

    def _drilled(self, request: monitor_pb2.DrillRequest) -> Iterator[monitor_pb2.DrillStep]:
        self._admit("drill", {"reason": request.reason})
        steps: Iterator[monitor_pb2.DrillStep] = self._daemon.answer("governance.Drill", request)
        return steps

    def _opened(self, request: runtime_pb2.SessionOpen) -> MemoryStream:
        run = request.run
        told = {name: getattr(run, name) or None for name in _OF_SESSION} | {"idle_ms": request.idle_ms or None}
        self._admit("session", told)

        def seen(text: bytes) -> None:
            self._admit("session.call", {"plugin": run.plugin, "payload": json.loads(text)})

        return MemoryStream(self._daemon.runs, request, seen)

    def _admit(self, method: str, arguments: dict[str, Any]) -> None:
        if self._ended:
            raise InvalidRequest("INVALID_REQUEST", detail=f"this {type(self).__name__} is closed")
        self.calls.append(FakeCall(method, copy.deepcopy(arguments)))
        if self._away:
            raise Unavailable(self._away, detail="the test took the daemon away")


class FakeClient(Scripted, Client):
    """A Client that needs no daemon."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Later calls raise InvalidRequest."""
        self._close_pools()
        self._ended = True

    @property
    def audit(self) -> Audit:
        """The audit's own calls, over the ledger in memory. Loads gRPC."""
        from plugind_client.audit import Audit  # noqa: PLC0415 - see the docstring

        return Audit(lambda: _AuditConnection(self._audited))  # type: ignore[arg-type,return-value]

    def _audited(self, method: str, request: Any) -> Any:
        self._admit(f"audit.{method.lower()}", {field.name: value for field, value in request.ListFields()})
        return self._daemon.answer(f"audit.{method}", request)

    def answer(self, build: Callable[[], Call[Result]]) -> Result:
        """The answer to the call that `build` makes."""
        return self._answered(build)

    def _stream(self, request: runtime_pb2.SessionRequest) -> MemoryStream:
        return self._opened(request.open)

    def _drilling(self, request: monitor_pb2.DrillRequest) -> Iterator[monitor_pb2.DrillStep]:
        yield from self._drilled(request)


class AsyncFakeClient(Scripted, AsyncClient):
    """An AsyncClient that needs no daemon. Its answers are functions as FakeClient's, not coroutines."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Later calls raise InvalidRequest."""
        await self._close_pools()
        self._ended = True

    async def answer(self, build: Callable[[], Call[Result]]) -> Result:
        """The answer to the call that `build` makes."""
        return self._answered(build)

    def _stream(self, request: runtime_pb2.SessionRequest) -> AsyncMemoryStream:
        return AsyncMemoryStream(self._opened(request.open))

    async def _drilling(self, request: monitor_pb2.DrillRequest) -> AsyncIterator[monitor_pb2.DrillStep]:
        for step in self._drilled(request):
            yield step


def _named(build: Callable[[], Call[Any]], made: Call[Any]) -> tuple[str, dict[str, Any]]:
    """The client's method and its arguments. A method is a function that makes a call, with its arguments."""
    if not isinstance(build, functools.partial):
        return made.method, {}
    bound = inspect.signature(build.func).bind(*build.args, **build.keywords)
    bound.apply_defaults()
    return _METHODS.get(build.func, build.func.__name__), {**bound.arguments, **(made.used_up or {})}


# --- a connection's stub of the audit service ------------------------------------------------------------------------


class _AuditConnection:
    def __init__(self, answer: Callable[[str, Any], Any]) -> None:
        self.audit = self
        self._answer = answer

    def __getattr__(self, method: str) -> _AuditMethod:
        return _AuditMethod(functools.partial(self._answer, method))


class _AuditMethod:
    """A unary call by `future`, a streaming one by calling it, as gRPC's stubs have them."""

    def __init__(self, answer: Callable[[Any], Any]) -> None:
        self._answer = answer

    def future(self, request: Any, timeout: float | None = None) -> _Given:
        del timeout  # nothing here takes long
        return _Given(self._answer(request))

    def __call__(self, request: Any) -> _Given:
        return _Given(self._answer(request))


class _Given:
    """What a call gives: a result, or the messages of a stream."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def result(self) -> Any:
        return self._answer

    def __iter__(self) -> Iterator[Any]:
        return iter(self._answer)

    def cancel(self) -> None:
        """There is nothing to stop."""
