"""The pure parts of `make bench`: percentiles, reading what the kernel says, the table."""

import pytest

from tests.bench import figures, table, throughput


@pytest.mark.parametrize(
    "values, percent, expected",
    [
        ([7.0], 99, 7.0),
        ([1.0, 3.0], 50, 2.0),
        ([float(each) for each in range(101)], 99, 99.0),
        ([3.0, 1.0, 2.0], 50, 2.0),
    ],
)
def test_percentile(values, percent, expected):
    assert figures.percentile(values, percent) == pytest.approx(expected)


def test_a_percentile_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="at least one value"):
        figures.percentile([], 50)


def test_the_proportional_set_size_is_read():
    text = "00400000-7fff [rollup]\nRss:   20 kB\nPss:               12 kB\nPss_Dirty:   8 kB\n"
    assert figures.pss_bytes(text) == 12 * 1024
    with pytest.raises(ValueError, match="Pss:"):
        figures.pss_bytes("Rss: 20 kB\n")


def turn(rate, bare, times):
    return {
        "times_ms": times,
        "runs_per_s": rate,
        "bare_runs_per_s": bare,
        "failures": 1,
        "failure": "Busy()",
        "cpu_ms": 2.0,
        "caller_cpu_ms": 1.0,
    }


def test_turns_are_joined():
    found = throughput.joined([turn(100.0, 200.0, [1.0, 2.0]), turn(140.0, 200.0, [3.0])])
    assert (found["runs_per_s"], found["of_bare"], found["p50_ms"], found["failures"]) == (120.0, 0.6, 2.0, 2)
    assert "times_ms" not in found


def test_what_could_not_run_is_told_with_its_reason():
    told = list(table.lines({"refused": {"crun": "it is not installed"}, "took_s": 1.0}))
    assert "not in the table: crun: it is not installed" in told


@pytest.mark.parametrize("value, text", [(0.0123, "0.012"), (1.0, "1.00"), (99.99, "99.99"), (123.4, "123")])
def test_as_many_digits_as_say_something(value, text):
    assert table.number(value) == text
