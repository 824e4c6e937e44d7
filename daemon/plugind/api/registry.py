"""plugind.v1.Registry: Submit, List, Get, History, Source."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from plugind.api.accept import Callers
from plugind.api.calls import Refusals, call, plugin_name, version_text
from plugind.api.messages import change_message, plugin_message
from plugind.api.roles import Role
from plugind.catalog import Catalog
from plugind.errors import NotAllowedError
from plugind.model import Caller
from plugind.policy.rules import Policy
from plugind_proto.v1 import registry_pb2, registry_pb2_grpc


class RegistryService(registry_pb2_grpc.RegistryServicer):
    """What plugins there are; and handing in a new one, which by itself lets nothing run but what the policy names."""

    def __init__(self, callers: Callers, refusals: Refusals, catalog: Catalog, policy: Callable[[], Policy]) -> None:
        self.callers = callers
        self.refusals = refusals
        self._catalog = catalog
        self._policy = policy

    @call(Role.CALLER)
    async def Submit(self, request: registry_pb2.SubmitRequest, caller: Caller) -> registry_pb2.SubmitResponse:  # noqa: N802
        """Check a bundle in full and keep it: an operator's any, a caller's generated code that may run at once."""
        policy = self._policy()
        try:
            version = await asyncio.to_thread(
                self._catalog.submit,
                request.bundle,
                request.attestations,
                list(request.development_public_keys),
                by_uid=caller.uid,
                narrower_follows=policy.settings.narrower_updates == "automatic",
                synthesized_runs=policy.synthesized.run_unapproved_tier2,
                generated_only=Role.OPERATOR not in caller.roles,
            )
        except NotAllowedError:
            await self.refusals.refused(caller, "Submit", Role.OPERATOR)
            raise
        return registry_pb2.SubmitResponse(
            plugin_id=version.plugin_id,
            name=version.manifest.name,
            version=version.manifest.version,
            digest=version.digest,
            tier=version.tier,
            state=version.state,
        )

    @call(Role.CALLER)
    async def List(self, request: registry_pb2.ListRequest, caller: Caller) -> registry_pb2.ListResponse:  # noqa: N802
        """All plugins."""
        del request, caller
        return await asyncio.to_thread(self._list)

    def _list(self) -> registry_pb2.ListResponse:
        return registry_pb2.ListResponse(
            plugins=[plugin_message(plugin, self._catalog) for plugin in self._catalog.plugins()]
        )

    @call(Role.CALLER)
    async def Get(self, request: registry_pb2.GetRequest, caller: Caller) -> registry_pb2.Plugin:  # noqa: N802
        """One plugin."""
        del caller
        return await asyncio.to_thread(self._get, plugin_name(request.plugin))

    def _get(self, plugin: str) -> registry_pb2.Plugin:
        return plugin_message(self._catalog.plugin(plugin), self._catalog)

    @call(Role.CALLER)
    async def History(self, request: registry_pb2.HistoryRequest, caller: Caller) -> registry_pb2.HistoryResponse:  # noqa: N802
        """Every change."""
        del caller
        plugin = plugin_name(request.plugin) if request.plugin else ""
        changes = await asyncio.to_thread(self._catalog.history, plugin)
        return registry_pb2.HistoryResponse(changes=[change_message(change) for change in changes])

    @call(Role.CALLER)
    async def Source(self, request: registry_pb2.SourceRequest, caller: Caller) -> registry_pb2.SourceResponse:  # noqa: N802
        """The module of a plugin whose functions can be called."""
        del caller
        plugin, version = plugin_name(request.plugin), version_text(request.version, required=False)
        record, source = await asyncio.to_thread(self._catalog.source, plugin, version)
        return registry_pb2.SourceResponse(
            name=record.manifest.name, version=record.manifest.version, digest=record.digest, source=source
        )
