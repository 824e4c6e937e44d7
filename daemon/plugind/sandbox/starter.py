"""What a start that was admitted comes to: a group, a jailspec, and the order to the zygote."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace

from plugind.errors import IsolationUnavailableError
from plugind.linux.cgroup import Base, GroupLimits
from plugind.model import Limits, Profile
from plugind.sandbox import channel, codestore, grants, jailspec, protocol, template, uids
from plugind.sandbox.hearing import Hearing
from plugind.sandbox.instances import Instances
from plugind.sandbox.network.networks import Network, Networks
from plugind.sandbox.supervisor import Ahead, Instance
from plugind.sandbox.templates import Templates
from plugind.sandbox.tries import Tries

Build = Callable[[Profile, Limits, str, int], jailspec.JailSpec]


class Starter:
    """Of all templates."""

    def __init__(
        self,
        base: Base,
        templates: Templates,
        code: codestore.CodeStore,
        build: Build,
        tries: Tries,
        instances: Instances,
        hearing: Hearing,
        networks: Networks,
    ) -> None:
        self._base = base
        self._templates = templates
        self._code = code
        self._build = build
        self._tries = tries
        self._instances = instances
        self._hearing = hearing
        self._networks = networks

    def start(
        self, running: template.Template, profile: Profile, message: protocol.Start, descriptors: list[int]
    ) -> None:
        """One more instance.

        Raises IsolationUnavailableError, OSError; ConnectionError where the zygote is gone; InvalidRequestError for
        files that are none.
        """
        with contextlib.ExitStack() as lent:
            network = self._networks.take(message.run) if message.network else None
            if network is not None:
                lent.callback(os.close, network.namespace)
            granted: list[int] = []
            if message.reads:
                *descriptors, packed = descriptors
                granted.append(grants.plan_files(packed, profile.files))
                lent.callback(os.close, granted[0])
            uid = self._templates.free_uid(message.tier, self._instances.uids(message.tier))
            spec = self._spec(profile, message, uid, network)
            instance = self._instance(running.kind, profile, message, uid)
            try:
                if isinstance(message, protocol.Park):
                    instance.ahead, ends = Ahead.make()
                    lent.callback(channel.close, ends)
                    given, stdout, stderr = descriptors
                    descriptors = [given, ends[0], stdout, stderr, ends[1]]
                if message.write_files:
                    host_uid = uids.slice_of(message.tier)[0] + uid
                    instance.folder = grants.OutputFolder.make(message.write_files, message.write_bytes, host_uid)
                    granted.append(instance.folder.mount)
                if network is not None:
                    instance.cut = network.cut
                    granted.append(network.namespace)
                _order(running, message, spec, instance, [*descriptors, *granted])
            except OSError:
                instance.finish(1)
                raise
        self._code.touch(message.digest)
        self._templates.touch(running.kind)
        self._instances.add(instance)
        self._hearing.watch(instance)

    def _spec(self, profile: Profile, message: protocol.Start, uid: int, network: Network | None) -> jailspec.JailSpec:
        limits = message.limits
        # What only a backstop holds counts import and run together, each of which has the whole.
        backstop = replace(limits, cpu_ms=2 * limits.cpu_ms) if isinstance(message, protocol.Park) else limits
        spec = self._build(profile, backstop, message.digest, uid)
        spec = jailspec.with_files(
            spec, reads=bool(message.reads), write_files=message.write_files, write_bytes=message.write_bytes
        )
        return jailspec.with_network(spec, network.hosts) if network is not None else spec

    def _instance(self, kind: template.Kind, profile: Profile, message: protocol.Start, uid: int) -> Instance:
        limits = message.limits
        group = self._base.create(message.run, GroupLimits(limits.memory_bytes, limits.pids, profile.cpu_percent))
        if isinstance(message, protocol.Park) and not group.can_freeze:
            group.remove()
            raise IsolationUnavailableError(protocol.NO_FREEZER, "there is no cgroup.freeze: no unified hierarchy")
        return Instance(message.run, message.digest, kind, limits, uid, group, self._tries.take())


def _order(
    running: template.Template,
    message: protocol.Start,
    spec: jailspec.JailSpec,
    instance: Instance,
    descriptors: Sequence[int],
) -> None:
    """Tell the zygote. Raises OSError."""
    granted = {"plan": bool(message.reads), "output": bool(message.write_files), "network": bool(message.network)}
    fields = {"ahead": isinstance(message, protocol.Park), **granted}
    order = json.dumps({"op": "start", "run": message.run, "steps": spec.wire(), **fields}).encode()
    instance.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        channel.send(running.sock, order, [theirs.fileno(), *descriptors])
