"""plugind.v1.Registry: Submit, List, Get."""

from __future__ import annotations

import asyncio

from plugind.api.accept import Door
from plugind.api.calls import call, plugin_name
from plugind.api.messages import plugin_message
from plugind.api.roles import DevRoles, Role
from plugind.catalog import Catalog
from plugind.model import Caller
from plugind_proto.v1 import registry_pb2, registry_pb2_grpc


class RegistryService(registry_pb2_grpc.RegistryServicer):
    """What plugins there are; and handing in a new one, which by itself lets nothing run."""

    def __init__(self, door: Door, roles: DevRoles, catalog: Catalog) -> None:
        self.door = door
        self.roles = roles
        self._catalog = catalog

    @call(Role.OPERATOR)
    async def Submit(self, request: registry_pb2.SubmitRequest, caller: Caller) -> registry_pb2.SubmitResponse:  # noqa: N802
        """Check a bundle in full and keep it."""
        version = await asyncio.to_thread(
            self._catalog.submit,
            request.bundle,
            request.attestations,
            list(request.development_public_keys),
            by_uid=caller.uid,
        )
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
        plugins = await asyncio.to_thread(self._catalog.plugins)
        return registry_pb2.ListResponse(plugins=[plugin_message(plugin) for plugin in plugins])

    @call(Role.CALLER)
    async def Get(self, request: registry_pb2.GetRequest, caller: Caller) -> registry_pb2.Plugin:  # noqa: N802
        """One plugin."""
        del caller
        return plugin_message(await asyncio.to_thread(self._catalog.plugin, plugin_name(request.plugin)))
