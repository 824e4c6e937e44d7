"""What a fuzz target is, and bytes that are cut into parts and sealed as a tar is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

BLOCK = 512
SEPARATOR = b"\xff\xfe\xff"
"""Between the parts of an input: in no text that is UTF-8."""


@dataclass(frozen=True)
class Target:
    """One parser. `check` takes any bytes and returns, or raises: then it is broken, and they are the proof."""

    name: str
    check: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    """Valid examples of our own."""
    words: Sequence[bytes] = ()
    """What a text of that kind consists of, for the fuzzer's dictionary."""
    max_len: int = 4096
    share: int = 10
    """How much of all executions it gets, in relation to the others: less where one takes long."""
    logs: bool = False
    """Whether what is fuzzed writes a line to standard error for everything that it refuses."""


def parts_of(data: bytes, count: int) -> list[bytes]:
    """So many parts, empty ones where there are fewer."""
    parts = data.split(SEPARATOR, count - 1)
    return parts + [b""] * (count - len(parts))


def joined(*parts: bytes) -> bytes:
    """What `parts_of` takes apart."""
    return SEPARATOR.join(parts)


def sealed(data: bytes) -> bytes:
    """A tar with the checksum of each header put right: no fuzzer finds six octal digits."""
    tar = bytearray(data)
    offset = 0
    while offset + BLOCK <= len(tar) and any(tar[offset : offset + BLOCK]):
        header = tar[offset : offset + BLOCK]
        total = sum(header[:148]) + 8 * ord(" ") + sum(header[156:])
        tar[offset + 148 : offset + 156] = b"%06o\0 " % total
        digits = bytes(header[124:135])
        size = int(digits, 8) if digits.isdigit() and not set(digits) & set(b"89") else 0
        offset += BLOCK + size + -size % BLOCK
    return bytes(tar)
