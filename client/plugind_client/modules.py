"""session, load and load_source of both clients: what lasts longer than a call, over whatever answers the calls.

Without gRPC, so that the fakes in testing.py have them too. Source: SPEC.md, "Client".
"""

from __future__ import annotations

import functools
import os
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from plugind_client import loading, planfiles, running
from plugind_client.calls import Calls
from plugind_client.errors import PluginFailed
from plugind_client.incidents import AwaitsDrills, Drills
from plugind_client.loading import PluginModule, Use
from plugind_client.method import Call
from plugind_client.planfiles import Folder
from plugind_client.pools import IDLE_MS, AsyncPool, Pool
from plugind_client.session import Session, Stream
from plugind_client.source import Source
from plugind_proto.v1 import runtime_pb2

if TYPE_CHECKING:
    from plugind_client.aiosession import AsyncSession, AsyncStream

Result = TypeVar("Result")


class LoadsModules(Calls, Drills):
    """A client whose modules' functions return when the value is there."""

    def answer(self, build: Callable[[], Call[Result]]) -> Result:
        """The answer to the call that `build` makes."""
        raise NotImplementedError

    @functools.cached_property
    def _pools(self) -> weakref.WeakSet[Pool]:
        """Of the modules that somebody still has."""
        return weakref.WeakSet()

    def _close_pools(self) -> None:
        """Ends the idle sessions of all modules well."""
        for pool in list(self._pools):
            pool.close()

    def _stream(self, request: runtime_pb2.SessionRequest) -> Stream:
        """The stream that the message opens."""
        raise NotImplementedError

    def session(
        self,
        plugin: str | PluginModule,
        *,
        version: str | None = None,
        stage: str | None = None,
        plan_id: str | None = None,
        plan_dir: Folder | None = None,
        sensitivity: str | None = None,
        timeout_ms: int | None = None,
        idle_ms: int | None = None,
    ) -> Session:
        """One instance for many inputs, as they come: `with client.session(…) as session: session.call(payload)`.

        `plugin` and all else are as for `map`, but `timeout_ms` lowers the wall limit of each input. `idle_ms`: the
        session ends by itself after so long without an input, and no later than the tier allows.

        Raises:
            InvalidRequest: the arguments do not make a request. All else is raised when it is opened.
        """
        request = running.session_request(
            plugin,
            version=version,
            stage=stage,
            plan_id=plan_id,
            plan_dir=planfiles.folder(plan_dir),
            sensitivity=sensitivity,
            timeout_ms=timeout_ms,
            idle_ms=idle_ms,
        )
        return Session(self._stream, request)

    def load(
        self,
        name: str,
        *,
        version: str | None = None,
        stage: str | None = None,
        plan_id: str | None = None,
        plan_dir: Folder | None = None,
        sensitivity: str | None = None,
        timeout_ms: int | None = None,
    ) -> PluginModule:
        """A plugin with interface "functions" as a module; see PluginModule for what its functions do.

        Without a version it is the one that is active now, and stays that one: its signatures are. Its globals live as
        long as they would in this process while it is called, and are gone when it was not for half a second.

        Raises:
            Denied: it may not run; `reasons` tell all that keeps it.
            Conflict: it has another interface.
            InvalidSource: its functions cannot all be called by name; `detail` tells which and where.
            InvalidRequest, Unavailable: as for `get`.
        """
        use = Use(stage, plan_id, sensitivity, timeout_ms, planfiles.folder(plan_dir))
        loading.require_runnable(self.explain(name, version=version, **use.explained))
        known = self.source(name, version=version)
        return self._module(loading.read(known), known.name, known.version, use)

    def load_source(
        self,
        path_or_text: str | os.PathLike[str],
        *,
        name: str | None = None,
        stage: str | None = None,
        plan_id: str | None = None,
        plan_dir: Folder | None = None,
        sensitivity: str | None = None,
        timeout_ms: int | None = None,
    ) -> PluginModule:
        """Hands in generated code, and gives it as a module whose functions run in the jail.

        `path_or_text` is the source, or its path: a path object, or one line that ends with .py. It is never imported
        here. `name` is the plugin's: without one it is made of the source, so that the same source has the same. Of two
        sources under one name the later retires the earlier. The plugin is for `stage`, or for all without one; what
        else is named is as for `session`. What the functions do, and how long the module's globals live, is told by
        PluginModule: calls share an instance, and with it globals, until none came for half a second.

        Raises:
            InvalidSource: it cannot be made into a plugin; `detail` tells where and why.
            Denied: it may not run; `reasons` tell all that keeps it, above all that nobody has approved it yet.
            OSError: the file cannot be read.
            InvalidRequest, NotAllowed, Conflict, Unavailable: as for `submit`.
        """
        use = Use(stage, plan_id, sensitivity, timeout_ms, planfiles.folder(plan_dir))
        ready = loading.prepared(path_or_text, name, use)
        name, version = ready.made.name, ready.made.version
        if self.submit(ready.made.data).state == "approved":
            self.activate(name, version)
        loading.require_runnable(self.explain(name, version=version, **use.explained))
        return self._module(ready.source, name, version, use)

    def _module(self, source: Source, name: str, version: str, use: Use) -> PluginModule:
        pool = Pool(functools.partial(self.session, name, version=version, idle_ms=IDLE_MS, **use.of_run))
        self._pools.add(pool)

        def run(call: dict[str, Any]) -> Any:
            try:
                return pool.call(call)
            except PluginFailed as error:
                raised = loading.as_raised(error)
                if raised is error:
                    raise
                raise raised from error

        return loading.module_of(source, name, version, use, run)


class AwaitsModules(Calls, AwaitsDrills):
    """A client whose modules' functions are awaited."""

    async def answer(self, build: Callable[[], Call[Result]]) -> Result:
        """The answer to the call that `build` makes."""
        raise NotImplementedError

    @functools.cached_property
    def _pools(self) -> weakref.WeakSet[AsyncPool]:
        """Of the modules that somebody still has."""
        return weakref.WeakSet()

    async def _close_pools(self) -> None:
        """Ends the idle sessions of all modules well."""
        for pool in list(self._pools):
            await pool.close()

    def _stream(self, request: runtime_pb2.SessionRequest) -> AsyncStream:
        """The stream that the message opens."""
        raise NotImplementedError

    def session(
        self,
        plugin: str | PluginModule,
        *,
        version: str | None = None,
        stage: str | None = None,
        plan_id: str | None = None,
        plan_dir: Folder | None = None,
        sensitivity: str | None = None,
        timeout_ms: int | None = None,
        idle_ms: int | None = None,
    ) -> AsyncSession:
        """As Client.session: `async with client.session(…) as session: await session.call(payload)`."""
        from plugind_client.aiosession import AsyncSession  # noqa: PLC0415 - loads asyncio

        request = running.session_request(
            plugin,
            version=version,
            stage=stage,
            plan_id=plan_id,
            plan_dir=planfiles.folder(plan_dir),
            sensitivity=sensitivity,
            timeout_ms=timeout_ms,
            idle_ms=idle_ms,
        )
        return AsyncSession(self._stream, request)

    async def load(
        self,
        name: str,
        *,
        version: str | None = None,
        stage: str | None = None,
        plan_id: str | None = None,
        plan_dir: Folder | None = None,
        sensitivity: str | None = None,
        timeout_ms: int | None = None,
    ) -> PluginModule:
        """As Client.load; the functions are awaited."""
        use = Use(stage, plan_id, sensitivity, timeout_ms, planfiles.folder(plan_dir))
        loading.require_runnable(await self.explain(name, version=version, **use.explained))
        known = await self.source(name, version=version)
        return self._module(loading.read(known), known.name, known.version, use)

    async def load_source(
        self,
        path_or_text: str | os.PathLike[str],
        *,
        name: str | None = None,
        stage: str | None = None,
        plan_id: str | None = None,
        plan_dir: Folder | None = None,
        sensitivity: str | None = None,
        timeout_ms: int | None = None,
    ) -> PluginModule:
        """Hands in generated code, and gives it as a module whose functions run in the jail: their calls are awaited.

        Otherwise as Client.load_source.
        """
        use = Use(stage, plan_id, sensitivity, timeout_ms, planfiles.folder(plan_dir))
        ready = loading.prepared(path_or_text, name, use)
        name, version = ready.made.name, ready.made.version
        if (await self.submit(ready.made.data)).state == "approved":
            await self.activate(name, version)
        loading.require_runnable(await self.explain(name, version=version, **use.explained))
        return self._module(ready.source, name, version, use)

    def _module(self, source: Source, name: str, version: str, use: Use) -> PluginModule:
        pool = AsyncPool(functools.partial(self.session, name, version=version, idle_ms=IDLE_MS, **use.of_run))
        self._pools.add(pool)

        async def run(call: dict[str, Any]) -> Any:
            try:
                return await pool.call(call)
            except PluginFailed as error:
                raised = loading.as_raised(error)
                if raised is error:
                    raise
                raise raised from error

        return loading.module_of(source, name, version, use, run)
