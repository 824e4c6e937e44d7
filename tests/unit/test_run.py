"""The life of a run without a jail: a real catalog and ledger, a sandbox that does what the test says."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import shlex

import pytest

from plugind import batch
from plugind.api.messages import version_message
from plugind.audit import segments
from plugind.errors import ConflictError, IsolationUnavailableError, LauncherGoneError, NotFoundError
from plugind.model import Hold, Outcome, PluginError, Violation
from plugind.provenance.evidence import RoleKeys, Trust, TrustedKey
from plugind.provenance.keys import PrivateKey
from tests.support.desk import PROFILES, Desk, codes, until
from tests.support.fake_launcher import FakeLauncher, forever, result
from tests.support.plugins import CALLER, attested


async def test_a_run_has_its_intent_before_and_its_outcome_after(desk):
    desk.install()

    async def look(request):
        assert [record["event"] for record in desk.events()] == ["INTENT"]
        return result(output=request.input)

    desk.sandbox.behaviour = look
    answer = await desk.run({"a": 1})
    assert (answer.outcome, answer.output_json) == (Outcome.OK, b'{"a": 1}')
    intent, outcome = desk.events()
    assert (intent["event"], outcome["event"], outcome["intent"]) == ("INTENT", "OUTCOME", intent["index"])
    assert answer.governance.audit_log == f"log_{intent['index']}"
    assert dataclasses.asdict(answer.governance).keys() == {
        "plugin_id",
        "tier",
        "permissions",
        "execution_limit_ms",
        "audit_log",
    }


@pytest.mark.parametrize(
    ("behaviour", "outcome"),
    [
        (result(Outcome.FAILED, error=PluginError("ValueError", "no", "")), Outcome.FAILED),
        (result(Outcome.VIOLATION, violations=(Violation("syscall", "bpf", 1, ""),)), Outcome.VIOLATION),
        (result(output=b"{broken"), Outcome.OUTPUT_INVALID),
        (result(output=b'{"a":1,"a":2}'), Outcome.OUTPUT_INVALID),
        (result(output=b"NaN"), Outcome.OUTPUT_INVALID),
        (result(output=b'"text"'), Outcome.OUTPUT_INVALID),
        (result(output=b"3"), Outcome.OK),
    ],
)
async def test_what_came_back_is_believed_only_when_it_fits(desk, behaviour, outcome):
    desk.install(output_schema={"type": "integer"})

    async def give(request):
        return behaviour

    desk.sandbox.behaviour = give
    answer = await desk.run()
    assert answer.outcome is outcome
    assert bool(answer.output_json) is (outcome is Outcome.OK)
    assert desk.events()[-1]["outcome"] == str(outcome)


async def test_denied_with_all_reasons_and_recorded(desk):
    desk.install(stages=("durations",), input_schema={"type": "object"})
    answer = await desk.run("no object", stage="report", sensitivity="restricted")
    assert set(codes(answer)) >= {"STAGE_NOT_ALLOWED", "SENSITIVITY_TOO_HIGH", "INPUT_INVALID"}
    (record,) = desk.events()
    assert record["event"] == "DENIED"
    assert [reason["code"] for reason in record["reasons"]] == codes(answer)
    assert answer.governance.audit_log == f"log_{record['index']}"
    asked, last, _ = desk.runner.denials.last(CALLER)
    assert (asked.stage, codes(last)) == ("report", codes(answer))


async def test_too_large_an_input_is_told_by_its_code(desk):
    desk.install()
    answer = await desk.run("x" * (PROFILES[2].input_bytes + 1))
    assert codes(answer) == ["INPUT_TOO_LARGE"]


async def test_an_unknown_plugin_is_denied_and_recorded(desk):
    assert codes(await desk.run(plugin="nothing")) == ["PLUGIN_NOT_FOUND"]
    assert [record["event"] for record in desk.events()] == ["DENIED"]


async def test_when_the_ledger_cannot_be_written_nothing_starts(desk):
    desk.install()
    (segment,) = segments.segments(desk.folder / "ledger")
    segment.rename(segment.with_name("moved"))
    answer = await desk.run()
    assert codes(answer) == ["AUDIT_UNAVAILABLE"]
    assert desk.sandbox.requests == []
    assert answer.governance.audit_log == ""


async def test_a_result_that_cannot_be_recorded_is_withheld(desk):
    desk.install()

    async def move_the_ledger(request):
        (segment,) = segments.segments(desk.folder / "ledger")
        segment.rename(segment.with_name("moved"))
        return result(output=b"42")

    desk.sandbox.behaviour = move_the_ledger
    answer = await desk.run()
    assert (answer.outcome, answer.output_json) == (Outcome.FAULT, b"")
    assert "withheld" in answer.detail


async def test_a_jail_that_cannot_be_made_denies_after_its_intent(desk):
    desk.install()

    async def fail(request):
        raise IsolationUnavailableError("seccomp", "no such filter")

    desk.sandbox.behaviour = fail
    answer = await desk.run()
    assert codes(answer) == ["ISOLATION_UNAVAILABLE"]
    intent, denied = desk.events()
    assert (intent["event"], denied["event"], denied["intent"]) == ("INTENT", "DENIED", intent["index"])


@pytest.mark.parametrize("error", [LauncherGoneError("gone"), RuntimeError("a mistake of ours")])
async def test_a_fault_of_ours_leaves_no_intent_without_outcome(desk, error):
    desk.install()

    async def fail(request):
        raise error

    desk.sandbox.behaviour = fail
    assert (await desk.run()).outcome is Outcome.FAULT
    assert [record["event"] for record in desk.events()] == ["INTENT", "OUTCOME"]


async def test_a_bundle_that_made_room_for_others_is_handed_over_again(desk):
    desk.install()
    await desk.run()
    desk.sandbox.evict()
    assert (await desk.run()).outcome is Outcome.OK
    assert len(desk.sandbox.loads) == 2
    assert [record["event"] for record in desk.events()] == ["INTENT", "OUTCOME"] * 2


async def test_cancelling_the_caller_ends_the_instance_and_is_recorded(desk):
    desk.install()
    desk.sandbox.behaviour = forever
    task = asyncio.create_task(desk.run(run_id="r1"))
    await until(lambda: desk.sandbox.running)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: len(desk.events()) == 2)
    assert ("r1", "canceled") in desk.sandbox.kills
    assert desk.events()[-1]["outcome"] == "canceled"


async def test_two_runs_of_one_name_are_refused(desk):
    desk.install()
    desk.sandbox.behaviour = forever
    first = asyncio.create_task(desk.run(run_id="same"))
    await until(lambda: desk.sandbox.running)
    with pytest.raises(ConflictError):
        await desk.run(run_id="same")
    desk.runner.flights.end("same", "canceled")
    assert (await first).outcome is Outcome.CANCELED


# --- the kill switch ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["all", "echo", "echo@1.0.0", "digest"])
async def test_a_kill_ends_what_runs_and_denies_what_comes(desk, target):
    version = desk.install()
    desk.sandbox.behaviour = forever
    runs = [asyncio.create_task(desk.run()) for _ in range(3)]
    await until(lambda: desk.sandbox.running == 3)
    killed = await desk.kill(f"sha256:{version.digest}" if target == "digest" else target)
    assert (killed.ended_runs, killed.unconfirmed_runs) == (3, 0)
    assert {(await run).outcome for run in runs} == {Outcome.KILLED}
    assert codes(await desk.run()) == ["KILLED"]
    desk.catalog.holds.lift("killed", killed.hold.target, by_uid=1, at_unix_ms=2, why="over")
    desk.sandbox.behaviour = FakeLauncher().behaviour
    assert (await desk.run()).outcome is Outcome.OK


class Environments:
    """Two environments; what `science` stands for can be built anew."""

    def __init__(self):
        self.science = "ab" * 32

    def in_force(self, name):
        return self.science if name == "science" else ""

    def purls(self, digest):
        return frozenset({"pkg:pypi/numpy", "pkg:pypi/numpy@1.26.4"} if digest == "ab" * 32 else ())


@pytest.fixture
async def laboratory(tmp_path):
    (tmp_path / "plugins").mkdir()
    environments, key = Environments(), PrivateKey.generate()
    made = Desk(tmp_path, environments, Trust({"publisher": RoleKeys((TrustedKey(key.public),), 1)}))
    made.environments, made.key = environments, key.public.keyid

    made.install(environment="science", attestations=lambda data: attested(data, key))
    made.install("other")
    yield made
    await made.ledger.close()
    made.catalog.close()


OF_ONE = {"plan_id": "garden: roof", "plugin": "echo"}
OF_OTHER = {"plan_id": "cellar", "plugin": "other", "caller": dataclasses.replace(CALLER, uid=7)}
TARGETS = ("key:{key}", "pkg:pypi/numpy", "pkg:pypi/numpy@1.26.4", "plan:garden: roof", f"caller:{CALLER.uid}")


@pytest.mark.parametrize("target", TARGETS)
async def test_a_kill_by_what_a_run_is_of_ends_and_denies_that_and_nothing_else(laboratory, target):
    desk, target = laboratory, target.format(key=laboratory.key)
    desk.sandbox.behaviour = forever
    one, other = (asyncio.create_task(desk.run(**fields)) for fields in (OF_ONE, OF_OTHER))
    await until(lambda: desk.sandbox.running == 2)
    assert (await desk.kill(desk.catalog.target(target))).ended_runs == 1
    assert (await one).outcome is Outcome.KILLED
    assert not other.done()
    denied = await desk.run(**OF_ONE)
    assert [(reason.code, reason.rule) for reason in denied.reasons] == [("KILLED", "hold.killed")]
    assert denied.reasons[0].expected == f"no hold on {target}"
    assert denied.reasons[0].remedy == f"plugindctl kill --lift {shlex.quote(target)} --reason TEXT"
    assert (await desk.kill("tier:2")).ended_runs == 1
    assert (await other).outcome is Outcome.KILLED
    desk.sandbox.behaviour = FakeLauncher().behaviour
    desk.catalog.holds.lift("killed", "tier:2", by_uid=1, at_unix_ms=2, why="over")
    assert (await desk.run(**OF_OTHER)).outcome is Outcome.OK
    desk.catalog.holds.lift("killed", target, by_uid=1, at_unix_ms=2, why="over")
    assert (await desk.run(**OF_ONE)).outcome is Outcome.OK


@pytest.mark.parametrize(
    "target", ["plan:another", "caller:2001", "tier:1", "pkg:pypi/numpy@1.26.3", f"key:{'0' * 64}"]
)
async def test_a_kill_of_what_nothing_is_of_is_kept_and_ends_nothing(laboratory, target):
    assert (await laboratory.kill(laboratory.catalog.target(target))).ended_runs == 0
    assert [hold.target for hold in laboratory.catalog.holds.all()] == [target]
    assert (await laboratory.run(**OF_ONE)).outcome is Outcome.OK


async def test_a_package_is_looked_for_in_the_environment_that_a_run_has_and_not_in_what_it_is_by_now(laboratory):
    desk = laboratory
    desk.sandbox.behaviour = forever
    old = asyncio.create_task(desk.run(**OF_ONE))
    await until(lambda: desk.sandbox.running)
    desk.environments.science = "cd" * 32
    new = asyncio.create_task(desk.run(**OF_ONE))
    await until(lambda: desk.sandbox.running == 2)
    assert (await desk.kill("pkg:pypi/numpy")).ended_runs == 1
    assert (await old).outcome is Outcome.KILLED
    assert not new.done()
    await desk.kill("all")
    await new


@pytest.mark.parametrize("target", [*TARGETS, "tier:2"])
@pytest.mark.parametrize("when", ["before its instance starts", "before its result is returned"])
async def test_a_hold_that_comes_between_decision_and_result_is_seen_also_without_a_mark(laboratory, target, when):
    desk = laboratory
    target = desk.catalog.target(target.format(key=desk.key))
    hold = Hold("killed", target, "test", 1, 1)
    load = desk.sandbox.load

    async def kill_then_load(digest, read):
        desk.catalog.holds.announce(hold)
        await load(digest, read)

    async def kill_then_answer(request):
        desk.catalog.holds.announce(hold)
        return result(output=b"42")

    if when == "before its instance starts":
        desk.sandbox.load = kill_then_load
    else:
        desk.sandbox.behaviour = kill_then_answer
    answer = await desk.run(**OF_ONE)
    assert (answer.outcome, answer.output_json) == (Outcome.KILLED, b"")
    assert bool(desk.sandbox.requests) is (when != "before its instance starts")


@pytest.mark.parametrize("target", ["plan:garden: roof", f"caller:{CALLER.uid}", "tier:2"])
async def test_a_suspension_lets_go_on_what_runs_and_nothing_start(laboratory, target):
    desk = laboratory

    async def suspend_then_answer(request):
        desk.catalog.holds.set(Hold("suspended", target, "looking into it", 1, 1))
        return result(output=b"42")

    desk.sandbox.behaviour = suspend_then_answer
    assert (await desk.run(**OF_ONE)).outcome is Outcome.OK
    assert codes(await desk.run(**OF_ONE)) == ["SUSPENDED"]


async def test_the_beginning_of_a_keys_id_will_do_where_there_is_one_such_key(laboratory):
    desk, whole = laboratory, f"key:{laboratory.key}"
    assert desk.catalog.target(whole[:12]) == desk.catalog.target(whole) == whole
    with pytest.raises(NotFoundError, match="give all of it"):
        desk.catalog.target("key:" + ("0" * 8 if not desk.key.startswith("0" * 8) else "1" * 8))
    twin = f"{whole[:-1]}{'0' if whole[-1] != '0' else '1'}"
    desk.catalog.holds.set(Hold("suspended", twin, "another key", 1, 1))
    with pytest.raises(ConflictError, match="expected one key, got 2"):
        desk.catalog.target(whole[:12])
    with pytest.raises(NotFoundError):
        desk.catalog.target("nothing")


async def test_what_holds_a_version_is_told_with_it(laboratory):
    desk = laboratory
    for target in ("pkg:pypi/numpy", f"key:{desk.key}", "echo", "plan:p", "tier:2"):
        desk.catalog.holds.set(Hold("suspended", target, "test", 1, 1))
    version = desk.catalog.version("echo", "1.0.0")
    told = version_message(version, desk.catalog)
    assert {hold.target for hold in told.holds} == {"pkg:pypi/numpy", f"key:{desk.key}", "echo"}


async def test_a_kill_leaves_others_alone(desk):
    desk.install()
    desk.install("other")
    desk.sandbox.behaviour = forever
    run = asyncio.create_task(desk.run(plugin="other", run_id="r"))
    await until(lambda: desk.sandbox.running)
    assert (await desk.kill("echo")).ended_runs == 0
    assert not run.done()
    desk.runner.flights.end("r", "canceled")
    await run


@pytest.mark.slow
async def test_of_ten_thousand_racing_starts_none_begins_after_the_kill_has_returned(desk):
    """Whatever began, began before the kill returned."""
    desk.install()
    starts = []

    async def note(request):
        starts.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0)
        return result(output=b"1")

    desk.sandbox.behaviour = note
    racing = [asyncio.create_task(run_until_refused(desk)) for _ in range(50)]
    await until(lambda: len(starts) > 10_000, 100)
    await desk.kill("echo")
    returned = asyncio.get_running_loop().time()
    assert await asyncio.gather(*racing) == [["KILLED"]] * 50
    assert max(starts) <= returned


async def run_until_refused(desk):
    """Start again and again; the codes of the first denial that is no BUSY."""
    while True:
        answer = await desk.run()
        if answer.outcome is None and codes(answer) != ["BUSY"]:
            return codes(answer)


async def test_a_result_that_arrives_after_a_kill_is_not_returned(desk):
    desk.install()

    async def kill_then_answer(request):
        desk.catalog.holds.set(Hold("killed", "echo", "test", 1, 1))
        return result(output=b"42")

    desk.sandbox.behaviour = kill_then_answer
    answer = await desk.run()
    assert (answer.outcome, answer.output_json) == (Outcome.KILLED, b"")


async def test_a_suspended_version_is_denied_by_name(desk):
    desk.install()
    desk.catalog.holds.set(Hold("suspended", "echo@1.0.0", "looking into it", 1, 1))
    assert codes(await desk.run()) == ["SUSPENDED"]


async def test_stopping_denies_what_comes_and_ends_what_runs(desk):
    desk.install()
    desk.sandbox.behaviour = forever
    run = asyncio.create_task(desk.run())
    await until(lambda: desk.sandbox.running)
    assert await desk.runner.stop(2)
    assert (await run).outcome is Outcome.KILLED
    assert codes(await desk.run()) == ["BUSY"]


async def test_what_is_refused_of_a_map_is_kept_nowhere(desk):
    desk.install(input_schema={"type": "integer"})
    items = (b'"a secret text"', b"1")
    await desk.run(input=batch.encode(items), items=items, mode="map")
    intent, outcome = desk.events()
    assert (intent["event"], outcome["outcome"]) == ("INTENT", "ok")
    assert desk.sandbox.requests[0].input == batch.encode(items, {0})
    assert intent["input_sha256"] == hashlib.sha256(batch.encode(items, {0})).hexdigest()
    (pack,) = (desk.folder / "ledger/payloads").iterdir()
    assert b"secret" not in pack.read_bytes()


async def test_a_map_of_which_all_is_refused_is_denied_with_what_it_was(desk):
    desk.install(input_schema={"type": "integer"})
    items = (b'"text"', b"{")
    answer = await desk.run(input=batch.encode(items), items=items, mode="map")
    assert codes(answer) == ["INPUT_INVALID"] * 2
    (denied,) = desk.events()
    assert (denied["event"], denied["input_sha256"]) == ("DENIED", hashlib.sha256(batch.encode(items)).hexdigest())
