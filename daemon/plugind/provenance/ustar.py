"""The one form of tar that a bundle may have: what `write` makes and nothing else.

USTAR, regular files only, everything that says who and when is zero. `read` refuses each deviation in its own words,
because what another tar reader would make of it is a guess. Source: POSIX.1-2017, pax, "ustar Interchange Format".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from plugind.errors import InvalidBundleError

BLOCK: Final = 512
MAX_NAME: Final = 100
MAX_PREFIX: Final = 155

_ZERO_BLOCK = bytes(BLOCK)
_END = _ZERO_BLOCK * 2
_TYPES = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"5": "a folder",
    b"6": "a fifo",
    b"x": "a pax header",
    b"g": "a global pax header",
    b"L": "a GNU long name",
    b"K": "a GNU long link",
    b"S": "a sparse file",
}


@dataclass(frozen=True, slots=True)
class Member:
    """One regular file. `executable` is all that remains of its mode: 0755 or 0644."""

    name: str
    data: bytes
    executable: bool = False


def write(members: Iterable[Member]) -> bytes:
    """The tar of these members in this order. Raises InvalidBundleError for a name that USTAR cannot hold."""
    parts: list[bytes] = []
    for member in members:
        parts += (
            _header(member.name, len(member.data), member.executable),
            member.data,
            bytes(-len(member.data) % BLOCK),
        )
    return b"".join([*parts, _END])


def read(data: bytes, *, max_members: int, max_member_bytes: int) -> list[Member]:
    """The members of a tar as `write` makes it. Raises InvalidBundleError naming the member."""
    members = list(_members(data, max_members, max_member_bytes))
    if not members:
        raise InvalidBundleError("bundle: expected files, got an empty tar")
    return members


def split(name: str) -> tuple[bytes, bytes]:
    """Prefix and name fields for a path: the shortest prefix. Raises InvalidBundleError when it does not fit."""
    raw = name.encode("ascii")
    if len(raw) <= MAX_NAME:
        return b"", raw
    for place, byte in enumerate(raw):
        if byte == ord("/") and len(raw) - place - 1 <= MAX_NAME:
            if place <= MAX_PREFIX:
                return raw[:place], raw[place + 1 :]
            break
    raise InvalidBundleError(
        f"{name}: expected a path that fits into a USTAR header (100 bytes after a /, 155 before it)"
    )


def _header(name: str, size: int, executable: bool) -> bytes:
    prefix, base = split(name)
    mode = b"0000755" if executable else b"0000644"
    zero = b"0000000\0"
    fields = (
        base.ljust(MAX_NAME, b"\0"),
        mode + b"\0" + zero + zero,
        b"%011o\0" % size,
        b"%011o\0" % 0,
        b" " * 8,
        b"0".ljust(101, b"\0"),
        b"ustar\x0000",
        bytes(32 + 32 + 8 + 8),
        prefix.ljust(MAX_PREFIX, b"\0"),
        bytes(12),
    )
    header = b"".join(fields)
    return header[:148] + b"%06o\0 " % sum(header) + header[156:]


def _members(data: bytes, max_members: int, max_member_bytes: int) -> Iterator[Member]:
    if len(data) % BLOCK:
        raise InvalidBundleError(f"bundle: truncated or padded: expected a multiple of {BLOCK} bytes, got {len(data)}")
    offset = count = 0
    while True:
        header = data[offset : offset + BLOCK]
        if header in (b"", _ZERO_BLOCK):
            _check_end(data, offset)
            return
        count += 1
        if count > max_members:
            raise InvalidBundleError(f"bundle: expected at most {max_members} files, got more")
        member = _member(data, header, offset + BLOCK, max_member_bytes)
        yield member
        offset += BLOCK + len(member.data) + -len(member.data) % BLOCK


def _check_end(data: bytes, offset: int) -> None:
    rest = len(data) - offset
    if rest < len(_END):
        raise InvalidBundleError(
            f"bundle: truncated: expected two blocks of zeros at offset {offset}, got {rest} bytes"
        )
    if data[offset : offset + len(_END)] != _END:
        raise InvalidBundleError(
            f"bundle: expected two blocks of zeros at offset {offset}, got something in the second"
        )
    if rest > len(_END):
        raise InvalidBundleError(
            f"bundle: expected nothing after its end at offset {offset}, got {rest - len(_END)} bytes"
        )


def _member(data: bytes, header: bytes, start: int, max_bytes: int) -> Member:
    name = _name(header, start - BLOCK)
    _check_header(name, header)
    size = _octal(header[124:136], name, "size")
    if size > max_bytes:
        raise InvalidBundleError(f"{name}: expected at most {max_bytes} bytes, got {size}")
    end = start + size
    padded = end + -size % BLOCK
    if padded > len(data):
        raise InvalidBundleError(f"{name}: truncated: expected {size} bytes, got {max(0, len(data) - start)}")
    if any(data[end:padded]):
        raise InvalidBundleError(f"{name}: expected zeros after its content, got something else")
    executable = header[100:108] == b"0000755\0"
    if header != _header(name, size, executable):
        raise InvalidBundleError(f"{name}: expected the header that `plugindctl build` makes, got another")
    return Member(name, data[start:end], executable)


def _check_header(name: str, header: bytes) -> None:
    if header[257:265] != b"ustar\x0000":
        raise InvalidBundleError(f"{name}: expected a USTAR header, got {header[257:265]!a}")
    if header[148:156] != b"%06o\0 " % (sum(header[:148]) + 8 * ord(" ") + sum(header[156:])):
        raise InvalidBundleError(f"{name}: the header's checksum does not match")
    kind = header[156:157]
    if kind != b"0":
        raise InvalidBundleError(f"{name}: expected a regular file, got {_TYPES.get(kind, f'type {kind!a}')}")
    if header[100:108] not in (b"0000644\0", b"0000755\0"):
        raise InvalidBundleError(f"{name}: expected mode 0644 or 0755, got {header[100:108]!a}")
    for label, field in (("uid", header[108:116]), ("gid", header[116:124]), ("mtime", header[136:148])):
        if _octal(field, name, label):
            raise InvalidBundleError(f"{name}: expected {label} 0, got {field!a}")
    if any(header[157:257]) or any(header[265:345]) or any(header[500:]):
        raise InvalidBundleError(f"{name}: expected no link, owner or device in the header, got one")


def _octal(field: bytes, name: str, label: str) -> int:
    digits, end = field[:-1], field[-1:]
    if end != b"\0" or any(byte not in b"01234567" for byte in digits):
        raise InvalidBundleError(f"{name}: {label}: expected {len(digits)} octal digits and a zero, got {field!a}")
    return int(digits, 8)


def _name(header: bytes, offset: int) -> str:
    base, _, base_rest = header[:MAX_NAME].partition(b"\0")
    prefix, _, prefix_rest = header[345:500].partition(b"\0")
    raw = prefix + b"/" + base if prefix else base
    if any(base_rest) or any(prefix_rest) or not base or not all(0x20 <= byte <= 0x7E for byte in raw):
        raise InvalidBundleError(f"bundle: expected a file's name in printable ASCII at offset {offset}, got {raw!a}")
    return raw.decode("ascii")
