"""May generated code run although nobody has looked at it? Pure: what is known in, why not out.

Source: SPEC.md, section "Policy": `[synthesized] run_unapproved_tier2`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from plugind.model import POLICY_UID, Manifest, PluginVersion

_NO_PYTHON: Final = "it is a program, and only Python source is looked at"
_MOST_IMPORTS: Final = 20
"""Named in a reason; the others are counted."""


def objection(record: PluginVersion, versions: Iterable[PluginVersion], decisions: Iterable[int]) -> str:
    """Why this version waits for a person; empty: it need not.

    `versions` are all of the plugin, `decisions` who made each change to it but for handing in (a uid, or POLICY_UID).
    """
    versions = list(versions)
    newest = max((each.sequence for each in versions if each.state == "active"), default=0)
    against = (
        (record.state in ("active", "revoked"), f"it is {record.state}"),
        (bool(record.manifest.permissions), "it asks for permissions"),
        (record.manifest.runtime != "python", _NO_PYTHON),
        # Or anybody could put generated code in the place of what people wrote and looked at.
        (any(each.manifest.origin != "synthesized" for each in versions), "the plugin is not generated throughout"),
        # Whoever approves, rejects, rolls back or holds it has taken the plugin over.
        (any(uid != POLICY_UID for uid in decisions), "a person has decided about the plugin"),
        (newest > record.sequence, "a later version is active"),
    )
    return next((why for holds, why in against if holds), "")


def objection_to_caller(
    manifest: Manifest, versions: Iterable[PluginVersion], decisions: Iterable[int], by_uid: int, attested: bool
) -> str:
    """Why a caller without the operator's role may not hand this in; empty: it may.

    `versions` and `decisions`: of the plugin that has this name already. What is let through runs at once
    (`objection`), so it must not come into the way of what others have handed in or decided.
    """
    versions = list(versions)
    against = (
        (manifest.origin != "synthesized", f'its origin is "{manifest.origin}"'),
        (bool(manifest.permissions), "it asks for permissions"),
        (manifest.runtime != "python", _NO_PYTHON),
        (attested, "it has attestations or keys"),
        (any(each.manifest.origin != "synthesized" for each in versions), "the plugin is not generated throughout"),
        (
            any(each.submitted_by_uid != by_uid for each in versions),
            "somebody else has handed in a plugin of this name",
        ),
        (any(uid != POLICY_UID for uid in decisions), "a person has decided about the plugin"),
    )
    return next((why for holds, why in against if holds), "")


def reason(imports: tuple[str, ...]) -> str:
    """What history and audit say of it: which rule, what was checked, what the code imports."""
    shown = ", ".join(imports[:_MOST_IMPORTS]) or "nothing"
    more = f" and {len(imports) - _MOST_IMPORTS} more" if len(imports) > _MOST_IMPORTS else ""
    rule = "by the rule synthesized.run_unapproved_tier2: asks for no permission, static check passed"
    return f"{rule}; imports {shown}{more}"
