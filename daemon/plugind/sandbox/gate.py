"""What the launcher demands of a start, whatever the front has decided. Nothing of it is believed.

The front is the one that decides; it may have been taken over. Then these are the bounds of what it can start.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from plugind.errors import InvalidRequestError, IsolationUnavailableError
from plugind.model import Profile
from plugind.sandbox import channel, codestore, grants, jailspec, protocol
from plugind.sandbox.instances import Instances
from plugind.sandbox.latch import Latch
from plugind.sandbox.queue import StartQueue

MOST_PEERS: Final = 64
_HOST: Final = re.compile(r"[a-z0-9.:-]{1,253}")


class Gate:
    """Everything here raises InvalidRequestError for what no front in its right mind asks for.

    And IsolationUnavailableError for what it may ask for, and cannot have now.
    """

    def __init__(
        self,
        profiles: Mapping[int, Profile],
        builtin: frozenset[str],
        latch: Latch,
        code: codestore.CodeStore,
        instances: Instances,
    ) -> None:
        self._profiles = profiles
        self._builtin = builtin
        self._latch = latch
        self._code = code
        self._instances = instances

    def admit(self, message: protocol.Start, descriptors: Sequence[int]) -> Profile:
        """Whether an instance may be started now; its tier's profile."""
        profile = self._profiles.get(message.tier)
        if profile is None:
            raise InvalidRequestError(f"tier: expected 0, 1 or 2, got {message.tier}")
        if message.run in self._instances:
            raise InvalidRequestError(f"run {message.run} is there already")
        if message.tier == 0 and message.digest not in self._builtin:
            raise InvalidRequestError(f"tier 0: {message.digest} is not in the root-owned list of built-in plugins")
        self.check_latch(message.digest, message.tier)
        self._check_files(message, profile)
        session = isinstance(message, protocol.Open)
        for name, value, ceiling in jailspec.above_ceiling(message.limits, profile, session=session):
            raise InvalidRequestError(f"{name}: expected 1 to {ceiling} in tier {message.tier}, got {value}")
        if message.digest not in self._code:
            raise IsolationUnavailableError(protocol.NOT_LOADED, f"digest {message.digest} was not loaded")
        self._check_place(message, profile)
        files_bytes = grants.most_packed_bytes(profile.files) if message.reads else -1
        channel.check_descriptors(descriptors, session=session, files_bytes=files_bytes)
        return profile

    def admit_use(self, tier: int, digest: str, message: protocol.Use, descriptors: Sequence[int]) -> None:
        """Whether the run of one that is parked may begin now."""
        self.check_latch(digest, tier)
        most = self._profiles[tier].ceilings.wall_ms
        if not 0 < message.wall_ms <= most:
            raise InvalidRequestError(f"wall_ms: expected 1 to {most} in tier {tier}, got {message.wall_ms}")
        channel.check_descriptors(descriptors)
        self._check_running(self._profiles[tier])

    def _check_files(self, message: protocol.Start, profile: Profile) -> None:
        """Whether it may have files of a plan, and so much. Which files these are is seen when they are unpacked."""
        wanted = (message.reads, message.write_files, message.write_bytes)
        if wanted == (0, 0, 0):
            return
        if isinstance(message, protocol.Park):
            raise InvalidRequestError("files: expected none of what imports ahead, got some")
        ceilings = (min(1, profile.files.read_files), profile.files.write_files, profile.files.write_bytes)
        for name, value, most in zip(("reads", "write_files", "write_bytes"), wanted, ceilings, strict=True):
            if not 0 <= value <= most:
                raise InvalidRequestError(f"{name}: expected 0 to {most} in tier {profile.tier}, got {value}")
        if bool(message.write_files) != bool(message.write_bytes):
            raise InvalidRequestError(f"write_files, write_bytes: expected both or neither, got {wanted[1:]}")

    def check_network(self, message: protocol.Start) -> None:
        """Whether somebody in his right mind may ask for such a network. Which addresses it comes to is seen later."""
        profile = self._profiles.get(message.tier)
        if profile is None or not profile.network_bytes_per_second:
            raise InvalidRequestError(f"network: expected none in tier {message.tier}, got some")
        if isinstance(message, protocol.Park):
            raise InvalidRequestError("network: expected none of what imports ahead, got some")
        if len(message.network) > MOST_PEERS:
            raise InvalidRequestError(f"network: expected at most {MOST_PEERS} peers, got {len(message.network)}")
        for wanted in message.network:
            if not 0 < wanted.port < 2**16:
                raise InvalidRequestError(f"network: port: expected 1 to 65535, got {wanted.port}")
            if not _HOST.fullmatch(wanted.host):
                raise InvalidRequestError(f"network: expected a name or an address, got {wanted.host!r:.80}")

    def admit_waiting(self, message: protocol.Start, waiting: StartQueue) -> None:
        """Whether a start may wait for its turn beside those that wait already."""
        profile = self._profiles[message.tier]
        ahead = isinstance(message, protocol.Park)
        self._check_place(message, profile, waiting.count(profile.tier, ahead=ahead))

    def check_latch(self, digest: str, tier: int) -> None:
        """What root has latched does not start."""
        if reason := self._latch.reason(digest, tier):
            raise IsolationUnavailableError(protocol.KILLED, reason)

    def _check_place(self, message: protocol.Start, profile: Profile, waiting: int = 0) -> None:
        # Runs and imports ahead do not take each other's places: the front counts them apart too.
        if isinstance(message, protocol.Park):
            self._check_parking(profile, waiting)
        else:
            self._check_running(profile, waiting)

    def _check_running(self, profile: Profile, waiting: int = 0) -> None:
        tier, most = profile.tier, profile.instances
        alive = waiting + self._instances.serving(tier)
        # The front may know of an end before we do: it asks the kernel. So as many again may be on their way out.
        if alive >= most or alive + self._instances.serving(tier, dying=True) >= 2 * most:
            raise InvalidRequestError(f"tier {tier} has its {most} instances")

    def _check_parking(self, profile: Profile, waiting: int) -> None:
        # Twice as many: those that gave way may be on their way out.
        if waiting + self._instances.ahead(profile.tier) >= 2 * profile.parked:
            raise InvalidRequestError(f"tier {profile.tier} has its {profile.parked} parked instances")
