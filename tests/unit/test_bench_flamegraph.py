"""What `make flamegraph` reads out of py-spy's raw format."""

import pytest

from tests.bench import flamegraph

RAW = [
    "main (app.py:1);run (plugind/run.py:10) 6",
    "main (app.py:1);run (plugind/run.py:99) 2",
    "main (app.py:1) 2",
    "",
    "a line without a count",
]


def test_own_time_is_that_of_the_innermost_function_whatever_its_line():
    assert flamegraph.self_times(RAW) == [("run (plugind/run.py)", 0.8), ("main (app.py)", 0.2)]


def test_nothing_is_no_time():
    assert flamegraph.self_times([]) == []


@pytest.mark.parametrize(
    "frame, name",
    [
        ("poll (/usr/lib/python3/grpc/aio/x.py:12)", "poll (aio/x.py)"),
        ("poll (grpc/x.so)", "poll (grpc/x.so)"),
        ("poll", "poll"),
    ],
)
def test_a_frame_without_its_line(frame, name):
    assert flamegraph.function_of(frame) == name
