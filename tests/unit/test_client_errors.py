"""The client's errors: fixed sentences without trigger words, all detail in attributes, alive after pickling."""

import copy
import multiprocessing
import pickle
import re
import traceback
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

import plugind_client
from plugind.model import Code, Outcome
from plugind_client import errors
from plugind_client.records import Governance, PluginException, Reason, RunResult, Usage, Violation
from tests.support.sentences import FORBIDDEN

SENTENCES = {**errors.DENIALS, **errors.OUTCOMES, **errors.CALLS, "anything else": errors.UNKNOWN_CODE}
CLASSES = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.PlugindError)]
SPEC = Path(__file__).parents[2] / "daemon/SPEC.md"
NUMBER_WORDS = re.compile(r"\b(zero|one|two|three|four|five|six|seven|eight|nine|ten|dozen|hundred|thousand|million)\b")
DESIGN_DENIALS = """CALLER_NOT_ALLOWED PLUGIN_NOT_FOUND NOT_SIGNED BAD_SIGNATURE THRESHOLD_NOT_MET DIGEST_MISMATCH UNLISTED_FILE
ATTESTATION_EXPIRED KEY_REVOKED BUNDLE_REVOKED SEQUENCE_ROLLBACK TRUST_STALE NOT_APPROVED APPROVAL_EXPIRED
PERMISSION_NOT_APPROVED STAGE_NOT_ALLOWED TIER_NOT_ALLOWED SENSITIVITY_TOO_HIGH LIMIT_ABOVE_CEILING QUARANTINED KILLED
SUSPENDED REVALIDATION_REQUIRED INPUT_INVALID INPUT_TOO_LARGE AUDIT_UNAVAILABLE ISOLATION_UNAVAILABLE BUSY POLICY_ERROR"""


def result(**fields):
    given = {
        "decision": "allow",
        "reasons": (),
        "governance": Governance("plug_1", "Tier 2", ("file_read",), 5000, "log_9"),
        "outcome": "failed",
        "outcome_detail": "raised ZeroDivisionError",
        "output": None,
        "usage": Usage(3, 2, 1),
        "violations": (Violation("syscall", "ptrace", 2, ""),),
        "stdout": "out",
        "stderr": "err",
        "error": PluginException("ZeroDivisionError", "division by zero", "Traceback …"),
        "run_id": "r1",
        "version": "1.0.0",
    }
    return RunResult(**(given | fields))


@pytest.mark.parametrize("code", SENTENCES)
def test_sentence_holds_no_trigger_word_and_no_number(code):
    text = str(errors.PlugindError(code))
    assert text == SENTENCES[code]
    assert [word for word in FORBIDDEN if word in text.lower()] == []
    assert not any(character.isnumeric() for character in text)
    assert not NUMBER_WORDS.search(text.lower())
    assert text.endswith(".")


def test_sentences_tell_codes_apart():
    assert len(set(SENTENCES.values())) == len(SENTENCES)


def test_every_code_of_the_contract_has_a_sentence():
    assert set(DESIGN_DENIALS.split()) == set(errors.DENIALS)
    assert {str(code) for code in Code} <= set(errors.DENIALS)
    assert {str(outcome) for outcome in Outcome} - {"ok"} == set(errors.OUTCOMES) == set(errors.BY_OUTCOME)


@pytest.mark.parametrize(
    "outcome,kind",
    [
        ("failed", errors.PluginFailed),
        ("timeout", errors.LimitExceeded),
        ("cpu_exceeded", errors.LimitExceeded),
        ("out_of_memory", errors.LimitExceeded),
        ("pids_exceeded", errors.LimitExceeded),
        ("output_limit", errors.LimitExceeded),
        ("output_invalid", errors.OutputInvalid),
        ("violation", errors.Violated),
        ("killed", errors.Killed),
        ("canceled", errors.Canceled),
        ("fault", errors.Fault),
        ("unknown", errors.Fault),
        ("something new", errors.Fault),
    ],
)
def test_outcome_becomes_its_error(outcome, kind):
    error = errors.error_of(result(outcome=outcome))
    assert type(error) is kind
    assert (error.code, error.audit_log, error.usage.wall_ms) == (outcome, "log_9", 3)
    assert (error.stdout, error.stderr, error.violations[0].name) == ("out", "err", "ptrace")
    assert error.detail == "raised ZeroDivisionError"


def test_good_end_is_no_error():
    assert errors.error_of(result(outcome="ok")) is None


@pytest.mark.parametrize("decision", ["deny", "", "whatever"])
def test_everything_but_allow_is_a_denial(decision):
    reasons = (Reason("NOT_SIGNED", "gate.a", "x", "y", "z"), Reason("NOT_APPROVED", "gate.b"))
    error = errors.error_of(result(decision=decision, outcome="ok", reasons=reasons))
    assert type(error) is errors.Denied
    assert (error.code, error.reasons, error.audit_log) == ("NOT_SIGNED", reasons, "log_9")
    assert error.detail == "NOT_SIGNED (gate.a): expected x, got y; NOT_APPROVED (gate.b)"
    assert str(error) == "The plugin is not signed."


def test_plugin_failure_carries_the_exception():
    error = errors.error_of(result())
    assert (error.type, error.message, error.traceback) == ("ZeroDivisionError", "division by zero", "Traceback …")
    silent = errors.error_of(result(error=None, outcome_detail="exit code 3"))
    assert (silent.type, silent.message, silent.traceback) == ("", "exit code 3", "")


PERSON = "takes a person: "
RETRYABLE = {
    # code: (whether the same call may pass later although nobody does anything, why)
    "CALLER_NOT_ALLOWED": (False, PERSON + "the policy names other callers"),
    "PLUGIN_NOT_FOUND": (False, PERSON + "somebody has to submit it"),
    "NOT_SIGNED": (False, PERSON + "somebody has to sign it"),
    "BAD_SIGNATURE": (False, PERSON + "somebody has to sign these bytes"),
    "THRESHOLD_NOT_MET": (False, PERSON + "more people have to sign"),
    "DIGEST_MISMATCH": (False, PERSON + "the stored bytes were changed, and stay so"),
    "UNLISTED_FILE": (False, PERSON + "the bundle has to be built again"),
    "ATTESTATION_EXPIRED": (False, PERSON + "somebody has to state it anew"),
    "KEY_REVOKED": (False, PERSON + "another key has to sign"),
    "BUNDLE_REVOKED": (False, "final"),
    "SEQUENCE_ROLLBACK": (False, PERSON + "going back is `rollback`, which somebody decides"),
    "TRUST_STALE": (False, PERSON + "somebody has to bring newer trust data"),
    "NOT_APPROVED": (False, PERSON + "an approver"),
    "APPROVAL_EXPIRED": (False, PERSON + "an approver"),
    "PERMISSION_NOT_APPROVED": (False, PERSON + "an approver"),
    "STAGE_NOT_ALLOWED": (False, PERSON + "an approver, or the policy's author"),
    "TIER_NOT_ALLOWED": (False, PERSON + "the policy's author, or a vetter"),
    "SENSITIVITY_TOO_HIGH": (False, PERSON + "the policy's author"),
    "LIMIT_ABOVE_CEILING": (False, PERSON + "the plugin's author, or who owns the profile"),
    "QUARANTINED": (False, PERSON + "somebody has to release it"),
    "KILLED": (False, PERSON + "somebody has to lift the kill"),
    "SUSPENDED": (False, PERSON + "somebody has to resume it"),
    "REVALIDATION_REQUIRED": (False, PERSON + "somebody has to validate it"),
    "INPUT_INVALID": (False, "the same input is as wrong the second time"),
    "INPUT_TOO_LARGE": (False, "the same input is as large the second time"),
    "AUDIT_UNAVAILABLE": (False, PERSON + "after a failed write nothing runs until the daemon is started again"),
    "ISOLATION_UNAVAILABLE": (True, "a launcher or template that died is started again"),
    "BUSY": (True, "a place becomes free when a run ends"),
    "POLICY_ERROR": (False, PERSON + "the policy has to be mended"),
    "failed": (False, "the plugin would fail again: its code and its input are the same"),
    "timeout": (False, "the plugin would need as long again; a longer limit is an approver's to give"),
    "cpu_exceeded": (False, "the plugin would compute as long again"),
    "out_of_memory": (False, "the plugin would need as much again"),
    "pids_exceeded": (False, "the plugin would start as many again"),
    "output_limit": (False, "the plugin would write as much again"),
    "output_invalid": (False, "the plugin would give the same result again"),
    "violation": (False, "the plugin would do it again, and must not get a second chance unasked"),
    "killed": (False, PERSON + "whoever killed it has to lift the kill"),
    "canceled": (False, "the caller itself ended it"),
    "fault": (True, "the instance was lost; the next one is another"),
    "unknown": (True, "the daemon ended while it ran, as with UNAVAILABLE, and is started again"),
    "UNAVAILABLE": (True, "the daemon is being started, or started again"),
    "NO_ANSWER": (True, "the daemon ended the run at the deadline; it may have had too much to do"),
    "INVALID_REQUEST": (False, "the same request is as wrong the second time"),
    "PAYLOAD_NOT_JSON": (False, "the same payload is as wrong the second time"),
    "INVALID_SOURCE": (False, "the same source is as wrong the second time"),
    "REQUEST_TOO_LARGE": (False, "the same request is as large the second time"),
    "NOT_FOUND": (False, PERSON + "somebody has to submit it"),
    "NOT_ALLOWED": (False, PERSON + "somebody has to give the caller the role"),
    "CONFLICT": (False, PERSON + "what is stored contradicts the request until somebody changes one of them"),
    "SESSION_OVER": (True, "another session can be opened at once"),
    "UNSUPPORTED": (False, PERSON + "another version has to be installed"),
    "BAD_ANSWER": (False, PERSON + "client and daemon do not fit together"),
    "FAULT": (False, PERSON + "a bug, or a damaged state: not asked for again unseen"),
    "anything else": (False, "what is not known is not repeated"),
}


def test_every_code_and_outcome_of_the_contract_has_its_row_in_the_table():
    assert set(RETRYABLE) == set(SENTENCES)
    outcomes, denials = SPEC.read_text().split("**Outcomes**")[1].split("**Denials**")
    assert set(re.findall(r"^\| ([a-z_]+) \|", outcomes, re.MULTILINE)) - {"outcome", "ok"} <= set(RETRYABLE)
    codes = re.search(r"`([A-Z_\s]+)`", denials).group(1).split()
    assert len(codes) > 20
    assert set(codes) <= set(RETRYABLE)


@pytest.mark.parametrize("code", RETRYABLE)
def test_retryable_is_what_may_pass_without_anybody_doing_anything(code):
    passes, why = RETRYABLE[code]
    assert errors.PlugindError(code).retryable is passes, why


@pytest.mark.parametrize("code", DESIGN_DENIALS.split())
def test_denial_has_the_code_of_its_first_reason_and_its_own_sentence(code):
    error = errors.error_of(result(decision="deny", outcome="", reasons=(Reason(code, "r"), Reason("BUSY", "s"))))
    assert (type(error), error.code, str(error)) == (errors.Denied, code, errors.DENIALS[code])
    assert error.retryable is RETRYABLE[code][0]


def test_denial_passes_by_itself_only_if_all_its_reasons_do():
    both = (Reason("BUSY", "r"), Reason("NOT_APPROVED", "s"))
    assert errors.error_of(result(decision="deny", outcome="", reasons=both)).retryable is False
    assert errors.Denied("ISOLATION_UNAVAILABLE", reasons=(both[0],)).retryable is True


def test_hint_of_the_daemon_is_an_attribute_and_never_in_the_sentence():
    reasons = (Reason("BUSY", "tier.2.instances", remedy="send it again later, best in 2.5 s"),)
    error = errors.error_of(result(decision="deny", outcome="", reasons=reasons, retry_after_ms=2500))
    assert (error.retry_after_ms, error.retryable, str(error)) == (2500, True, errors.DENIALS["BUSY"])
    assert errors.Denied("BUSY").retry_after_ms == errors.Unavailable("UNAVAILABLE").retry_after_ms == 0
    assert errors.error_of(result()).retry_after_ms == 0


@pytest.mark.parametrize("outcome", errors.OUTCOMES)
@pytest.mark.parametrize("through", [copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])
def test_errors_survive_copies(outcome, through):
    error = errors.error_of(result(outcome=outcome))
    again = through(error)
    assert type(again) is type(error)
    assert (str(again), vars(again)) == (str(error), vars(error))


def every_error():
    """One of each class with each of its codes, all detail filled in with words that str() must never show."""
    bad = "connect timed out: try again 503"
    reasons = (Reason("NOT_SIGNED", "rule", bad, bad, bad),)
    ran = result(outcome_detail=bad, stdout=bad, stderr=bad, error=PluginException("TimeoutError", bad, bad))
    calls = [kind for kind in CLASSES if kind not in {errors.Denied, *errors.BY_OUTCOME.values()}]
    kinds = [(errors.Denied, code) for code in errors.DENIALS]
    kinds += [(kind, outcome) for outcome, kind in errors.BY_OUTCOME.items()]
    kinds += [(kind, code) for code in (*errors.CALLS, bad) for kind in (*calls, errors.Fault)]
    made = [kind(code, detail=bad, reasons=reasons, result=ran) for kind, code in kinds]
    for error in made:
        error.add_note("seen in stage durations")
    return made


def raise_the(index):
    raise every_error()[index]


def test_no_way_to_write_an_error_down_shows_a_trigger_word():
    """str, format, args, repr, and the last line of a traceback, which also names the class."""
    for error in every_error():
        last_line = "".join(traceback.format_exception_only(error)).splitlines()[0]
        for text in (str(error), f"{error}", f"{error!r}", *error.args, last_line):
            assert [word for word in FORBIDDEN if word in text.lower()] == [], text
            assert not any(character.isnumeric() for character in text)
        assert {type(argument) for argument in error.args} == {str}


def test_every_class_is_exported_and_has_a_code():
    assert {kind.__name__ for kind in CLASSES} <= set(plugind_client.__all__)
    assert {type(error) for error in every_error()} == set(CLASSES)


def test_every_error_crosses_processes_whole():
    """A pool of spawned processes, as multiprocessing hands on what a worker raises."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        for index, error in enumerate(every_error()):
            again = pool.submit(raise_the, index).exception(timeout=60)
            assert type(again) is type(error)
            assert (str(again), again.args, vars(again)) == (str(error), error.args, vars(error))
            assert again.__notes__ == ["seen in stage durations"]
            for name in (name for name in dir(error) if not name.startswith("_")):
                value = getattr(error, name)
                assert callable(value) or getattr(again, name) == value, name
