"""What the largest and worst input that each parser takes costs in memory, counted and not guessed."""

from __future__ import annotations

import contextlib
import itertools
import json
import tracemalloc

import pytest

from plugind import jsontext
from plugind.errors import PlugindError
from plugind.policy.file import parse as parse_policy
from plugind.provenance import bundle, dsse, intoto, manifest, ustar
from plugind.sandbox import codec, codestore, protocol
from plugind.schema import MAX_SCHEMA_BYTES, Schema
from tests.soak.fuzz.target import sealed

MIB = 1 << 20
INPUT_BYTES = 8 * MIB
"""The largest input of Tier 2."""
EMPTY_FILE = ustar.write([ustar.Member("a", b"")])[: ustar.BLOCK]


def many(text: bytes, size_bytes: int, start: bytes = b"", end: bytes = b"") -> bytes:
    """Repeated up to a size."""
    return start + text * ((size_bytes - len(start) - len(end)) // len(text)) + end


WORST = {
    "message of brackets": (codec.decode, many(b"[", protocol.MAX_MESSAGE_BYTES), 1),
    "message of fields": (codec.decode, many(b'"a":1,', protocol.MAX_MESSAGE_BYTES, b'{"op":"stop",', b'"b":1}'), 1),
    "JSON of empty objects": (lambda data: jsontext.loads(data, max_bytes=INPUT_BYTES), b"[" + b"{}," * 999_000 + b"1]", 160),
    "JSON of brackets": (lambda data: jsontext.loads(data, max_bytes=INPUT_BYTES), many(b"[", INPUT_BYTES), 60),
    "JSON of escapes": (lambda data: jsontext.loads(data, max_bytes=INPUT_BYTES), many(b"\\ud800", INPUT_BYTES, b'"', b'"'), 90),
    "JSON of one string": (lambda data: jsontext.loads(data, max_bytes=INPUT_BYTES), many(b'\\"', INPUT_BYTES, b'["', b'"]'), 60),
    "JSON of empty strings": (
        lambda data: jsontext.loads(data, max_bytes=INPUT_BYTES),
        many(b'"",', INPUT_BYTES, b"[", b'""]'),
        60,
    ),
    "JSON of quotes": (lambda data: jsontext.loads(data, max_bytes=INPUT_BYTES), many(b'"', INPUT_BYTES, b"["), 60),
    "manifest of tables": (manifest.parse_manifest, many(b"[[permissions.file_read]]\n", manifest.MAX_MANIFEST_BYTES), 20),
    "manifest of dotted keys": (
        manifest.parse_manifest,
        b"".join(b"a%d.%s\n" % (n, b".".join([b"a"] * 190) + b"=1") for n in range(160)),
        60,
    ),
    "manifest of unknown fields": (manifest.parse_manifest, b"".join(b"a%d=1\n" % n for n in range(7000)), 20),
    "policy of unknown fields": (
        lambda data: parse_policy(data.decode(), "p.toml"), b"".join(b"a%d=1\n" % n for n in range(7000)), 60,
    ),
    "attestations of nothing": (dsse.parse_lines, many(b"{}\n", dsse.MAX_ATTESTATIONS_BYTES), 20),
    "an envelope of signatures": (
        dsse.parse, many(b'{"sig":""},', dsse.MAX_ATTESTATIONS_BYTES, b'{"payloadType":"","payload":"","signatures":[', b"{}]}"), 30,
    ),
    "a statement of subjects": (
        intoto.parse,
        many(b"{},", intoto.MAX_STATEMENT_BYTES, b'{"_type":"%s","predicateType":"","predicate":{},"subject":[' % intoto.STATEMENT.encode(), b"1]}"),
        80,
    ),
    "a bundle of empty files": (bundle.read, many(EMPTY_FILE, bundle.MAX_BUNDLE_BYTES), 4),
    "a bundle of one name": (bundle.read, b"x" * bundle.MAX_BUNDLE_BYTES, 4),
    "an unpacked bundle of empty files": (
        lambda data: codestore.footprint(itertools.islice(codestore.read_tar(data), codestore.MAX_INODES + 1)),
        many(EMPTY_FILE, codestore.MAX_BUNDLE_BYTES),
        4,
    ),
    "an unpacked bundle of zeros": (lambda data: list(codestore.read_tar(data)), bytes(codestore.MAX_BUNDLE_BYTES), 40),
    "a schema of alternatives": (
        lambda data: Schema.parse(data, "s"), many(b"true,", MAX_SCHEMA_BYTES, b'{"anyOf":[', b"true]}"), 60,
    ),
    "a schema of names": (
        lambda data: Schema.parse(data, "s"),
        json.dumps({"properties": {f"a{n}": {"$ref": "#"} for n in range(10_000)}}).encode(),
        120,
    ),
}  # fmt: skip
"""The parser, its input, and how many MiB it may take beyond that: two or three times what was measured."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", WORST)
def test_memory_is_bounded(kind: str) -> None:
    parse, data, most_mib = WORST[kind]
    with contextlib.suppress(PlugindError):
        parse(data[:100])  # what is made once and kept is not the input's
    tracemalloc.start()
    try:
        with contextlib.suppress(PlugindError):
            parse(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    print(f"{kind}: {peak / MIB:.1f} MiB for {len(data) / MIB:.2f} MiB")
    assert peak < most_mib * MIB


def test_sealing_a_tar_makes_a_checksum_that_readers_take() -> None:
    """The helper of the fuzzers, which would find nothing if it were wrong."""
    damaged = bytearray(ustar.write([ustar.Member("a", b"x")]))
    damaged[0] = ord("b")
    assert [member.name for member in codestore.read_tar(sealed(bytes(damaged)))] == ["b"]
