"""grpc's server, on a socket that nobody but the door can reach."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection

from plugind.api.audit import AuditService
from plugind.api.governance import GovernanceService
from plugind.api.registry import RegistryService
from plugind.api.runtime import RuntimeService
from plugind.model import Profile
from plugind_proto.v1 import (
    audit_pb2,
    audit_pb2_grpc,
    governance_pb2,
    governance_pb2_grpc,
    registry_pb2,
    registry_pb2_grpc,
    runtime_pb2,
    runtime_pb2_grpc,
)

SOCKET_NAME = "grpc.sock"
BUNDLE_BYTES = 40 * 1024 * 1024
"""Room for the largest bundle with its attestations."""
_ENVELOPE_BYTES = 1024 * 1024
_ERRORS_BYTES = 8 * 1024 * 1024
"""Room for what a map's answer tells of inputs and outputs that are none (plugind.batch)."""
_MOST_CALLS = 256
"""Of one connection at a time; further ones wait in the client. Not of all together: whoever had as many open that
never end, of the health's for instance, would keep the kill switch out."""
_SERVICES = (
    runtime_pb2.DESCRIPTOR.services_by_name["Runtime"].full_name,
    registry_pb2.DESCRIPTOR.services_by_name["Registry"].full_name,
    governance_pb2.DESCRIPTOR.services_by_name["Governance"].full_name,
    audit_pb2.DESCRIPTOR.services_by_name["Audit"].full_name,
)


class ApiServer:
    """All services, with health and reflection. `backend` is where the door connects to."""

    def __init__(self, run_directory: Path, profiles: Mapping[int, Profile]) -> None:
        # Through a descriptor: the folder's own path may be longer than a socket's path can be.
        self._directory = os.open(run_directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.backend = f"/proc/self/fd/{self._directory}/{SOCKET_NAME}"
        (run_directory / SOCKET_NAME).unlink(missing_ok=True)
        self._server = grpc.aio.server(options=_options(profiles))
        self._health = HealthServicer()

    async def start(
        self,
        runtime: RuntimeService,
        registry: RegistryService,
        governance: GovernanceService,
        audit: AuditService,
    ) -> None:
        """Begin to answer."""
        runtime_pb2_grpc.add_RuntimeServicer_to_server(runtime, self._server)
        registry_pb2_grpc.add_RegistryServicer_to_server(registry, self._server)
        governance_pb2_grpc.add_GovernanceServicer_to_server(governance, self._server)
        audit_pb2_grpc.add_AuditServicer_to_server(audit, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (*_SERVICES, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        self._server.add_insecure_port(f"unix:{self.backend}")
        await self._server.start()
        for name in ("", *_SERVICES):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def stopping(self) -> None:
        """Tell those who watch the health that no more work is taken."""
        await self._health.enter_graceful_shutdown()

    async def stop(self, grace_s: float) -> None:
        """Let calls in flight end for so long, then cancel them."""
        await self._server.stop(grace_s)
        os.close(self._directory)


def _options(profiles: Mapping[int, Profile]) -> list[tuple[str, int]]:
    # An input that is merely too large for its tier should get its reason, and not grpc's error: twice the room.
    largest_input = 2 * max(profile.input_bytes for profile in profiles.values()) + _ENVELOPE_BYTES
    largest_answer = max(each.ceilings.output_bytes + 2 * each.stdio_bytes for each in profiles.values())
    return [
        ("grpc.max_receive_message_length", max(largest_input, BUNDLE_BYTES)),
        ("grpc.max_send_message_length", largest_answer + _ERRORS_BYTES + _ENVELOPE_BYTES),
        ("grpc.max_concurrent_streams", _MOST_CALLS),
        ("grpc.so_reuseport", 0),
    ]
