"""Secrets are found in whatever wrapping, ordinary text is none, and what the caller gave may come back."""

from __future__ import annotations

import base64
import json
import random
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugind import batch, leaks
from plugind.model import Outcome, PluginError
from tests.support.fake_launcher import result

LETTERS = string.ascii_letters + string.digits
B64 = LETTERS + "+/"
B64URL = LETTERS + "-_"


def made(length, alphabet=LETTERS, seed=7):
    return "".join(random.Random(f"{seed} {length}").choices(alphabet, k=length))


def pem(label="PRIVATE KEY", end="\n", headers=""):
    body = base64.b64encode(random.Random(3).randbytes(120)).decode()
    lines = [body[at : at + 64] for at in range(0, len(body), 64)]
    return f"-----BEGIN {label}-----{end}{headers}{end.join(lines)}{end}-----END {label}-----{end}"


# Put together here, so that no scanner of this repository finds them.
SECRETS = [
    ("private key", pem()),
    ("private key", pem("RSA PRIVATE KEY", headers="Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,AB12\n\n")),
    ("private key", pem("OPENSSH PRIVATE KEY", "\r\n")),
    ("private key", pem("PGP PRIVATE KEY BLOCK", headers="Version: 1\n\n")),
    ("AWS access key id", "AK" + "IA" + made(16, string.ascii_uppercase + "234567")),
    ("AWS secret access key", "aws_secret_access" + "_key = " + made(40, B64)),
    ("GitHub token", "gh" + "p_" + made(36)),
    ("GitHub token", "gh" + "s_" + made(36)),
    ("GitHub token", "github" + "_pat_" + made(22) + "_" + made(59)),
    ("GitLab token", "gl" + "pat-" + made(20, B64URL)),
    ("Slack token", "xo" + "xb-" + made(12, string.digits) + "-" + made(12, string.digits) + "-" + made(24)),
    ("Slack token", "xa" + "pp-1-A" + made(10, string.ascii_uppercase) + "-" + made(13, string.digits) + "-" + made(64, "0123456789abcdef")),
    ("OpenAI key", "s" + "k-" + made(20) + "T3Blbk" + "FJ" + made(20)),
    ("OpenAI key", "sk-pr" + "oj-" + made(74, B64URL) + "T3Blbk" + "FJ" + made(74, B64URL)),
    ("Anthropic key", "sk-a" + "nt-api03-" + made(93, B64URL) + "AA"),
    ("Stripe key", "sk_li" + "ve_" + made(24)),
    ("Google API key", "AI" + "za" + made(35, B64URL)),
    ("Google client secret", "GOC" + "SPX-" + made(28, B64URL)),
    ("JSON web token", "ey" + "J" + made(33, B64URL) + ".ey" + "J" + made(60, B64URL) + "." + made(43, B64URL)),
    ("npm token", "np" + "m_" + made(36)),
    ("PyPI token", "pypi-" + "AgEIcHlwaS5vcmc" + made(120, B64URL)),
    ("Hugging Face token", "h" + "f_" + made(34, string.ascii_letters)),
    ("SendGrid key", "S" + "G." + made(22, B64URL) + "." + made(43, B64URL)),
    ("Vault token", "hv" + "s." + made(90, B64URL)),
    ("age secret key", "AGE-SECRET" + "-KEY-1" + made(58, "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L")),
    ("password in a URL", "postgres://planner:" + made(14) + "@db.example.org:5432/plans"),
    ("password hash", "root:$" + "6$" + made(16) + "$" + made(86, LETTERS + "./") + ":19000:0:99999:7:::"),
    ("password hash", "alice:$" + "y$j9T$" + made(22) + "$" + made(43) + ":19000:0:99999:7:::"),
]  # fmt: skip
NAMES = [f"{name} {place}" for place, (name, _) in enumerate(SECRETS)]
WRAPPINGS = {
    "bare": lambda text: text,
    "in a line": lambda text: f"2026-11-29 took: {text} and went on",
    "json": lambda text: json.dumps({"result": text}),
    "json after a newline": lambda text: json.dumps(["first line\n" + text + "\nnext"]),
    "json in json": lambda text: json.dumps({"body": json.dumps({"log": f"a\tb\n{text}"})}),
    "slashes escaped": lambda text: json.dumps({"result": text}).replace("/", "\\/"),
    "every letter escaped": lambda text: '["' + "".join(f"\\u{ord(char):04x}" for char in text) + '"]',
}


@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS)
@pytest.mark.parametrize(("name", "secret"), SECRETS, ids=NAMES)
def test_found_in_any_wrapping_and_not_when_it_was_given_in_any_other(wrap, name, secret):
    output = wrap(secret).encode()
    assert leaks.found(output, b"") == name
    assert leaks.found(b"x" * 99999 + b'", "' + output, b'{"a": 1}') == name
    for other in WRAPPINGS.values():
        assert not leaks.found(output, other(secret).encode())
    assert leaks.found(output, secret[: len(secret) // 2].encode()) == name, "half of it was not given"


ORDINARY = [
    json.dumps({"task_id": "6f1c2b3e-9a55-4a7e-9d3c-0d1e2f3a4b5c", "sha256": "0123456789abcdef" * 4}),
    json.dumps([0.00012345678901234567, 1e300, -5, "Excavation of the construction site"]),
    "-----BEGIN CERTIFICATE-----\n" + made(64, B64) + "\n-----END CERTIFICATE-----",
    "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----",
    "a key begins with -----BEGIN RSA PRIVATE KEY----- and ends with -----END RSA PRIVATE KEY-----",
    "https://user@example.org/path, https://example.org:8080/a@b, mailto:a@b.org, 12:30@noon",
    "postgres://user:password@localhost/db postgres://admin:admin@db redis://:${REDIS_PASSWORD}@host",
    "ftp://name:****@host https://{user}:{token}@host https://user:<token>@host",
    "ghp_" + "x" * 36,
    "AKIA" + "X" * 16,
    "set GITHUB_TOKEN=ghp_... or sk-ant-... or AIza...; length_m, high_risk_task_of_the_whole_project",
    "data:image/png;base64," + made(4000, B64),
    "root:x:0:0:root:/root:/bin/bash\ndaemon:*:19000:0:99999:7:::",
    "price: $100, cost:$1$2, {'a':'$5$'}",
    "eyJhbGciOiJIUzI1NiJ9 alone, and a.b.c",
    "sk_test_" + made(24),
    "the mask-antenna-of-something-that-is-long-enough-to-have-a-run-of-characters-within-it-as-in-sk-antenna",
]


@pytest.mark.parametrize("text", ORDINARY)
@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS)
def test_ordinary_text_has_none(wrap, text):
    assert leaks.found(wrap(text).encode(), b"") == ""


def test_the_first_that_was_not_given_counts():
    given_one, other = SECRETS[6][1].encode(), SECRETS[8][1].encode()
    assert leaks.found(given_one + b" " + other, given_one) == "GitHub token"
    assert leaks.found(given_one + b" " + other, other + given_one) == ""


def test_thousands_that_were_given_are_compared_and_one_more_is_found():
    many = [f"gh{'p'}_{made(36, seed=seed)}" for seed in range(3000)]
    text = json.dumps(many).encode()
    assert leaks.found(text, text) == ""
    assert leaks.found(text, json.dumps(many[:-1]).encode()) == "GitHub token"


@given(st.binary(max_size=400), st.binary(max_size=100))
def test_bytes_of_any_kind_are_read(output, known):
    assert leaks.found(output, known) in {
        "",
        *(kind.name for kind in (*leaks.SHORT, *leaks.TOKENS, leaks.URL, leaks.SHADOW)),
    }
    assert leaks.found(output, output) == ""


@given(
    st.sampled_from(SECRETS),
    st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40),
    st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40),
    st.booleans(),
)
def test_found_between_any_texts(secret, before, after, ascii_only):
    name, text = secret
    output = json.dumps({"a": f"{before} {text} {after}"}, ensure_ascii=ascii_only).encode()
    assert leaks.found(output, b"") == name
    assert leaks.found(output, output) == ""


PIECES = [
    b"-----BEGIN PRIVATE KEY-----",
    b"\n",
    b"eyJ",
    b".eyJ",
    b"A: b\n",
    b"://a:bcd@",
    b"x" * 30,
    b"\\u0041",
    b"\\",
    b"ghp_",
    b":$6$",
    b"AKIA",
    b"@",
    b"T3BlbkFJ",
    b"sk-ant-",
    b"Ab9",
    b'"',
]


@given(st.lists(st.sampled_from(PIECES), max_size=60))
def test_what_is_made_of_their_own_pieces_is_read(pieces):
    text = b"".join(pieces)
    assert leaks.found(text, text) == ""
    assert leaks.found(text * 3, text * 3) == ""


# --- in a run ---------------------------------------------------------------------------------------------------------

NAME, SECRET = SECRETS[6]
IN_JSON = json.dumps(f"here: {SECRET}").encode()
WITHHELD = [{"kind": "output", "name": NAME, "count": 1, "detail": "withheld"}]


def behaves(desk, given_back):
    async def give(request):
        return given_back

    desk.sandbox.behaviour = give


def nothing_of_it(desk, answer):
    assert SECRET not in repr(answer)
    for pack in (desk.folder / "ledger").rglob("*"):
        assert pack.is_dir() or SECRET.encode() not in pack.read_bytes()


@pytest.mark.parametrize(
    "given_back",
    [
        result(output=IN_JSON),
        result(output=b"1", stdout=SECRET.encode()),
        result(output=b"1", stderr=b"warning\n" + SECRET.encode()),
        result(Outcome.FAILED, error=PluginError("ValueError", SECRET, "")),
        result(Outcome.FAILED, error=PluginError("ValueError", "no", f"line 1: {SECRET}")),
        result(Outcome.TIMEOUT, stdout=SECRET.encode()),
    ],
)
async def test_a_result_with_a_secret_is_withheld_and_a_violation(desk, given_back):
    desk.install()
    behaves(desk, given_back)
    answer = await desk.run({"a": 1})
    assert (answer.outcome, answer.output_json, answer.stdout, answer.stderr) == (Outcome.VIOLATION, b"", b"", b"")
    assert answer.error is None
    assert answer.detail == "gave out a secret that was not in its input: GitHub token; withheld"
    assert desk.events()[-1]["violations"] == WITHHELD
    nothing_of_it(desk, answer)


async def test_what_others_ended_stays_so_and_is_withheld_all_the_same(desk):
    desk.install()
    behaves(desk, result(Outcome.KILLED, stdout=SECRET.encode()))
    answer = await desk.run({"a": 1})
    assert (answer.outcome, answer.stdout) == (Outcome.KILLED, b"")
    assert desk.events()[-1]["violations"] == WITHHELD


async def test_what_the_caller_gave_may_come_back(desk):
    desk.install()
    behaves(desk, result(output=IN_JSON, stdout=SECRET.encode()))
    answer = await desk.run({"token": SECRET})
    assert (answer.outcome, answer.output_json) == (Outcome.OK, IN_JSON)


@pytest.mark.parametrize("size", [0, 2 * 1024 * 1024])
async def test_a_large_result_is_looked_at_too(desk, size):
    desk.install()
    behaves(desk, result(output=json.dumps(["x " * (size // 2), SECRET]).encode()))
    assert (await desk.run(1)).outcome is Outcome.VIOLATION
    behaves(desk, result(output=json.dumps("x " * (size // 2)).encode()))
    assert (await desk.run(1)).outcome is Outcome.OK


async def test_of_a_map_one_item_with_a_secret_withholds_all(desk):
    desk.install()
    items = (b"1", b"2")
    heads = json.dumps({"items": [{"json": 1}, {"json": len(IN_JSON)}]}, separators=(",", ":")).encode()
    behaves(desk, result(output=heads + b"\n1" + IN_JSON))
    answer = await desk.run(input=batch.encode(items), items=items, mode="map")
    assert (answer.outcome, answer.items) == (Outcome.VIOLATION, ())
    assert desk.events()[-1]["violations"] == WITHHELD
    nothing_of_it(desk, answer)


async def test_a_session_ends_before_an_answer_with_a_secret_is_given(desk):
    from tests.unit.test_session import opened

    desk.install()
    desk.sandbox.frames.instead = [(b"V", b"1"), (b"V", IN_JSON)]
    session = opened(desk)
    assert await session.opened()
    assert await session.ask(b"1") == b"1"
    assert await session.ask(b"2") is None
    answer = await session.close()
    assert (answer.outcome, session.why, session.answered) == (Outcome.VIOLATION, "", 1)
    assert desk.events()[-1]["violations"] == WITHHELD
    nothing_of_it(desk, answer)


async def test_a_session_may_give_back_what_came_with_an_earlier_input(desk):
    from tests.unit.test_session import opened

    desk.install()
    desk.sandbox.frames.instead = [(b"V", b"1"), (b"V", IN_JSON)]
    session = opened(desk)
    assert await session.opened()
    await session.ask(json.dumps(SECRET).encode())
    assert await session.ask(b"2") == IN_JSON
    assert (await session.close()).outcome is Outcome.OK
