"""What a new version asks for beyond what was approved of an earlier one. Pure.

Approved is a tier, stages, permissions and limits. A version that asks for the same or less widens nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from plugind.model import Approval, Manifest, PluginVersion, Tier


def widens(old: PluginVersion, new: PluginVersion) -> list[str]:
    """One sentence for each thing that is wider; empty for equal or narrower.

    Raises ValueError where the old version is not approved: then everything is wider, and nothing can be compared.
    """
    if old.approval is None:
        raise ValueError(f"{old.label}: expected an approved version to compare with, got one that is {old.state}")
    return widened(old.approval, old.manifest, new.manifest, new.tier)


def widened(approved: Approval, old: Manifest, new: Manifest, tier: Tier) -> list[str]:
    """The same, of what was approved for an old manifest and of a new one with the tier that its evidence gives."""
    return [
        *_tier(approved, tier),
        *_stages(approved, new),
        *_permissions(approved, new),
        *_limits(approved, old, new),
    ]


def _tier(approved: Approval, tier: Tier) -> Iterator[str]:
    if tier < approved.tier:
        yield f"tier: Tier {approved.tier} was approved, Tier {tier} is asked for"


def _stages(approved: Approval, new: Manifest) -> Iterator[str]:
    if "*" in approved.stages:
        return
    was = ", ".join(approved.stages) or "no stage"
    for stage in dict.fromkeys(new.stages):
        if stage not in approved.stages:
            yield f"stages: {was} approved, {'every stage' if stage == '*' else stage} added"


def _permissions(approved: Approval, new: Manifest) -> Iterator[str]:
    for permission in sorted(set(new.permissions) - set(approved.permissions)):
        same_kind = [each.entry for each in approved.permissions if each.kind == permission.kind]
        was = f"{permission.kind} {', '.join(same_kind)}" if same_kind else f"no {permission.kind}"
        yield f"permissions: {was} approved, {permission.kind} {permission.entry} added"


def _limits(approved: Approval, old: Manifest, new: Manifest) -> Iterator[str]:
    """Zero is the profile's default, which nobody can compare with a number here: a change to or from it is wider."""
    declared = dict(old.limits.items())
    granted = {name: value or declared[name] for name, value in approved.limits.items()}
    for name, asked in new.limits.items():
        was = granted[name]
        if asked == was or (asked and was and asked < was):
            continue
        yield f"limits.{name}: {was or 'the default'} approved, {asked or 'the default'} asked for"
