"""Valid things of our own, from which the fuzzers start."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path

from plugind.model import Limits
from plugind.policyfile import shipped_policy
from plugind.provenance import bundle, dsse, manifest, ustar
from plugind.provenance.keys import PrivateKey
from plugind.sandbox import codec, protocol
from plugind.sandbox.inside.runner import HEADER
from tests.soak.fuzz.target import joined
from tests.support.plugins import attested, folder

NONCE = bytes(range(16))
DIGEST = "ab" * 32
LIMITS = Limits(1000, 1000, 1 << 24, 4, 1 << 20, 1 << 20)
PERMISSIONS = """
[limits]
wall_ms = 100
memory_bytes = 1000000
[capability]
domains = ["energy"]
tasks = ["cost_rollup"]
[[permissions.file_read]]
path = "*_raw.json"
[[permissions.network]]
host = "api.example.org"
port = 443
protocol = "tcp"
[[permissions.external_api]]
api = "rates"
methods = ["GET"]
paths = ["/v1/rates"]
[[permissions.sensitive_data]]
class = "plan.prompts"
"""
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer", "maximum": 5}, "b": {"$ref": "#/$defs/node"}},
    "required": ["a"],
    "additionalProperties": False,
    "$defs": {
        "node": {
            "anyOf": [{"type": "string", "pattern": "^[a-z]+$"}, {"type": "array", "items": {"$ref": "#/$defs/node"}}]
        }
    },
}
VALUE = {"a": 3, "b": ["x", ["y", "z"]]}


@functools.cache
def plugin() -> bytes:
    """A bundle with schemas and a case."""
    with tempfile.TemporaryDirectory() as parent:
        made = folder(Path(parent), extra=PERMISSIONS, input_schema=SCHEMA, output_schema=SCHEMA)
        (made / "cases").mkdir()
        (made / "cases/one.json").write_text(json.dumps({"input": VALUE, "output": VALUE}))
        return bundle.build(made)


@functools.cache
def files() -> dict[str, bytes]:
    """The files of that bundle."""
    return dict(bundle.read(plugin()).files)


def tars() -> list[bytes]:
    """Whole ones."""
    return [plugin(), ustar.write([ustar.Member("a.py", b"x", executable=True), ustar.Member("b/c.py", b"")])]


def bundles() -> list[bytes]:
    """The parts that `parsers.bundle_of_parts` puts together."""
    given = files()
    schema, case = given["schemas/input.json"], given["cases/one.json"]
    toml = given["plugin.toml"]
    plain = toml.replace(PERMISSIONS.encode(), b"")
    functions = plain.replace(b'"json"', b'"functions"').replace(b'"echo:run"', b'"echo"')
    return [
        joined(toml, schema, case, b"echo.py"),
        joined(plain, b"true", case, b""),
        joined(functions, b"", case, b"x"),
    ]


def tomls() -> list[bytes]:
    """Manifests."""
    return [files()["plugin.toml"], files()["plugin.toml"].replace(PERMISSIONS.encode(), b"")]


def tables() -> list[bytes]:
    """Manifests as JSON."""
    return [json.dumps(manifest.manifest_to_table(bundle.read(plugin()).manifest)).encode()]


def attestations() -> list[bytes]:
    """Signed lines of publisher and vetter."""
    return [attested(plugin(), PrivateKey.generate(), PrivateKey.generate())]


def statements() -> list[bytes]:
    """What is signed."""
    return [envelope.payload for lines in attestations() for envelope in dsse.parse_lines(lines)]


def messages() -> list[bytes]:
    """One of each kind between front and launcher."""
    return [
        codec.encode(message)
        for message in (
            protocol.Load(DIGEST),
            protocol.Start("r1", DIGEST, 2, LIMITS),
            protocol.Kill("r1", "canceled"),
            protocol.Stop(),
            protocol.Ready("v1/hybrid", {"2": "no seccomp"}),
            protocol.Loaded(DIGEST, ""),
            protocol.Placed("r1"),
            protocol.Started("r1"),
            protocol.Refused("r1", "setup", "detail"),
            protocol.Ended("r1", "timeout", -9, 1, 2, 3),
        )
    ]


def frames() -> list[bytes]:
    """What comes through a result pipe: a kind and a body, with and without a header."""
    error = json.dumps({"type": "ValueError", "message": "no", "traceback": "line 1"}).encode()
    bodies = [b'V{"a":1}', b"E" + error, b'I"no JSON"']
    return [b"\x01" + body for body in bodies] + [
        b"\x00" + HEADER.pack(NONCE, body[:1], len(body) - 1) + body[1:] for body in bodies
    ]


def requests() -> list[bytes]:
    """Requests for metrics, without the empty line at their end."""
    return [
        b"GET /metrics HTTP/1.1\r\nHost: localhost",
        b"GET /metrics?name=a HTTP/1.0",
        b"POST /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\nContent-Length: 3",
    ]


def jsons() -> list[bytes]:
    """JSON of all sorts."""
    return [
        json.dumps(VALUE).encode(),
        b'{"function": "f", "arguments": {"x": [1, -2.5e3, true, null, "\\ud83d\\ude00"]}}',
        b'[{"function": "f"}, {"function": "g", "arguments": {}}]',
        b"[NaN, -Infinity, 1e400, 123456789012345678901234567890]",
        b'"\\ud800"',
    ]


def schemas() -> list[bytes]:
    """A schema and a value."""
    value = json.dumps(VALUE).encode()
    return [joined(json.dumps(SCHEMA).encode(), value), joined(b"true", b"1"), joined(b'{"enum": [1, "a"]}', b"2")]


def policies() -> list[bytes]:
    """The one that comes with plugind."""
    return [shipped_policy().read_bytes()]


def keys() -> list[bytes]:
    """Public keys."""
    return [PrivateKey.generate().public.to_pem()]
