"""The Merkle tree of RFC 6962: against Certificate Transparency's vectors, pymerkle, and the definition itself."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymerkle import InmemoryTree

from plugind.audit.merkle import (
    EMPTY_ROOT,
    Frontier,
    consistency_holds,
    consistency_proof,
    inclusion_holds,
    inclusion_proof,
    leaf_hash,
    root_of,
)

# Certificate Transparency's own test data: the leaves, and the root after each of them.
VECTORS = [
    ("", "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
    ("00", "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"),
    ("10", "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"),
    ("2021", "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"),
    ("3031", "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4"),
    ("40414243", "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef"),
    ("5051525354555657", "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c"),
    ("606162636465666768696a6b6c6d6e6f", "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"),
]
LEAVES = [leaf_hash(bytes([number])) for number in range(70)]


def defined(leaves):
    """The root, word for word as RFC 6962 defines it."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashlib.sha256(b"\1" + defined(leaves[:split]) + defined(leaves[split:])).digest()


def test_certificate_transparencys_vectors():
    frontier = Frontier()
    assert frontier.root().hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    for data, root in VECTORS:
        frontier.append(leaf_hash(bytes.fromhex(data)))
        assert frontier.root().hex() == root


@given(st.lists(st.binary(max_size=40), max_size=70))
def test_root_is_the_one_of_the_definition_and_of_pymerkle(entries):
    oracle = InmemoryTree(algorithm="sha256")
    frontier = Frontier()
    for entry in entries:
        oracle.append_entry(entry)
        frontier.append(leaf_hash(entry))
    assert frontier.root() == oracle.get_root() == defined([leaf_hash(entry) for entry in entries])
    assert frontier.size == len(entries)


@pytest.mark.parametrize("size", range(66))
def test_a_frontier_goes_on_from_its_nodes(size):
    frontier = Frontier()
    for leaf in LEAVES[:size]:
        frontier.append(leaf)
    again = Frontier(frontier.size, frontier.nodes)
    assert again.root() == frontier.root() == root_of(LEAVES[:size])
    for leaf in LEAVES[size:]:
        again.append(leaf)
    assert again.root() == root_of(LEAVES)


@pytest.mark.parametrize("size,nodes", [(1, []), (0, [EMPTY_ROOT]), (3, [EMPTY_ROOT]), (-1, []), (1, [b"short"])])
def test_a_frontier_has_a_node_for_each_bit_of_its_size(size, nodes):
    with pytest.raises(ValueError, match="expected"):
        Frontier(size, nodes)


def test_rfc_6962s_example_of_proofs():
    # Section 2.1.3, the tree with seven leaves: its nodes by their names there.
    leaves = LEAVES[:7]
    a, b, c, d, e, f, j = leaves
    g, h, i = (root_of(pair) for pair in ([a, b], [c, d], [e, f]))
    k, left = root_of(leaves[:4]), root_of(leaves[4:7])
    assert inclusion_proof(0, leaves) == [b, h, left]
    assert inclusion_proof(3, leaves) == [c, g, left]
    assert inclusion_proof(4, leaves) == [f, j, k]
    assert inclusion_proof(6, leaves) == [i, k]
    assert consistency_proof(3, leaves) == [c, d, g, left]
    assert consistency_proof(4, leaves) == [left]
    assert consistency_proof(6, leaves) == [i, j, k]


def test_every_inclusion_proof_holds_and_for_no_other_leaf_index_or_root():
    for size in range(1, 34):
        leaves, root = LEAVES[:size], root_of(LEAVES[:size])
        for index in range(size):
            proof = inclusion_proof(index, leaves)
            assert inclusion_holds(index, size, leaves[index], proof, root)
            assert not inclusion_holds(index, size, leaf_hash(b"other"), proof, root)
            assert not inclusion_holds(index, size, leaves[index], proof, EMPTY_ROOT)
            assert not inclusion_holds(index, size, leaves[index], [*proof, root], root)
            assert not any(
                inclusion_holds(other, size, leaves[index], proof, root) for other in range(size + 1) if other != index
            )


def test_every_consistency_proof_holds_and_for_no_other_roots():
    for size in range(34):
        leaves, root = LEAVES[:size], root_of(LEAVES[:size])
        for old in range(size + 1):
            old_root, proof = root_of(LEAVES[:old]), consistency_proof(old, leaves)
            assert consistency_holds(old, size, old_root, root, proof)
            assert not consistency_holds(old, size, leaf_hash(b"other"), root, proof)
            assert not consistency_holds(old, size, old_root, root, [*proof, root])
            if 0 < old < size:
                assert not consistency_holds(old, size, old_root, leaf_hash(b"other"), proof)
                assert not consistency_holds(old, size, old_root, root, proof[:-1])


@given(st.data())
def test_a_changed_proof_does_not_hold(data):
    size = data.draw(st.integers(2, len(LEAVES)))
    leaves, root = LEAVES[:size], root_of(LEAVES[:size])
    index = data.draw(st.integers(0, size - 1))
    old = data.draw(st.integers(1, size - 1))
    for proof, holds in (
        (inclusion_proof(index, leaves), lambda p: inclusion_holds(index, size, leaves[index], p, root)),
        (consistency_proof(old, leaves), lambda p: consistency_holds(old, size, root_of(leaves[:old]), root, p)),
    ):
        assert holds(proof)
        place = data.draw(st.integers(0, len(proof) - 1))
        bit = data.draw(st.integers(0, 255))
        node = (int.from_bytes(proof[place]) ^ 1 << bit).to_bytes(32)
        assert not holds([*proof[:place], node, *proof[place + 1 :]])
        assert not holds([*proof[:place], *proof[place + 1 :]])


@pytest.mark.parametrize("make", [lambda: inclusion_proof(3, LEAVES[:3]), lambda: consistency_proof(4, LEAVES[:3])])
def test_there_is_no_proof_of_what_is_not_there(make):
    with pytest.raises(ValueError, match="expected"):
        make()
