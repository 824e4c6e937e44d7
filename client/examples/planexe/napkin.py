"""PlanExe's napkin-math Monte Carlo over generated calculations: in this process, call by call in the jail, and by map.

    plan = napkin.read(folder)                         # parameters.json, bounds.json, montecarlo_settings.json
    result = napkin.run_by_map(plan, client, client.load_source(folder / "calculations.py", stage="premortem"))

All three draw the same inputs and give the same figures, bit for bit: the sampling and the summary are the caller's, and a
double goes into the jail and out of it as it is. Standard library only, but for the client.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import math
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import sampling
import summary
from sampling import PlanDataError

from plugind_client import Client, Columns, OutputInvalid, PlugindError, PluginFailed

DEFAULTS = {"n_runs": 10_000, "seed": 12345, "distribution_default": "triangular", "thresholds": {}}
MISSING = math.nan


@dataclass(frozen=True)
class Plan:
    """What one Monte Carlo needs of a plan."""

    summary: Mapping[str, str]
    constants: Mapping[str, Any]
    """Values that are the same in every trial."""
    bounds: Mapping[str, Mapping[str, Any]]
    units: Mapping[str, str]
    """Unit of each calculation, by its name, in the order in which they are made."""
    settings: Mapping[str, Any]

    @property
    def trials(self) -> int:
        return self.settings["n_runs"]

    @cached_property
    def drawn(self) -> dict[str, array[float]]:
        """The inputs that vary, as columns. Drawn once."""
        return sampling.columns(self.bounds, self.settings)


def read(folder: Path, **settings: Any) -> Plan:
    """A plan from PlanExe's files; `settings` go before those of its file. Raises PlanDataError, OSError."""
    parameters, bounds, given = (
        json.loads((folder / name).read_text())
        for name in ("parameters.json", "bounds.json", "montecarlo_settings.json")
    )
    chosen = DEFAULTS | given | settings
    if not isinstance(chosen["n_runs"], int) or chosen["n_runs"] < 1:
        raise PlanDataError(f"montecarlo_settings.json: expected n_runs of at least 1, got {chosen['n_runs']!r}")
    if chosen["distribution_default"] not in sampling.DISTRIBUTIONS:
        expected, got = " or ".join(sampling.DISTRIBUTIONS), chosen["distribution_default"]
        raise PlanDataError(f"montecarlo_settings.json: expected a distribution_default {expected}, got {got!r}")
    wanted = [*parameters["recommended_first_calculations"], *parameters.get("derived_questions", [])]
    units = {each["output_name"]: each["output_unit"] for each in wanted if each["formula_hint"]}
    values = {each["id"]: each["value"] for each in parameters["key_values"] if each["value"] is not None}
    return Plan(
        {key: parameters["plan_summary"][key] for key in ("plan_name", "plan_type")},
        {name: value for name, value in values.items() if name not in bounds and name not in units},
        {name: bound for name, bound in bounds.items() if name not in units},  # what is calculated is not drawn
        units,
        chosen,
    )


# --- in this process, or call by call: the same code ------------------------------------------------------------------


def imported(path: Path) -> ModuleType:
    """What PlanExe does with generated code today: it runs in this process, with all that this process may do."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_in_process(plan: Plan, path: Path) -> dict[str, Any]:
    """montecarlo.json of a plan, without any jail. Never with code that nobody has read."""
    return run_by_call(plan, imported(path))


def run_by_call(plan: Plan, module: ModuleType) -> dict[str, Any]:
    """montecarlo.json of a plan, trial by trial. With a module of `load_source` each call goes into the jail.

    Raises PlugindError for what is no fault of the calculation: a denial, a limit, a daemon that is away.
    """
    work = Work(plan, module)
    steps = [(step, getattr(module, step.name)) for step in work.steps]
    names = list(plan.drawn)
    for trial, drawn in enumerate(zip(*plan.drawn.values(), strict=True)):
        pool = {**plan.constants, **dict(zip(names, drawn, strict=True))}
        for step, function in steps:
            if not all(name in pool for name in step.needs):
                continue  # something that it depends on is missing in this trial, and told already
            try:
                value = number(function(**{name: pool[name] for name in step.takes}))
            except Exception as error:
                work.failed(step.name, trial, own(error))
            else:
                if math.isfinite(value):
                    pool[step.name] = work.outputs[step.name][trial] = value
                else:
                    work.failed(step.name, trial, NOT_FINITE)
    return work.result()


# --- by map: all trials of a function at once --------------------------------------------------------------------------


def run_by_map(plan: Plan, client: Client, module: ModuleType) -> dict[str, Any]:
    """montecarlo.json of a plan, in one run for each round of calculations that need nothing of each other.

    Raises PlugindError as run_by_call does.
    """
    work = Work(plan, module)
    for steps in work.rounds():
        called: list[tuple[Step, Sequence[int], Columns]] = []
        for step in steps:
            varying, constant, rows = work.inputs(step)
            if not varying:
                work.same_everywhere(step, getattr(module, step.name), constant)
            elif rows:
                called.append((step, rows, Columns(step.name, {**varying, **constant})))
        if called:
            results = client.map(module, [columns for _, _, columns in called])
            for (step, rows, _), result in zip(called, results, strict=True):
                work.keep(step.name, rows, result)
    return work.result()


# --- what both share ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One calculation: what it takes of all that is known when its turn comes, and what it cannot do without."""

    name: str
    takes: tuple[str, ...]
    needs: tuple[str, ...]


NOT_FINITE = "it gave no finite number"


class Work:
    """The outputs of one Monte Carlo while it is made."""

    def __init__(self, plan: Plan, module: ModuleType) -> None:
        self.plan = plan
        self.outputs = {name: array("d", [MISSING]) * plan.trials for name in plan.units}
        self._warnings: dict[str, dict[str, Any]] = {}
        self.steps: list[Step] = []
        known = {*plan.constants, *plan.drawn}
        for name in plan.units:
            step = self._step(module, name, known)
            if step is not None:
                self.steps.append(step)
                known.add(name)

    def _step(self, module: ModuleType, name: str, known: set[str]) -> Step | None:
        function = getattr(module, name, None)
        if function is None:
            self._warn(name, f"calculations.py has no function {name}")
            return None
        parameters = inspect.signature(function).parameters.values()
        needs = tuple(each.name for each in parameters if each.default is each.empty)
        unknown = [each for each in needs if each not in known]
        if unknown:
            self._warn(
                name, f"{name} needs {', '.join(unknown)}, which no file of the plan and no earlier calculation gives"
            )
            return None
        return Step(name, tuple(each.name for each in parameters if each.name in known), needs)

    def rounds(self) -> Iterator[list[Step]]:
        """The steps, each as soon as what it takes is there."""
        found: dict[str, int] = {}
        for step in self.steps:
            found[step.name] = max((found[name] + 1 for name in step.takes if name in found), default=0)
        for number_of_round in range(max(found.values(), default=-1) + 1):
            yield [step for step in self.steps if found[step.name] == number_of_round]

    def inputs(self, step: Step) -> tuple[dict[str, array[float]], dict[str, Any], Sequence[int]]:
        """Arguments of a step, as columns and constants, and the trials of the columns: all but where one is missing."""
        varying = {name: self._column(name) for name in step.takes if name not in self.plan.constants}
        constant = {name: self.plan.constants[name] for name in step.takes if name in self.plan.constants}
        rows: Sequence[int] = range(self.plan.trials)
        gaps = [column for name, column in varying.items() if name in self.outputs and not finite(column)]
        if gaps:
            rows = [row for row in rows if not any(math.isnan(column[row]) for column in gaps)]
            varying = {name: array("d", [column[row] for row in rows]) for name, column in varying.items()}
        return varying, constant, rows

    def _column(self, name: str) -> array[float]:
        return self.outputs[name] if name in self.outputs else self.plan.drawn[name]

    def same_everywhere(self, step: Step, function: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
        """A step that takes nothing that varies is called once."""
        try:
            value = number(function(**arguments))
        except Exception as error:
            self.failed(step.name, 0, own(error), self.plan.trials)
        else:
            if math.isfinite(value):
                self.outputs[step.name] = array("d", [value]) * self.plan.trials
            else:
                self.failed(step.name, 0, NOT_FINITE, self.plan.trials)

    def keep(self, name: str, rows: Sequence[int], result: Any) -> None:
        """What a map gave for a step: one value for each of `rows`, or an error."""
        for index, error in result.errors.items():
            self.failed(name, rows[index], own(error))
        values = result.values
        if len(rows) == self.plan.trials and isinstance(values, array) and not result.errors and finite(values):
            self.outputs[name] = values
            return
        for index, (row, value) in enumerate(zip(rows, values, strict=True)):
            if index in result.errors:
                continue
            try:
                value = number(value)
            except Exception as error:
                self.failed(name, row, own(error))
                continue
            if math.isfinite(value):
                self.outputs[name][row] = value
            else:
                self.failed(name, row, NOT_FINITE)

    def failed(self, name: str, trial: int, why: str, count: int = 1) -> None:
        """A trial of a calculation came to nothing. Of many the first is told."""
        warning = self._warnings.setdefault(name, {"first": trial, "why": why, "count": 0})
        warning["count"] += count
        if trial < warning["first"]:
            warning |= {"first": trial, "why": why}

    def _warn(self, name: str, message: str) -> None:
        self._warnings[name] = {"message": message}

    def result(self) -> dict[str, Any]:
        """In the shape of montecarlo.json."""
        plan, outputs = self.plan, self.outputs
        return {
            "valid": not any("message" in warning for warning in self._warnings.values()),
            "plan_summary": dict(plan.summary),
            "settings": {key: plan.settings[key] for key in ("n_runs", "seed", "distribution_default")},
            "outputs": {name: summary.distribution(outputs[name], unit) for name, unit in plan.units.items()},
            "thresholds": {
                name: summary.threshold(outputs[name], wanted, name)
                for name, wanted in plan.settings["thresholds"].items()
                if name in outputs
            },
            "sensitivity": {
                step.name: {"top_inputs": summary.top_inputs(outputs[step.name], self._behind(step))}
                for step in self.steps
            },
            "warnings": [
                {"stage": "monte_carlo", "calculation": name, "severity": "WARN", "message": self._told(name, warning)}
                for name, warning in sorted(self._warnings.items())
            ],
        }

    def _told(self, name: str, warning: Mapping[str, Any]) -> str:
        if "message" in warning:
            return warning["message"]
        return f"{warning['count']} of {self.plan.trials} trials gave no {name}; trial {warning['first']}: {warning['why']}"

    def _behind(self, step: Step) -> dict[str, array[float]]:
        """The drawn inputs that a calculation depends on, directly or through others."""
        steps = {each.name: each for each in self.steps}
        found, waiting = set(), [step.name]
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting.extend(steps[name].takes if name in steps else ())
        return {name: column for name, column in self.plan.drawn.items() if name in found}


def number(value: Any) -> float:
    """A result as a double. Raises TypeError for what is no number, OverflowError for an int that is too large."""
    if isinstance(value, int | float):
        return float(value)
    raise TypeError(f"expected a number, got {type(value).__name__}")


def finite(values: array[float]) -> bool:
    """Whether all are: a sum with a NaN or an infinity in it is none itself; one that overflows is looked at again."""
    return math.isfinite(sum(values)) or all(map(math.isfinite, values))


def own(error: Exception) -> str:
    """What a calculation raised, in one line. Raises the error again where it is not the calculation's."""
    if isinstance(error, PluginFailed):
        return f"{error.type}: {error.message}"
    if isinstance(error, OutputInvalid):
        return str(error)
    if isinstance(error, PlugindError):
        raise error
    return f"{type(error).__name__}: {error}"
