"""The real Audit service on a real socket, over a real ledger and plans in memory."""

from __future__ import annotations

import asyncio
import socket
import threading

import grpc

from plugind.api.accept import Callers, Door
from plugind.api.audit import AuditService
from plugind_proto.v1 import audit_pb2_grpc
from tests.support.plan_runs import Plans


class Refusals:
    """Keeps what it is told."""

    def __init__(self):
        self.told = []

    async def refused(self, caller, call, role):
        self.told.append((caller.uid, call, str(role)))


class AuditDaemon:
    """In a thread with an event loop of its own. `fill` puts into the ledger what a test wants there."""

    def __init__(self, folder, admission, fill):
        self.folder, self.admission, self.fill = folder, admission, fill
        self.state = folder / "state"
        self.socket = str(folder / "d.sock")
        self.refusals = Refusals()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.do(self.begin())

    def do(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(20)

    async def begin(self):
        self.plans = Plans(self.state, segment_bytes=3000)
        self.ledger, self.directory = self.plans.ledger, self.plans.directory
        await self.fill(self)
        callers = Callers()
        backend = str(self.folder / "grpc.sock")
        self.server = grpc.aio.server()
        service = AuditService(callers, self.refusals, self.ledger, self.directory, self.plans.undo)
        audit_pb2_grpc.add_AuditServicer_to_server(service, self.server)
        self.server.add_insecure_port(f"unix:{backend}")
        await self.server.start()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.socket)
        self.listener.listen()
        self.door = Door(self.listener, backend, callers, self.admission, 10)
        self.door.open()

    async def end(self):
        await self.door.close()
        await self.server.stop(0)
        await self.ledger.close()
        await self.door.hang_up()

    def close(self):
        self.do(self.end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()
