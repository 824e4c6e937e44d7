"""Quarantine: by digest, as the kill switch ends things: durable first, then what runs is ended."""

from __future__ import annotations

from plugind.errors import InvalidRequestError
from plugind.governance.killswitch import Killed, KillSwitch
from plugind.model import Hold


class Quarantine:
    """`switch` sets holds of the kind quarantined."""

    def __init__(self, switch: KillSwitch) -> None:
        self._switch = switch

    async def put(self, hold: Hold) -> Killed:
        """Put a version there. What runs of it is ended when this returns.

        Raises InvalidRequestError (not by digest), and what Holds.set raises.
        """
        if hold.kind != "quarantined" or not hold.target.startswith("sha256:"):
            raise InvalidRequestError(f"target: expected the digest of a version, got {hold.target[:80]!r}")
        return await self._switch.kill(hold)
