"""The Monte Carlo of the PlanExe example: what it draws, what it says of it, and that every way of calling gives the same."""

import inspect
import json
import math
import re
from array import array

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugind_client import Denied, LimitExceeded
from tests.support.napkin_plans import EACH_OF_PLANEXE
from tests.support.planexe_example import DATA, EXAMPLE, Here, module_of, napkin, sampling, summary

SETTINGS = {"n_runs": 10_000, "seed": 1, "distribution_default": "triangular"}


def bound(low=1.0, base=2.0, high=4.0, discipline="continuous", non_negative=False, chance=None):
    return {
        "low": low,
        "base": base,
        "high": high,
        "sampling_discipline": discipline,
        "non_negative": non_negative,
        "default_pass_probability": chance,
    }


# --- sampling --------------------------------------------------------------------------------------------------------

NUMBERS = st.floats(-1e12, 1e12) | st.integers(-1000, 1000) | st.floats(-2, 2)
BOUNDS = st.builds(
    lambda corners, discipline, non_negative: bound(*sorted(corners), discipline, non_negative, 0.25),
    st.tuples(NUMBERS, NUMBERS, NUMBERS),
    st.sampled_from(sampling.DISCIPLINES),
    st.booleans(),
)


@given(BOUNDS, st.sampled_from(sampling.DISTRIBUTIONS), st.integers(0, 2**32))
def test_what_is_drawn_is_within_its_bounds_and_of_its_kind(drawn_from, distribution, seed):
    settings = {"n_runs": 50, "seed": seed, "distribution_default": distribution}
    drawn = sampling.column("x", drawn_from, settings)
    assert (len(drawn), drawn.typecode) == (50, "d")
    low, high, discipline = drawn_from["low"], drawn_from["high"], drawn_from["sampling_discipline"]
    below_zero = drawn_from["non_negative"] or discipline == "fraction"
    if high >= 0 and (discipline != "fraction" or low <= 1):  # else the clamps contradict the bounds
        assert all((max(low, 0) if below_zero else low) <= value <= high for value in drawn)
    if below_zero and high >= 0:
        assert min(drawn) >= 0
    if discipline == "fraction" and low <= 1:
        assert max(drawn) <= 1
    if discipline == "integer":
        assert all(value == round(value) or value in {low, high} for value in drawn)
    if discipline == "fixed":
        assert len(set(drawn)) == 1
    if discipline == "bernoulli_gate" and not drawn_from["non_negative"]:
        assert set(drawn) <= {low, high}
    assert drawn == sampling.column("x", drawn_from, settings)


def test_a_variable_draws_the_same_beside_others_and_another_seed_draws_others():
    alone = sampling.columns({"a": bound()}, SETTINGS)
    beside = sampling.columns({"b": bound(), "a": bound()}, SETTINGS)
    assert alone["a"] == beside["a"] != beside["b"]
    assert sampling.columns({"a": bound()}, {**SETTINGS, "seed": 2})["a"] != alone["a"]


@pytest.mark.parametrize("low,mode,high", [(0, 3, 9), (-5, -5, 2), (1, 4, 4), (1e9, 2e9, 9e9)])
def test_moments_of_the_triangle_are_its_closed_forms(low, mode, high):
    drawn = numpy.array(sampling.column("x", bound(low, mode, high), {**SETTINGS, "n_runs": 100_000}))
    spread = math.sqrt((low**2 + mode**2 + high**2 - low * mode - low * high - mode * high) / 18)
    assert abs(drawn.mean() - (low + mode + high) / 3) < 5 * spread / math.sqrt(len(drawn))
    assert drawn.std() == pytest.approx(spread, rel=0.02)
    below = numpy.count_nonzero(drawn <= mode) / len(drawn)
    assert below == pytest.approx((mode - low) / (high - low), abs=0.01)


def test_uniform_and_gates():
    uniform = numpy.array(sampling.column("x", bound(2, 2, 6), {**SETTINGS, "distribution_default": "uniform"}))
    assert numpy.quantile(uniform, [0.1, 0.5, 0.9]) == pytest.approx([2.4, 4, 5.6], abs=0.1)
    gate = bound(0, 9, 9, "bernoulli_gate", chance=0.3)
    assert sampling.column("x", gate, SETTINGS).count(9.0) == pytest.approx(3000, abs=230)  # five standard deviations
    told = {**SETTINGS, "gate_probabilities": {"x": 1}}
    assert set(sampling.column("x", gate, told)) == {9.0}


@pytest.mark.parametrize(
    "wrong,expected",
    [
        (bound(3, 2, 4), "x: expected finite numbers low <= base <= high, got [3, 2, 4]"),
        (bound(1, None, 4), "got [1, None, 4]"),
        (bound(1, True, 4), "got [1, True, 4]"),
        (bound(-1e308, 0, 1e308), "finite"),
        (bound(1, 2, math.inf), "finite"),
        (bound(discipline="normal"), "got 'normal'"),
        (bound(discipline="bernoulli_gate"), "default_pass_probability from 0 to 1, got None"),
        (bound(discipline="bernoulli_gate", chance=1.5), "got 1.5"),
    ],
)
def test_a_bound_that_is_none_is_an_error(wrong, expected):
    with pytest.raises(sampling.PlanDataError) as raised:
        sampling.column("x", wrong, SETTINGS)
    assert expected in str(raised.value)


@pytest.mark.parametrize("setting", [{"n_runs": 0}, {"n_runs": 2.5}, {"distribution_default": "normal"}])
def test_settings_that_are_none_are_an_error(setting):
    with pytest.raises(sampling.PlanDataError, match=r"^montecarlo_settings\.json: expected"):
        napkin.read(DATA / "napkin", **setting)


# --- summary ---------------------------------------------------------------------------------------------------------

COLUMNS = st.lists(st.floats(-1e6, 1e6) | st.just(math.nan), min_size=1, max_size=60).map(lambda v: array("d", v))


@given(COLUMNS)
def test_a_distribution_is_numpys(column):
    told = summary.distribution(column, "EUR")
    there = numpy.array([value for value in column if not math.isnan(value)])
    assert (told["unit"], told["count"], told["missing_count"]) == ("EUR", len(there), len(column) - len(there))
    if not len(there):
        assert told["mean"] is told["p50"] is told["max"] is None
        return
    expected = {"mean": there.mean(), "std": there.std(), "min": there.min(), "max": there.max()}
    expected |= {f"p{each:02}": numpy.percentile(there, each) for each in (5, 25, 50, 75, 95)}
    for name, value in expected.items():
        assert told[name] == pytest.approx(value, rel=1e-9, abs=1e-6), name


@given(st.lists(st.tuples(st.integers(-99, 99), st.integers(-99, 99) | st.just(math.nan)), min_size=1, max_size=60))
def test_a_correlation_is_numpys(pairs):
    given_, column = (array("d", each) for each in zip(*pairs, strict=True))
    found = summary.correlation(given_, column)
    there = numpy.array([pair for pair in pairs if not math.isnan(pair[1])]).reshape(-1, 2)
    if len(there) < summary.FEWEST_PAIRS or 0 in there.std(axis=0):
        assert found is None
    else:
        assert found == pytest.approx(numpy.corrcoef(there.T)[0, 1], abs=1e-9)


def test_thresholds():
    column = array("d", [1, 2, math.nan, 3])
    counts = {
        operator: summary.threshold(column, {"operator": operator, "value": 2}, "x")["success_count"]
        for operator in summary.OPERATORS
    }
    assert counts == {">": 1, ">=": 2, "<": 1, "<=": 2, "==": 1, "!=": 2}
    nothing = summary.threshold(array("d", [math.nan]), {"operator": ">", "value": 0}, "x")
    assert (nothing["valid_count"], nothing["probability"]) == (0, None)
    with pytest.raises(sampling.PlanDataError, match="x: expected an operator"):
        summary.threshold(column, {"operator": "=>", "value": 0}, "x")


# --- the three ways of calling -----------------------------------------------------------------------------------------


def plan(*names, constants=None, trials=200, **bounds):
    settings = {**napkin.DEFAULTS, "n_runs": trials}
    return napkin.Plan({}, constants or {}, bounds, dict.fromkeys(names, "EUR"), settings)


def both(made, source):
    """What trial by trial gives, which has to be what a map gives."""
    module = module_of(source)
    by_call, by_map = napkin.run_by_call(made, module), napkin.run_by_map(made, Here(), module)
    assert json.dumps(by_call) == json.dumps(by_map)
    return by_map


def test_our_plan_gives_the_same_by_call_and_by_map_and_the_same_again():
    folder = DATA / "napkin"
    client = Here()
    module = client.load_source(folder / "calculations.py")
    found = napkin.run_by_map(napkin.read(folder, n_runs=500), client, module)
    assert found == napkin.run_in_process(napkin.read(folder, n_runs=500), folder / "calculations.py")
    assert client.mapped == [
        ["investment_eur", "fares_per_year_eur"],
        ["budget_surplus_eur", "operating_margin_eur"],
        ["payback_years"],
    ]
    assert found["valid"] is True
    payback = found["outputs"]["payback_years"]
    assert 0 < payback["missing_count"] < 50
    assert payback["count"] == 500 - payback["missing_count"] == found["thresholds"]["payback_years"]["valid_count"]
    assert payback["count"] == found["thresholds"]["operating_margin_eur"]["success_count"]
    (warning,) = found["warnings"]
    assert warning["message"].endswith("ValueError: there is no margin to pay from")
    (driver, *_) = found["sensitivity"]["operating_margin_eur"]["top_inputs"]
    assert driver["id"] == "occupancy_share"


def test_what_is_missing_is_missing_for_all_that_needs_it():
    source = """
def f(x): return 1 / (x - 3) if x != 2 else 1e999
def g(f): return f if f > 0 else None
def h(g, f, y=5): return y if g > 0 and f > 0 else 10**400
"""
    found = both(plan("f", "g", "h", x=bound(1, 3, 5, "integer")), source)
    missing = {name: output["missing_count"] for name, output in found["outputs"].items()}
    assert 0 < missing["f"] < missing["g"] == missing["h"] < 200
    assert found["outputs"]["h"]["mean"] == 5
    why = {each["calculation"]: each["message"].partition(": ")[2] for each in found["warnings"]}
    assert why["f"] in {"ZeroDivisionError: float division by zero", napkin.NOT_FINITE}
    assert why["g"] == "TypeError: expected a number, got NoneType"
    assert set(why) == {"f", "g"}


def test_results_of_other_types_are_numbers_or_missing():
    source = """
def whole(x): return int(x)
def yes(x): return x > 2
def text(x): return str(x)
def large(x): return 10**400
"""
    found = both(plan("whole", "yes", "text", "large", x=bound(1, 2, 4)), source)
    assert {name: output["count"] for name, output in found["outputs"].items()} == {
        "whole": 200,
        "yes": 200,
        "text": 0,
        "large": 0,
    }
    assert found["outputs"]["yes"]["max"] == 1.0


def test_constants_defaults_and_functions_that_take_nothing_that_varies():
    source = """
def scaled(x, factor, shift=1): return x * factor + shift
def constant(factor): return factor / 3
def never(factor): return factor / 0
def nothing(): return 7
def of_constant(constant, x): return constant + x
"""
    made = plan(
        "scaled", "constant", "never", "nothing", "of_constant", constants={"factor": 2}, x=bound(1, 1, 1, "fixed")
    )
    found = both(made, source)
    means = {name: output["mean"] for name, output in found["outputs"].items()}
    assert means.pop("never") is None
    assert means == pytest.approx({"scaled": 3, "constant": 2 / 3, "nothing": 7, "of_constant": 2 / 3 + 1})
    (warning,) = found["warnings"]
    assert warning["message"] == "200 of 200 trials gave no never; trial 0: ZeroDivisionError: division by zero"


def test_what_no_file_gives_is_told_and_stops_nothing_else():
    found = both(
        plan("f", "late", "there", "lost", x=bound()),
        "def f(late): return late\ndef late(x): return x\ndef there(x): return x\n",
    )
    assert found["valid"] is False
    assert [each["message"] for each in found["warnings"]] == [
        "f needs late, which no file of the plan and no earlier calculation gives",
        "calculations.py has no function lost",
    ]
    assert {name: output["count"] for name, output in found["outputs"].items()} == {
        "f": 0,
        "late": 200,
        "there": 200,
        "lost": 0,
    }


@pytest.mark.parametrize("error", [Denied("BUSY"), LimitExceeded("timeout")])
def test_what_is_no_fault_of_a_calculation_is_no_missing_value(error):
    class Broken(Here):
        def map(self, module, payloads, **use):
            (result,) = super().map(module, payloads)
            return [type(result)(result.values, {3: error})]

    def f(x):
        raise error

    module = module_of("def f(x): return x")
    with pytest.raises(type(error)):
        napkin.run_by_map(plan("f", x=bound()), Broken(), module)
    module.f = f
    with pytest.raises(type(error)):
        napkin.run_by_call(plan("f", x=bound()), module)


def test_the_ten_lines_of_the_readme_do_what_it_says(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (EXAMPLE / "README.md").read_text(), re.DOTALL)
    (shown,) = [block for block in blocks if "Columns(" in block]
    path = tmp_path / "calculations.py"
    path.write_text("def f(x, k):\n    return k / x\n\ndef g(y):\n    return -y\n")
    drawn = {"x": array("d", [1, 0, 4]), "y": array("d", [1, 2, 3])}
    known = {"inspect": inspect}
    exec(shown, known)
    known["client"] = client = Here()
    client.load_source = lambda path, stage: named(Here.load_source(client, path))
    found = known["outputs"](path, drawn, {"k": 2})
    assert found["g"] == array("d", [-1, -2, -3])
    assert (found["f"][0], found["f"][2]) == (2.0, 0.5)
    assert math.isnan(found["f"][1])


def named(module):
    """With the list of its functions, as a module of the client has it."""
    module.__all__ = [name for name, value in vars(module).items() if inspect.isfunction(value)]
    return module


# --- what PlanExe published --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder,calculations", EACH_OF_PLANEXE)
def test_the_figures_are_those_that_planexe_published(folder, calculations):
    """Another generator drew PlanExe's trials: they agree as two samples of one distribution do."""
    published = json.loads((folder / "montecarlo.json").read_text())
    found = napkin.run_in_process(napkin.read(folder), calculations)
    assert found["settings"] == published["settings"]
    assert found["plan_summary"] == published["plan_summary"]
    assert (found["valid"], found["warnings"]) == (True, [])
    assert list(found["outputs"]) == list(published["outputs"])
    for name, theirs in published["outputs"].items():
        ours = found["outputs"][name]
        assert list(ours) == list(theirs)
        assert [ours[key] for key in ("unit", "count", "missing_count")] == [theirs["unit"], 10_000, 0]
        noise = theirs["std"] * math.sqrt(2 / 10_000)  # of the difference of two means
        assert abs(ours["mean"] - theirs["mean"]) < 5 * noise
        assert ours["std"] == pytest.approx(theirs["std"], rel=0.04)
        for percentile in ("p05", "p25", "p50", "p75", "p95"):
            assert abs(ours[percentile] - theirs[percentile]) < 10 * noise, (name, percentile)
    assert list(found["thresholds"]) == list(published["thresholds"])
    for name, theirs in published["thresholds"].items():
        ours = found["thresholds"][name]
        assert list(ours) == list(theirs)
        chance = theirs["probability"]
        assert abs(ours["probability"] - chance) <= 5 * math.sqrt(2 * chance * (1 - chance) / 10_000)
    for name, theirs in published["sensitivity"].items():
        ours = found["sensitivity"][name]["top_inputs"]
        assert [each["id"] for each in ours] == [each["id"] for each in theirs["top_inputs"]]
        for one, other in zip(ours, theirs["top_inputs"], strict=True):
            assert one["correlation"] == pytest.approx(other["correlation"], abs=0.05)
