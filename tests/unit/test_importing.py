"""What the launcher takes of a zygote's own words, and of what the kernel says of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugind.sandbox import codec, importing, protocol
from plugind.sandbox.words import short

TEXTS = st.text(st.characters(codec="utf-16", exclude_categories=()), max_size=400)


@given(st.dictionaries(TEXTS, TEXTS | st.integers() | st.none(), max_size=40) | st.integers() | st.none())
def test_whatever_could_not_be_imported_fits_into_a_message(failed: object) -> None:
    told = {short(name): short(why) for name, why in importing._texts(failed).items()}
    message = protocol.Imported("a" * 64, 2, 2**31, "f" * 16, "user:[4026531837]", 2**31, told)
    assert codec.decode(codec.encode(message)) == message


@pytest.mark.parametrize("character", ["\x00", "\n", "\\", '"', "\x7f", "é", "\ud800", "😀"])
def test_a_hundred_long_reasons_of_any_character_fit(character: str) -> None:
    failed = {f"{character * 300}{number}": character * 100_000 for number in range(100)}
    told = {short(name): short(why) for name, why in importing._texts(failed).items()}
    assert len(codec.encode(protocol.Imported("", 2, 1, "", "", 1, told))) <= protocol.MAX_MESSAGE_BYTES


@pytest.mark.parametrize("tasks", [1, 3, 100])
def test_more_tasks_or_fewer_are_told(tasks: int) -> None:
    with pytest.raises(ValueError, match=f"left {tasks - 1} processes and threads, and not one"):
        importing.look(os.getpid(), tasks, {}, 1)


def test_a_process_of_our_own_user_namespace_is_no_zygote() -> None:
    own = str(Path("/proc/self/ns/user").readlink()).replace("[", r"\[").replace("]", r"\]")
    with pytest.raises(ValueError, match=f"the zygote has uid {os.geteuid()} in {own}, expected another"):
        importing.look(os.getpid(), importing.PROCESSES, {}, 1)


def test_one_that_is_gone_is_an_error_of_the_system() -> None:
    with pytest.raises(OSError, match="No such file"):
        importing.look(2**22 + 1, importing.PROCESSES, {}, 1)
