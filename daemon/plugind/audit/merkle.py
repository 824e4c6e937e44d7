"""The Merkle tree over the ledger's records: hashing, the frontier that grows it, proofs and their verification. Pure.

Source: RFC 6962, section 2.1; verification as in RFC 9162, sections 2.1.3.2 and 2.1.4.2.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final

EMPTY_ROOT: Final = hashlib.sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    """The hash of a record: its line without the newline."""
    return hashlib.sha256(b"\0" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return hashlib.sha256(b"\1" + left + right).digest()


class Frontier:
    """A tree that only grows: the roots of its perfect subtrees, largest first, are all it takes to go on."""

    def __init__(self, size: int = 0, nodes: Iterable[bytes] = ()) -> None:
        """Raises ValueError when it is not one node for each bit of the size."""
        self.size = size
        self._nodes = list(nodes)
        if size < 0 or len(self._nodes) != size.bit_count() or any(len(node) != 32 for node in self._nodes):
            raise ValueError(f"expected {size.bit_count()} nodes of 32 bytes for size {size}, got {len(self._nodes)}")

    @property
    def nodes(self) -> tuple[bytes, ...]:
        """Roots of the perfect subtrees, largest first."""
        return tuple(self._nodes)

    def append(self, leaf: bytes) -> None:
        """Grow by one leaf hash. O(log n), and O(1) on the average."""
        self._nodes.append(leaf)
        self.size += 1
        complete = self.size
        while complete % 2 == 0:
            right, left = self._nodes.pop(), self._nodes.pop()
            self._nodes.append(node_hash(left, right))
            complete //= 2

    def root(self) -> bytes:
        """The tree's root now."""
        return folded(self._nodes)


def folded(nodes: Sequence[bytes]) -> bytes:
    """The root over a frontier's nodes."""
    if not nodes:
        return EMPTY_ROOT
    *others, root = nodes
    for node in reversed(others):
        root = node_hash(node, root)
    return root


def root_of(leaves: Iterable[bytes]) -> bytes:
    """The root over leaf hashes."""
    frontier = Frontier()
    for leaf in leaves:
        frontier.append(leaf)
    return frontier.root()


def inclusion_proof(index: int, leaves: Sequence[bytes]) -> list[bytes]:
    """That the leaf with this index is in the tree over `leaves`. Source: RFC 6962, PATH. Raises ValueError."""
    if not 0 <= index < len(leaves):
        raise ValueError(f"expected an index below {len(leaves)}, got {index}")
    if len(leaves) == 1:
        return []
    split = _split(len(leaves))
    if index < split:
        return [*inclusion_proof(index, leaves[:split]), root_of(leaves[split:])]
    return [*inclusion_proof(index - split, leaves[split:]), root_of(leaves[:split])]


def consistency_proof(old_size: int, leaves: Sequence[bytes]) -> list[bytes]:
    """That the tree over the first `old_size` leaves is the beginning of this one. Source: RFC 6962, PROOF.

    Raises ValueError.
    """
    if not 0 <= old_size <= len(leaves):
        raise ValueError(f"expected an old size of at most {len(leaves)}, got {old_size}")
    if old_size in {0, len(leaves)}:
        return []
    return _subproof(old_size, leaves, whole=True)


def _subproof(old_size: int, leaves: Sequence[bytes], *, whole: bool) -> list[bytes]:
    if old_size == len(leaves):
        return [] if whole else [root_of(leaves)]
    split = _split(len(leaves))
    if old_size <= split:
        return [*_subproof(old_size, leaves[:split], whole=whole), root_of(leaves[split:])]
    return [*_subproof(old_size - split, leaves[split:], whole=False), root_of(leaves[:split])]


def _split(size: int) -> int:
    """The largest power of two below `size`."""
    return 1 << (size - 1).bit_length() - 1


def inclusion_holds(index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether the proof shows that `leaf` has this index in the tree with this size and root."""
    if not 0 <= index < size:
        return False
    place, last, reached = index, size - 1, leaf
    for node in proof:
        if last == 0:
            return False
        if place % 2 or place == last:
            reached = node_hash(node, reached)
            while place and place % 2 == 0:
                place, last = place >> 1, last >> 1
        else:
            reached = node_hash(reached, node)
        place, last = place >> 1, last >> 1
    return last == 0 and reached == root


def consistency_holds(old_size: int, size: int, old_root: bytes, root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether the proof shows that the tree with the old size and root is the beginning of the other."""
    if not 0 < old_size < size:  # nothing to prove, or nothing that could be proven
        same = (old_size, old_root) == (size, root)
        return not proof and size >= old_size and (same or (old_size == 0 and size > 0 and old_root == EMPTY_ROOT))
    path = [old_root, *proof] if old_size.bit_count() == 1 else list(proof)
    if not path:
        return False
    place, last = old_size - 1, size - 1
    while place % 2:
        place, last = place >> 1, last >> 1
    old = new = path[0]
    for node in path[1:]:
        if last == 0:
            return False
        if place % 2 or place == last:
            old, new = node_hash(node, old), node_hash(node, new)
            while place and place % 2 == 0:
                place, last = place >> 1, last >> 1
        else:
            new = node_hash(new, node)
        place, last = place >> 1, last >> 1
    return last == 0 and old == old_root and new == root
