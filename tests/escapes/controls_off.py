"""An attack with its control in place, and with the control switched off: the first has to fail, the second to succeed.

Where several layers stop the same attack, each is switched off alone as well, and the case says which one still holds.
All of it is in namespaces, groups and file systems of the test's own launcher; limits are raised, never taken away.
"""

from __future__ import annotations

import importlib
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest

from plugind.sandbox.running import InstanceResult
from tests.escapes import plugin
from tests.support.jail import Jail, jail
from tests.support.weakened import profiles_of, weakened

MODULES: Final = plugin._modules()
ENTRY: Final = MODULES.pop("dispatch")
IN_PLACE: Final = "nothing is off"
Test = TypeVar("Test", bound=Callable[..., object])
_SHOWN: Final = "rows_shown_by_this_test"
ROOT_INSIDE: Final = ("identity", "user_namespace", "capabilities")
"""Without these three steps an instance stays what its zygote is: root of the template's user namespace."""
NO_NAMESPACE: Final = ("user_namespace", "capabilities")
"""Without them it has its own uid and no capability, but no user namespace of its own, and may make one."""


@dataclass(frozen=True)
class Went:
    """How an attack went in a bare jail."""

    result: InstanceResult

    @property
    def outcome(self) -> str:
        return self.result.outcome.value

    @property
    def value(self) -> Any:
        """What it reported; None where it could not report."""
        return None if self.result.output_json is None else json.loads(self.result.output_json)

    @property
    def tried(self) -> dict[str, int]:
        """System call → how often it was refused."""
        counts: dict[str, int] = {}
        for each in self.result.violations:
            counts[each.name] = counts.get(each.name, 0) + each.count
        return counts

    @property
    def lines(self) -> list[str]:
        return self.result.stdout.decode(errors="replace").splitlines()

    @property
    def peak_mib(self) -> float:
        return self.result.usage.memory_peak_bytes / (1 << 20)

    def __str__(self) -> str:
        result = self.result
        return (
            f"{self.outcome} ({result.detail}) value {result.output_json!r:.800} error {result.error}"
            f" violations {result.violations} stdout {result.stdout[-300:]!r} {result.usage}"
        )


Look = Callable[[Went], bool]


@dataclass(frozen=True)
class Try:
    """The attack once: what is off (weakened() and limits), which layer still holds, how it then has to look."""

    off: str
    looks: Look
    unsafe: Mapping[str, Any] = field(default_factory=dict)
    limits: Mapping[str, int] = field(default_factory=dict)
    profile: Mapping[str, int] = field(default_factory=dict)
    still: str = ""
    """What stops it now; empty where nothing does."""


@dataclass(frozen=True)
class Case:
    """An attack, how it fails, and how it succeeds. `row` is its number in the table, or "+" for one of our own."""

    row: str
    title: str
    attack: str
    tries: tuple[Try, ...]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    tier: int = 2
    limits: Mapping[str, int] = field(default_factory=dict)

    def shown(self) -> list[str]:
        """What is off where it succeeds."""
        return [each.off for each in self.tries if not each.still]


def off(what: str, looks: Look, /, **more: Any) -> Try:
    """Nothing stops it any more. `more`: limits, profile, or what weakened() takes."""
    return _try(what, looks, "", more)


def held(what: str, looks: Look, still: str, /, **more: Any) -> Try:
    """This is off, and something else still holds."""
    return _try(what, looks, still, more)


def in_place(looks: Look, /, **more: Any) -> Try:
    """The jail as it is."""
    return _try(IN_PLACE, looks, "the control", more)


def _try(what: str, looks: Look, still: str, more: dict[str, Any]) -> Try:
    limits, profile = more.pop("limits", {}), more.pop("profile", {})
    return Try(what, looks, more, limits, profile, still)


def killed_for(call: str) -> Look:
    """The run ended for this call, which never returned."""
    return lambda went: (
        went.outcome == "violation"
        and went.tried == {call: 1}
        and not [line for line in went.lines if line.startswith("got ")]
    )


def answers(*wanted: str) -> Look:
    """The one call it made answered one of these."""
    return lambda went: went.value in wanted


def number(went: Went) -> bool:
    """The one call it made succeeded, with a descriptor or another number."""
    return isinstance(went.value, str) and went.value.isdigit()


def reports(look: Callable[[Any], bool]) -> Look:
    """It reported, and this is true of what it reported."""
    return lambda went: went.outcome == "ok" and look(went.value)


def ends(outcome: str, detail: str = "") -> Look:
    """It ended like this, and the detail says so."""
    return lambda went: went.outcome == outcome and detail in went.result.detail


def each_try(cases: tuple[Case, ...]) -> list[Any]:
    """Every try of every case as parameters of one test."""
    return [
        pytest.param(case, each, id=f"{case.row}: {case.title}: {each.off}: {each.still or 'SUCCEEDS'}")
        for case in cases
        for each in case.tries
    ]


def shows(*rows: str, off: str) -> Callable[[Test], Test]:
    """Mark a test that is no Case: the attacks of these rows succeed in it with this off."""

    def mark(test: Test) -> Test:
        setattr(test, _SHOWN, [(row, off) for row in rows])
        return test

    return mark


def shown() -> dict[str, set[str]]:
    """Row → what has to be off for an attack of that row to succeed, over all modules test_controls_off*."""
    found: dict[str, set[str]] = {}
    for path in sorted(Path(__file__).parent.glob("test_controls_off*.py")):
        for value in vars(importlib.import_module(f"tests.escapes.{path.stem}")).values():
            for each in value if isinstance(value, tuple) else ():
                if hasattr(each, "shown"):
                    found.setdefault(each.row, set()).update(each.shown())
            for row, what in getattr(value, _SHOWN, ()):
                found.setdefault(row, set()).add(what)
    return {row: offs for row, offs in found.items() if offs}


async def attack(box: Jail, name: str, arguments: Mapping[str, Any], tier: int = 2, **limits: int) -> Went:
    """Make the attack MODULE.FUNCTION in this jail."""
    payload = {"attack": name, "arguments": dict(arguments)}
    return Went(await box.run(ENTRY, payload, files=MODULES, tier=tier, **limits))


async def assert_goes(case: Case, each: Try) -> None:
    """Make the attack in a jail of its own, and see that it goes as it has to."""
    with tempfile.TemporaryDirectory(prefix="plugind-profiles-") as folder:
        profiles = profiles_of(Path(folder), case.tier, **each.profile)
        async with jail(profiles, weakened(**each.unsafe)) as box:
            limits = {**case.limits, **each.limits}
            went = await attack(box, case.attack, case.arguments, case.tier, **limits)
    assert each.looks(went), f"off: {each.off}; still holds: {each.still or 'nothing'}; it went: {went}"
    # What is taken for a success may not be what a failure looks like as well, nor the other way round.
    mistaken = [other.off for other in case.tries if bool(other.still) != bool(each.still) and other.looks(went)]
    assert not mistaken, f"off: {each.off}; it looks as if this were off: {mistaken}; it went: {went}"
