"""libnftables: rulesets and what they counted, without a process for each. Source: libnftables(3)."""

from __future__ import annotations

import ctypes
from typing import Final

_LIBRARY: Final = "libnftables.so.1"
_JSON: Final = 1 << 4
_NUMERIC_PROTOCOLS: Final = 1 << 7


class RulesetError(OSError):
    """What the kernel, or the library, does not take."""


class Nftables:
    """The ruleset of the network namespace in which the caller is. Raises OSError where there is no such library."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(_LIBRARY, use_errno=True)
        self._library.nft_ctx_new.restype = ctypes.c_void_p
        for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
            getattr(self._library, name).restype = ctypes.c_char_p
        self._context = ctypes.c_void_p(self._library.nft_ctx_new(ctypes.c_uint32(0)))
        if self._context.value is None:
            raise RulesetError("libnftables: no context")
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)

    def run(self, commands: str) -> None:
        """All of them, or none: they are one transaction. Raises RulesetError."""
        self._run(commands, 0)

    def listed(self, what: str) -> str:
        """The JSON of one `list` command. Raises RulesetError.

        Only one: the library fetches for several what the last of them needs.
        """
        return self._run(f"list {what}", _JSON | _NUMERIC_PROTOCOLS)

    def _run(self, commands: str, flags: int) -> str:
        self._library.nft_ctx_output_set_flags(self._context, ctypes.c_uint(flags))
        failed = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
        # Read in any case: reading empties the buffers.
        said: bytes = self._library.nft_ctx_get_output_buffer(self._context) or b""
        complaint: bytes = self._library.nft_ctx_get_error_buffer(self._context) or b""
        if failed:
            raise RulesetError(f"nftables: {complaint.decode(errors='replace').strip()[:500]}")
        return said.decode()

    def close(self) -> None:
        """Give back what the library has."""
        if self._context.value is not None:
            self._library.nft_ctx_free(self._context)
            self._context = ctypes.c_void_p()
