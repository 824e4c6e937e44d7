"""What instances tried and were refused, counted in memory that the notifier writes and the launcher reads.

Shared memory, and not messages: a run that tries nothing costs nothing, and one that tries ten thousand times costs the
launcher one look when it has ended. A place belongs to one instance, by a number that never comes again; places are
given out in turn, so that what is counted late, for one that is gone, meets a stranger's number and is dropped.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from plugind.linux import seccomp_notify
from plugind.linux.seccomp_notify import Call
from plugind.model import ARGUMENT_ENDS, ENDED_THE_RUN, Violation

PLACES: Final = 1024
MOST_KINDS: Final = 30
"""Different calls that a place can tell apart, and one dangerous one more; what is beyond is counted together."""
_HEAD: Final = struct.Struct("<QQ")  # owner, calls that found no entry
_ENTRY: Final = struct.Struct("<IIIIQ")  # number, architecture, key, dangerous, count; a count of 0: no more entries
_PLACE_BYTES: Final = 1024
_LAST: Final = _HEAD.size + MOST_KINDS * _ENTRY.size
_LOOKS: Final = 3
_EMPTY: Final = bytes(_PLACE_BYTES - 8)


@dataclass(frozen=True, slots=True)
class Refusal:
    """One kind of call, how often it was refused, and whether the run ended for it."""

    call: Call
    count: int
    dangerous: bool


class Table:
    """The places. Made by the launcher before it forks the notifier."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, PLACES * _PLACE_BYTES)
        self._next_owner = 0

    def take(self) -> int:
        """A number of its own for a new instance, its place wiped. The launcher's."""
        self._next_owner += 1
        owner = self._next_owner
        start = _start(owner)
        self._memory[start : start + _PLACE_BYTES] = owner.to_bytes(8, "little") + _EMPTY
        return owner

    def count(self, owner: int, call: Call, *, dangerous: bool) -> None:
        """One more of this call. The notifier's."""
        start = _start(owner)
        current, others = _HEAD.unpack_from(self._memory, start)
        if current != owner:
            return  # it has been over for long
        for place in _entries(start):
            number, arch, key, ended_it, count = _ENTRY.unpack_from(self._memory, place)
            if place == start + _LAST and not dangerous:
                break
            if count == 0 or (number, arch, key) == (call.number, call.arch, call.key):
                entry = (call.number, call.arch, call.key, int(dangerous or bool(ended_it)), count + 1)
                _ENTRY.pack_into(self._memory, place, *entry)
                return
        _HEAD.pack_into(self._memory, start, owner, others + 1)

    def of(self, owner: int) -> tuple[list[Refusal], int]:
        """What an instance was refused, and how many calls of further kinds. When every process of it is gone."""
        start = _start(owner)
        if self._memory[start + 8 : start + _PLACE_BYTES] == _EMPTY:
            return [], 0
        found = []
        for place in _entries(start):
            number, arch, key, dangerous, count = _ENTRY.unpack_from(self._memory, place)
            if count:
                found.append(Refusal(Call(number, arch, key), count, bool(dangerous)))
        return found, _HEAD.unpack_from(self._memory, start)[1]

    def so_far(self, owner: int) -> int:
        """How many calls an instance was refused that still runs; -1 while they come too fast to be read.

        The notifier writes a number byte by byte: what is the same at two looks was not caught in the middle.
        """
        for _ in range(_LOOKS):
            found, others = self.of(owner)
            if (found, others) == self.of(owner):
                return sum(each.count for each in found) + others
        return -1

    def close(self) -> None:
        """Give the memory back."""
        self._memory.close()


def violations(refusals: list[Refusal], others: int, rules: seccomp_notify.Rules) -> tuple[Violation, ...]:
    """The same for people: what ended the run first, then by name."""
    ordered = sorted(refusals, key=lambda each: (not each.dangerous, seccomp_notify.name_of(each.call), each.call.key))
    found = [
        Violation("syscall", seccomp_notify.name_of(each.call), each.count, _detail(each, rules)) for each in ordered
    ]
    if others:
        found.append(Violation("syscall", "", others, f"of more than {MOST_KINDS} different kinds; refused"))
    return tuple(found)


def _detail(refusal: Refusal, rules: seccomp_notify.Rules) -> str:
    key = seccomp_notify.key_in_words(refusal.call)
    if refusal.dangerous:
        return f"{key}: {ENDED_THE_RUN}" if key else ENDED_THE_RUN
    return f"{key}{ARGUMENT_ENDS}{rules.word(refusal.call)}" if key else f"refused with {rules.word(refusal.call)}"


def _start(owner: int) -> int:
    return owner % PLACES * _PLACE_BYTES


def _entries(start: int) -> Iterator[int]:
    return iter(range(start + _HEAD.size, start + _LAST + 1, _ENTRY.size))
