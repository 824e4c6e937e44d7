"""The client's errors: fixed sentences without trigger words, all detail in attributes, alive after pickling."""

import copy
import pickle
import re

import pytest

from plugind.model import Code, Outcome
from plugind_client import errors
from plugind_client.records import Governance, PluginException, Reason, RunResult, Usage, Violation

FORBIDDEN = (
    "timeout",
    "timed out",
    "connect",
    "capacity",
    "try again",
    "rate limit",
    "overloaded",
    "server error",
    "internal error",
    "temporarily unavailable",
    "network",
    "auth",
    "none",
)
SENTENCES = {**errors.DENIALS, **errors.OUTCOMES, **errors.CALLS, "anything else": errors.UNKNOWN_CODE}
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


@pytest.mark.parametrize("code", SENTENCES)
def test_retryable_is_what_may_pass_without_anybody_doing_anything(code):
    passes_by_itself = {"UNAVAILABLE", "NO_ANSWER", "BUSY", "ISOLATION_UNAVAILABLE", "fault"}
    assert errors.PlugindError(code).retryable is (code in passes_by_itself)


@pytest.mark.parametrize("code", DESIGN_DENIALS.split())
def test_denial_has_the_code_of_its_first_reason_and_its_own_sentence(code):
    error = errors.error_of(result(decision="deny", outcome="", reasons=(Reason(code, "r"), Reason("BUSY", "s"))))
    assert (type(error), error.code, str(error)) == (errors.Denied, code, errors.DENIALS[code])
    assert error.retryable is (code in {"BUSY", "ISOLATION_UNAVAILABLE"})


@pytest.mark.parametrize("outcome", errors.OUTCOMES)
@pytest.mark.parametrize("through", [copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])
def test_errors_survive_copies(outcome, through):
    error = errors.error_of(result(outcome=outcome))
    again = through(error)
    assert type(again) is type(error)
    assert (str(again), vars(again)) == (str(error), vars(error))
