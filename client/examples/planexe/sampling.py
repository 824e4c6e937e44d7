"""Draws the inputs of a Monte Carlo as columns, as PlanExe's bounds.json and montecarlo_settings.json describe them.

A bound has low <= base <= high, and says by its `sampling_discipline` what is drawn:

    continuous       triangular, with base as the mode (or uniform: `distribution_default` of the settings)
    fraction         the same, within 0 and 1
    integer          the same, rounded
    fixed            base, every time
    bernoulli_gate   high with `default_pass_probability`, else low (`gate_probabilities` of the settings goes before it)

`non_negative` keeps a draw at or above 0. Every variable has a generator of its own, seeded with the plan's seed and the
variable's name: what one is drawn does not change when another one is added. A column is an array of doubles, because that
is what `Client.map` sends as it lies in memory.
"""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Mapping
from typing import Any

DISCIPLINES = ("continuous", "fraction", "integer", "fixed", "bernoulli_gate")
DISTRIBUTIONS = ("triangular", "uniform")


class PlanDataError(ValueError):
    """A file of the plan is not what this needs; the text says which, what was expected, and what came."""


def columns(bounds: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]) -> dict[str, array[float]]:
    """One column of `n_runs` draws for each bound, by its name. Raises PlanDataError."""
    return {name: column(name, bound, settings) for name, bound in bounds.items()}


def column(name: str, bound: Mapping[str, Any], settings: Mapping[str, Any]) -> array[float]:
    """The draws of one variable. Raises PlanDataError."""
    low, base, high = _corners(name, bound)
    discipline, trials = bound.get("sampling_discipline"), settings["n_runs"]
    if discipline not in DISCIPLINES:
        raise PlanDataError(f"bounds.json: {name}: expected one of {', '.join(DISCIPLINES)}, got {discipline!r}")
    draw = random.Random(f"{settings['seed']}/{name}").random
    if discipline == "fixed":
        drawn = array("d", [base]) * trials
    elif discipline == "bernoulli_gate":
        chance = _probability(name, bound, settings)
        drawn = array("d", [high if draw() < chance else low for _ in range(trials)])
    elif settings["distribution_default"] == "uniform":
        drawn = array("d", [low + (high - low) * draw() for _ in range(trials)])
    else:
        drawn = _triangular(low, base, high, trials, draw)
    if discipline == "integer":
        drawn = array("d", map(round, drawn))
    if discipline == "fraction":
        low, high = max(low, 0.0), min(high, 1.0)
    return _within(drawn, max(low, 0.0) if bound.get("non_negative") else low, high)


def _triangular(low: float, mode: float, high: float, trials: int, draw: Any) -> array[float]:
    """By the inverse of the cumulative distribution, whose two halves are parabolas."""
    span = high - low
    if span == 0:
        return array("d", [low]) * trials
    below = (mode - low) / span  # the probability of a draw below the mode
    rising, falling = math.sqrt(span) * math.sqrt(mode - low), math.sqrt(span) * math.sqrt(high - mode)
    sqrt = math.sqrt
    return array(
        "d",
        [
            low + rising * sqrt(chance) if (chance := draw()) < below else high - falling * sqrt(1.0 - chance)
            for _ in range(trials)
        ],
    )


def _within(drawn: array[float], low: float, high: float) -> array[float]:
    """Clamped; the array itself where nothing has to be."""
    if drawn and (min(drawn) < low or max(drawn) > high):
        return array("d", [min(max(value, low), high) for value in drawn])
    return drawn


def _corners(name: str, bound: Mapping[str, Any]) -> tuple[float, float, float]:
    corners = [bound.get(key) for key in ("low", "base", "high")]
    if all(_is_finite(each) for each in corners):
        low, base, high = map(float, corners)  # type: ignore[arg-type]
        if low <= base <= high and math.isfinite(high - low):
            return low, base, high
    raise PlanDataError(f"bounds.json: {name}: expected finite numbers low <= base <= high, got {corners}")


def _probability(name: str, bound: Mapping[str, Any], settings: Mapping[str, Any]) -> float:
    chance = settings.get("gate_probabilities", {}).get(name, bound.get("default_pass_probability"))
    if not _is_finite(chance) or not 0 <= chance <= 1:
        raise PlanDataError(f"bounds.json: {name}: expected a default_pass_probability from 0 to 1, got {chance!r}")
    return float(chance)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
