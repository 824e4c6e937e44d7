"""The client's parser: what it thinks of a stranger's text is nobody's warning, whichever thread or child asks."""

import ast
import os
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from plugind_client.annotations import schema_of
from plugind_client.loading import original_of
from plugind_client.parsing import parse
from plugind_client.source import read

DUBIOUS = r"'\d'"


@pytest.mark.parametrize(
    "given",
    [
        lambda: parse(DUBIOUS),
        lambda: read(f"x = {DUBIOUS}\ndef f(): ..."),
        lambda: read(f"def f(x: {DUBIOUS!r}): ..."),
        lambda: schema_of(ast.Constant(DUBIOUS), None),
        lambda: original_of("KeyError", DUBIOUS),
    ],
    ids=["text", "source", "annotation", "quoted", "message"],
)
def test_dubious_text_warns_nobody(given):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        given()
    assert seen == []


@pytest.fixture
def hasty():
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.slow
def test_threads_leave_the_filters_as_they_were(hasty):
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(parse, ["x = 1\n" * 100] * 600):
            pass
    assert warnings.filters == before


@pytest.mark.slow
def test_child_that_is_forked_while_another_thread_parses_can_parse():
    stop = threading.Event()

    def busy():
        while not stop.is_set():
            parse("x = 1\n" * 200)

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        for _ in range(20):
            child = os.fork()
            if child == 0:
                parse("x = 1")
                os._exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    finally:
        stop.set()
        thread.join()
