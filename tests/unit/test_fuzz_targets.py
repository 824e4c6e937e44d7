"""What `make soak` fuzzes for hours, for a moment: our own examples pass, and so do a few hundred changed ones."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.soak.fuzz.target import SEPARATOR, Target
from tests.soak.fuzz.targets import TARGETS

ALL = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)


@ALL
def test_our_own_examples(target: Target) -> None:
    seeds = target.seeds()
    assert seeds
    assert max(map(len, seeds)) <= 3 * target.max_len
    for seed in seeds:
        target.check(seed)


@pytest.mark.slow
@ALL
@settings(max_examples=40)
@given(data=st.data())
def test_changed_examples(target: Target, data: st.DataObject) -> None:
    """A few bytes of a valid one are replaced, doubled or cut out, or a word of its language is put in."""
    text = bytearray(data.draw(st.sampled_from(target.seeds())))
    words = st.sampled_from([*target.words, SEPARATOR, b"\x00"]) | st.binary(max_size=4)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 8)))
        text[start:end] = data.draw(words | st.just(bytes(text[start:end]) * 3))
    target.check(bytes(text))


@ALL
@settings(max_examples=40)
@given(data=st.binary(max_size=600))
def test_any_bytes(target: Target, data: bytes) -> None:
    target.check(data)
