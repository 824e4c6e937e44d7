"""The parsers of what a plugin, a client, the front or an instance sends, each with what must hold for any bytes.

Whatever else is raised than the error that the parser documents is a finding, and so is a value that does not survive
being written and read again.
"""

from __future__ import annotations

import functools
import hashlib
import json
import time

from plugind import jsontext
from plugind.api import messages
from plugind.api.exposition import HEAD_BYTES, judged
from plugind.errors import InvalidBundleError, InvalidJsonError, InvalidRequestError, InvalidSchemaError
from plugind.model import Outcome
from plugind.payload import Contract, check_input, output_problem
from plugind.policy.file import InvalidPolicyError
from plugind.policy.file import parse as parse_policy
from plugind.profiles import load_profiles, profiles_dir
from plugind.provenance import bundle, contents, dsse, intoto, manifest, ustar
from plugind.provenance.evidence import RoleKeys, Trust, TrustedKey, tier_of
from plugind.provenance.keys import PrivateKey, PublicKey
from plugind.sandbox import codec, codestore, protocol
from plugind.sandbox.inside.functions import MESSAGE_CHARS
from plugind.sandbox.inside.runner import HEADER
from plugind.sandbox.outcome import judge
from plugind.schema import Schema
from plugind_proto.v1 import registry_pb2
from tests.soak.fuzz import examples
from tests.soak.fuzz.target import Target, parts_of, sealed

MAX_BYTES = 1 << 20
WORDY = 200_000
"""More characters than any error has: what is told is read by people, and stored."""


def launcher_message(data: bytes) -> None:
    try:
        message = codec.decode(data)
        again = codec.encode(message)
    except InvalidRequestError as error:
        told(error)  # also of one that fits as UTF-8 and not with escapes
        return
    assert codec.decode(again) == message


def metrics_request(data: bytes) -> None:
    status = judged(data + b"\r\n\r\n")
    assert status in {200, 400, 404, 405}
    if status == 200:
        assert data.startswith((b"GET /metrics HTTP/1.", b"GET /metrics?"))


def result_frame(data: bytes) -> None:
    """The first byte tells whether the rest is a whole frame, or kind and body of one that has the nonce."""
    framed, rest = data[:1] == b"\x01", data[1:]
    if framed and rest:
        rest = HEADER.pack(examples.NONCE, rest[:1], len(rest) - 1) + rest[1:]
    verdict = judge(protocol.Ended("r", "", 0, 1, 1, 1), rest, examples.NONCE, examples.LIMITS)
    if verdict.outcome is Outcome.OK:
        assert rest.startswith(examples.NONCE)
        assert verdict.output_json == rest[HEADER.size :]
        return
    assert verdict.output_json is None
    assert verdict.outcome in (Outcome.FAILED, Outcome.OUTPUT_INVALID)
    assert len(verdict.detail.encode()) <= MESSAGE_CHARS
    if verdict.error:
        for text in (verdict.error.type, verdict.error.message, verdict.error.traceback):
            text.encode()


def strict_json(data: bytes) -> None:
    for non_finite in (False, True):
        try:
            value = jsontext.loads(data, max_bytes=MAX_BYTES, non_finite=non_finite)
        except InvalidJsonError as error:
            told(error)
            continue
        same = json.dumps(value)
        assert same == json.dumps(json.loads(data)), "read otherwise than Python does"
        text = jsontext.dumps(value, non_finite=non_finite)
        again = jsontext.loads(text, max_bytes=10 * MAX_BYTES, non_finite=non_finite)
        assert json.dumps(again) == same


def manifest_toml(data: bytes) -> None:
    try:
        parsed = manifest.parse_manifest(data)
    except InvalidBundleError as error:
        told(error)
        return
    survives(parsed)


def manifest_table(data: bytes) -> None:
    try:
        table = jsontext.loads(data, max_bytes=MAX_BYTES)
        if isinstance(table, dict):
            survives(manifest.manifest_from_table(table, "t"))
    except (InvalidJsonError, InvalidBundleError) as error:
        told(error)


def survives(parsed) -> None:
    table = json.loads(json.dumps(manifest.manifest_to_table(parsed)))
    assert manifest.manifest_from_table(table, "t") == parsed


def tar(data: bytes) -> None:
    """Both readers: what the registry takes, the launcher unpacks, and as the same files."""
    data = sealed(data)
    unpacked = None
    try:
        unpacked = [(each.name, each.executable, bytes(each.content)) for each in codestore.read_tar(data)]
    except InvalidBundleError as error:
        told(error)
    if unpacked is not None:
        assert sum(len(content) for _, _, content in unpacked) <= len(data)
        for name, _, _ in unpacked:
            assert not name.startswith("/")
            assert not {"", ".", ".."} & set(name.split("/")), name
            assert "\0" not in name
    try:
        members = ustar.read(data, max_members=100, max_member_bytes=MAX_BYTES)
    except InvalidBundleError as error:
        told(error)
        return
    assert ustar.write(members) == data
    if all(not {"", ".", ".."} & set(each.name.split("/")) for each in members):  # else bundle.read refuses the name
        assert unpacked == [(each.name, each.executable, each.data) for each in members]


def bundle_of_parts(data: bytes) -> None:
    """plugin.toml, schema, case and the name of the code's file; plugin.json is what `build` would make of them."""
    toml, schema, case, name = parts_of(data, 4)
    files = {"plugin.toml": toml, "schemas/input.json": schema, "schemas/output.json": schema, "cases/one.json": case}
    name_text = name.decode("ascii", "replace").replace("?", "x").replace("\ufffd", "x") or "echo.py"
    files.setdefault(name_text[:90], b"def run(p, c): return p\n")
    members = [ustar.Member(name, content) for name, content in files.items() if name.isascii()]
    try:
        parsed = manifest.parse_manifest(toml, present=files)
        whole = bundle._encode(parsed, manifest.sequence_of(parsed.version), members)
    except InvalidBundleError:
        whole = ustar.write([ustar.Member("plugin.json", b"{}"), *sorted(members, key=lambda each: each.name)])
    try:
        read = bundle.read(whole)
    except InvalidBundleError as error:
        told(error)
        return
    assert read.digest == hashlib.sha256(whole).hexdigest()
    assert contents.module_file(read.manifest, read.files)
    assert [each.name for each in codestore.read_tar(whole)][1:] == sorted(read.files)


def attestation_lines(data: bytes) -> None:
    try:
        envelopes = dsse.parse_lines(data)
    except InvalidBundleError as error:
        told(error)
        return
    assert dsse.parse_lines(dsse.to_lines(envelopes)) == envelopes
    for envelope in envelopes:
        assert dsse.verify(envelope, [nobody().public]) == frozenset()


def statement(data: bytes) -> None:
    try:
        parsed = intoto.parse(data)
    except InvalidBundleError as error:
        told(error)
        return
    for look in (intoto.check_provenance, intoto.parse_summary):
        try:
            look(parsed.predicate)
        except InvalidBundleError as error:
            told(error)


def signed_statement(data: bytes) -> None:
    """What somebody who is trusted has signed without looking at it."""
    envelopes = [dsse.sign(part, [signer]) for part, signer in zip(parts_of(data, 2), signers(), strict=True)]
    evidence = tier_of(examples.DIGEST, envelopes, trust(), now_unix_ms=time.time_ns() // 10**6)
    assert evidence.tier in (1, 2)
    assert bool(evidence.reasons) == (evidence.tier == 2)
    for reason in evidence.reasons:
        assert len(reason.actual) < WORDY
        reason.actual.encode()


def schema_and_value(data: bytes) -> None:
    text, value_text = parts_of(data, 2)
    try:
        schema = Schema.parse(text, "s.json")
    except InvalidSchemaError as error:
        told(error)
        return
    try:
        value = jsontext.loads(value_text, max_bytes=MAX_BYTES, non_finite=True)
    except InvalidJsonError:
        value = [{"a": 1, "b": [None, "x"]}, 2.5]
    found = schema.errors(value, 10, non_finite=True)
    assert len(found) <= 10
    assert sum(map(len, found)) < WORDY
    for sentence in found:
        sentence.encode()


def run_payload(data: bytes) -> None:
    for contract in contracts():
        checked = check_input(contract, data, MAX_BYTES, 2)
        assert len(checked.reasons) <= 10
        assert sum(len(reason.actual) for reason in checked.reasons) < WORDY
        problem = output_problem(contract, data, MAX_BYTES, checked.calls)
        assert len(problem) < WORDY
        for text in (problem, *(reason.actual for reason in checked.reasons)):
            text.encode()


def approved_permission(data: bytes) -> None:
    """An approver's request: protobuf has made sure that it is UTF-8."""
    text = data.decode("utf-8", "replace")
    try:
        (permission,) = messages.permissions_of([registry_pb2.Permission(kind="file_read", entry_json=text)])
    except InvalidRequestError as error:
        told(error)
        return
    permission.entry.encode()  # it is stored, and goes over the wire again
    (again,) = messages.permissions_of([registry_pb2.Permission(kind="file_read", entry_json=permission.entry)])
    assert again == permission


def policy_file(data: bytes) -> None:
    """`plugindctl policy check` reads what it is given."""
    try:
        parse_policy(data.decode("utf-8", "replace"), "p.toml", profiles())
    except InvalidPolicyError as error:
        told(error)


def public_key(data: bytes) -> None:
    try:
        key = PublicKey.from_pem(data)
    except InvalidRequestError as error:
        told(error)
        return
    assert PublicKey.from_pem(key.to_pem()) == key


def told(error: Exception) -> None:
    """What it says can be shown: bounded, and Unicode."""
    text = str(error)
    assert text
    assert len(text) < WORDY, len(text)
    text.encode()


@functools.cache
def nobody() -> PrivateKey:
    return PrivateKey.generate()


@functools.cache
def signers() -> tuple[PrivateKey, PrivateKey]:
    return PrivateKey.generate(), PrivateKey.generate()


@functools.cache
def trust() -> Trust:
    publisher, vetter = (RoleKeys((TrustedKey(key.public),), 1) for key in signers())
    return Trust({"publisher": publisher, "vetter": vetter})


@functools.cache
def profiles():
    return load_profiles(profiles_dir())


@functools.cache
def contracts() -> tuple[Contract, ...]:
    schema = Schema.parse(json.dumps(examples.SCHEMA).encode(), "s.json")
    return Contract("json", schema, schema), Contract("functions", None, None), Contract("functions", schema, schema)


JSON_WORDS = (b'"', b"{", b"}", b"[", b"]", b":", b",", b"null", b"true", b"1e9", b"-1", b"NaN", b"Infinity", b"\\ud800", b"\\u0000", b"9007199254740993")  # fmt: skip
TOML_WORDS = (b"[limits]", b"[[permissions.file_read]]", b"[permissions]", b'"""', b"'''", b"1979-05-27T07:32:00Z", b"inf", b"0xff", b"\n", b" = ", b"{a = 1}", b"true")  # fmt: skip
SCHEMA_WORDS = tuple(
    b'"%s"' % word
    for word in b"$ref $defs $dynamicRef $dynamicAnchor allOf anyOf oneOf not if then else items prefixItems contains "
    b"properties patternProperties additionalProperties unevaluatedProperties propertyNames dependentSchemas pattern "
    b"enum const type object array string integer minimum multipleOf uniqueItems #/$defs/node".split()
)
STATEMENT_WORDS = tuple(
    f'"{word}"'.encode()
    for word in (
        *("_type", "subject", "digest", "sha256", "predicateType", "predicate", "buildDefinition", "runDetails"),
        *("builder", "id", "verifier", "policy", "verifiedLevels", "verificationResult", "PASSED", "timeVerified"),
        *(intoto.STATEMENT, intoto.PROVENANCE, intoto.VSA, intoto.NOT_AFTER, intoto.TIER_1, "2027-01-31T12:00:00Z"),
        examples.DIGEST,
    )
)
MESSAGE_WORDS = tuple(f'"{op}"'.encode() for op in codec._KINDS) + JSON_WORDS
REQUEST_WORDS = (
    b"GET ",
    b"HEAD ",
    b"/metrics",
    b"?",
    b" HTTP/1.1",
    b" HTTP/1.0",
    b"\r\n",
    b"Host: ",
    b"\n",
    b" ",
    b":",
    b"\t",
)

PARSERS = (
    Target("launcher_message", launcher_message, examples.messages, MESSAGE_WORDS, 20_000, share=40),
    Target("result_frame", result_frame, examples.frames, JSON_WORDS, 20_000, share=220),
    Target("strict_json", strict_json, examples.jsons, JSON_WORDS, share=110),
    Target("manifest_toml", manifest_toml, examples.tomls, TOML_WORDS, share=20),
    Target("manifest_table", manifest_table, examples.tables, JSON_WORDS, share=20),
    Target("tar", tar, examples.tars, (b"ustar\x0000", b"0000755\0", b"../", b"/"), 8192, share=40),
    Target("bundle_of_parts", bundle_of_parts, examples.bundles, TOML_WORDS, 8192, share=4),
    Target("attestation_lines", attestation_lines, examples.attestations, (b'"payload"', b'"signatures"'), share=50),
    Target("statement", statement, examples.statements, STATEMENT_WORDS + JSON_WORDS, share=160),
    Target("signed_statement", signed_statement, examples.statements, STATEMENT_WORDS + JSON_WORDS, share=8),
    Target("schema_and_value", schema_and_value, examples.schemas, SCHEMA_WORDS + JSON_WORDS, share=20),
    Target("run_payload", run_payload, examples.jsons, (b'"function"', b'"arguments"', *JSON_WORDS), share=80),
    Target("approved_permission", approved_permission, lambda: [b'{"path": "*.json"}'], JSON_WORDS, share=120),
    Target("policy_file", policy_file, examples.policies, TOML_WORDS, 8192, share=4),
    Target("public_key", public_key, examples.keys, share=80),
    Target("metrics_request", metrics_request, examples.requests, REQUEST_WORDS, HEAD_BYTES, share=80),
)
