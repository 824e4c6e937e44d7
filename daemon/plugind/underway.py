"""A request on its way through its life: what is known of it so far, and what records and answers say of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from plugind import batch
from plugind.admission import InFlight
from plugind.answers import Governance, Opening, RunAnswer, RunRequest
from plugind.audit.ledger import Ledger
from plugind.audit.records import Ended, Intent, PlanChange, Stored, Subject
from plugind.model import Limits, Outcome, PluginVersion
from plugind.parking import Waiting
from plugind.planfiles import Entry, Written
from plugind.plans.folders import Opened
from plugind.plans.notes import Change
from plugind.policy.facts import Decision
from plugind.sandbox.running import InstanceResult
from plugind.session import Conversation


@dataclass(slots=True)
class Underway:
    """One of them."""

    request: RunRequest
    flight: InFlight
    stored_input: Stored
    conversation: Conversation | None = None
    """Of a session."""
    waiting: Waiting | None = None
    """The instance that has waited for it."""
    record: PluginVersion | None = None
    decision: Decision | None = None
    environment: str = ""
    """Digest of the environment's files."""
    tier: int = -1
    plan: Opened = field(default_factory=Opened)
    """What it has of a plan's files."""
    changes: tuple[PlanChange, ...] = ()
    """What it wrote of them."""
    change: Change | None = None
    """The same on its way into the plan's folder."""
    sent: tuple[Entry, ...] = ()
    """The same on its way back to the caller."""
    opened: tuple[Opening, ...] = ()

    def subject(self) -> Subject:
        """Who wanted what, for the ledger."""
        request, found = self.request, self.record
        return Subject(
            run=self.flight.run_id,
            caller_uid=request.caller.uid,
            plugin_id=found.plugin_id if found else "",
            plugin=found.manifest.name if found else request.plugin,
            version=found.manifest.version if found else request.version,
            digest=found.digest if found else "",
            tier=self.tier,
            stage=request.stage,
            plan_id=request.plan_id,
            sensitivity=request.sensitivity,
            input=self.stored_input,
            mode=request.mode,
            environment=self.environment,
        )

    def intent(self, permissions: tuple[str, ...], limits: Limits) -> Intent:
        """That it is about to start, with what the policy only warned of."""
        assert self.decision is not None  # noqa: S101 - it was allowed
        told = self.decision.warnings, self.decision.dry_run
        return Intent(self.subject(), permissions, limits, *told, self.plan.plan_dir, self.plan.files)

    def answer(self, governance: Governance, **fields: object) -> RunAnswer:
        """The answer, with what every answer has."""
        version = self.record.manifest.version if self.record else self.request.version
        return replace(RunAnswer(self.flight.run_id, version, governance), **fields)  # type: ignore[arg-type]

    def ended(self, ledger: Ledger, intent: int, result: InstanceResult, items: Sequence[batch.Answer]) -> Ended:
        """How it ended, with its payloads on their way to the disk."""
        talk = self.conversation
        output = bytes(talk.transcript) if talk else result.output_json or b""
        changes = self.changes if result.outcome is Outcome.OK else ()
        return Ended(
            intent=intent,
            subject=self.subject(),
            outcome=str(result.outcome),
            detail=result.detail,
            output=ledger.keep(output),
            stdout=ledger.keep(result.stdout),
            stderr=ledger.keep(result.stderr),
            usage=result.usage,
            violations=result.violations,
            items=talk.answered if talk else len(items),
            items_failed=talk.failed if talk else sum(isinstance(item, batch.ItemError) for item in items),
            imported=self.waiting.intent if self.waiting else -1,
            beside=result.beside,
            network=result.network,
            plan_dir=self.plan.plan_dir if changes else "",
            files=changes,
        )

    def written(self) -> tuple[Written, ...]:
        """What it wrote, for the answer."""
        return tuple(
            Written(each.path, each.content.sha256, each.content.bytes, each.replaced.sha256, each.replaced.bytes)
            for each in self.changes
        )

    def governance(self, index: int | None) -> Governance:
        """Of a denial: what it was about, and where that is written down."""
        return Governance(
            plugin_id=self.flight.plugin_id,
            tier=f"Tier {self.tier}" if self.tier >= 0 else "",
            audit_log="" if index is None else f"log_{index}",
        )
