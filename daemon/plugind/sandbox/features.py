"""What this kernel and machine give, found out by trying where that is possible; what each tier needs of it.

`plugindctl doctor` shows it, the launcher refuses a tier by it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from plugind.model import Profile
from plugind.sandbox import facts, groupfacts
from plugind.sandbox.facts import Feature
from plugind.sandbox.groupfacts import tight
from plugind.sandbox.machine import Machine

__all__ = ["Check", "Feature", "Machine", "checks", "missing", "probe", "tight"]


@dataclass(frozen=True, slots=True)
class Check:
    """A fact and the tiers that need it."""

    feature: Feature
    needed_by: tuple[int, ...]


def probe(machine: Machine | None = None) -> dict[str, Feature]:
    """All facts by name, about this machine or a given one. Changes nothing that outlives it."""
    asked = machine or Machine()
    return {fact.__name__: _found(fact, asked) for fact in (*facts.ALL, *groupfacts.ALL)}


def _found(fact: Callable[[Machine], Feature], machine: Machine) -> Feature:
    """A file that reads as nobody expected is no reason to end: what cannot be found out is not there."""
    try:
        return fact(machine)
    except (OSError, ValueError, IndexError) as error:
        return Feature(fact.__name__, False, f"cannot be found out: {error}", "tell the makers of plugind")


def missing(profile: Profile, features: Mapping[str, Feature]) -> list[str]:
    """What this tier needs and the machine lacks, each with what was found. An unknown name is missing."""
    lacking = []
    for name in profile.requires:
        feature = features.get(name)
        if feature is None:
            lacking.append(f"{name} (no such feature is known)")
        elif feature.ok is not True:
            lacking.append(f"{name} ({feature.found})")
    return lacking


def checks(features: Mapping[str, Feature], profiles: Mapping[int, Profile]) -> list[Check]:
    """All facts, with who needs them. What a profile requires and nobody knows is missing, as for the launcher."""
    required = {name for profile in profiles.values() for name in profile.requires}
    remedy = "take it out of `requires` in the tier's profile, or mend the spelling"
    unknown = [Feature(name, False, "no such feature is known", remedy) for name in sorted(required - features.keys())]
    return [Check(feature, _needed_by(feature.name, profiles)) for feature in (*features.values(), *unknown)]


def _needed_by(name: str, profiles: Mapping[int, Profile]) -> tuple[int, ...]:
    return tuple(tier for tier, profile in sorted(profiles.items()) if name in profile.requires)
