"""What a run did with the files of a plan, as frozen values.

Source of the fields and their meaning: proto/plugind_proto/v1/runtime.proto.
"""

from __future__ import annotations

import builtins
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PlanFile:
    """A file that a run put into its plan, or that came back because files were sent. Digests: sha256 in hex."""

    path: str
    """Within the plan's folder."""
    sha256: str
    bytes: int
    replaced_sha256: str = ""
    """Of the file that was there before; empty: there was none."""
    replaced_bytes: int = 0
    content: builtins.bytes | None = None
    """What is in it, where files were sent; None: it is in the plan's folder."""


@dataclass(frozen=True, slots=True)
class Opening:
    """What a plugin tried to open, in a run that learns."""

    path: str
    """Relative to the plan's folder, or to the output folder; absolute for all else."""
    mode: str
    """ "read" or "write"."""
    place: str
    """ "plan", "output" or "elsewhere", for which there is no permission."""
    found: bool
    """Whether there was such a file."""
