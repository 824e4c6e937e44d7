"""What is done to a bundle after it was built: each is given the daemon, a client, the specimen and its bytes, and
gives the digest under which the specimen is known; or raises what the daemon says to it."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

from plugind.provenance import bundle, ustar
from plugind.provenance.keys import PrivateKey
from plugind.provenance.ustar import Member
from plugind_client import Client
from tests.corpus import building
from tests.corpus.loader import Specimen
from tests.support.daemon import Daemon
from tests.support.plugins import attested

Tamper = Callable[[Daemon, Client, Specimen, bytes], str]


def _in_store(change: Callable[[Path, bytes], None]) -> Tamper:
    """Tampering with what the daemon has stored, after it was approved and before it is first loaded."""

    def tamper(daemon: Daemon, client: Client, specimen: Specimen, data: bytes) -> str:
        digest = building.submit(client, specimen, data)
        building.approve(client, specimen)
        (stored,) = daemon.state.rglob(f"store/**/{digest}")
        stored.chmod(0o600)
        change(stored, data)
        return digest

    return tamper


def _in_hand(change: Callable[[bytes], bytes]) -> Tamper:
    """Tampering with the bytes that are handed in."""

    def tamper(daemon: Daemon, client: Client, specimen: Specimen, data: bytes) -> str:
        return building.submit(client, specimen, change(data))

    return tamper


def _flip(data: bytes) -> bytes:
    """One bit of the code."""
    place = data.index(b"def run")
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def _other_plugin(stored: Path, data: bytes) -> None:
    stored.write_bytes(_again(data, lambda members: [_edited(member) for member in members]))


def _edited(member: Member) -> Member:
    return Member(member.name, member.data + b"\nprint('more')\n" if member.name.endswith(".py") else member.data)


def _again(data: bytes, change: Callable[[list[Member]], list[Member]]) -> bytes:
    """A bundle of changed members whose plugin.json lists them: valid, but another one."""
    index, *rest = _members(data)
    changed = sorted(change(rest), key=lambda member: member.name.encode())
    files = {member.name: hashlib.sha256(member.data).hexdigest() for member in changed}
    table = json.loads(index.data) | {"files": files}
    text = json.dumps(table, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
    return ustar.write([Member(index.name, text.encode()), *changed])


def _members(data: bytes) -> list[Member]:
    return ustar.read(data, max_members=100, max_member_bytes=1 << 20)


def _with_member(name: str, content: bytes = b"x = 1\n") -> Callable[[bytes], bytes]:
    """A file more, which plugin.json lists."""
    return lambda data: _again(data, lambda members: [*members, Member(name, content)])


def _unlisted(data: bytes) -> bytes:
    """A file more, of which plugin.json says nothing."""
    index, *rest = _members(data)
    return ustar.write([index, *sorted([*rest, Member("zz_more.py", b"x = 1\n")], key=lambda each: each.name.encode())])


def _other_bytes(data: bytes) -> bytes:
    """A file with other bytes than plugin.json says."""
    return ustar.write([member if member.name == bundle.INDEX else _edited(member) for member in _members(data)])


def _with_link(data: bytes) -> bytes:
    """A symbolic link as the last member, as any tar can have it."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        link = tarfile.TarInfo("zz_hosts")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/shadow"
        archive.addfile(link)
    return data[: -2 * ustar.BLOCK] + made.getvalue()[: ustar.BLOCK] + bytes(2 * ustar.BLOCK)


def _other_manifest(data: bytes) -> bytes:
    """plugin.json says less than plugin.toml: which one is believed?"""
    index, *rest = _members(data)
    table = json.loads(index.data)
    table["manifest"]["permissions"] = {}
    text = json.dumps(table, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
    return ustar.write([Member(index.name, text.encode()), *rest])


def _same_version(daemon: Daemon, client: Client, specimen: Specimen, data: bytes) -> str:
    """Other bytes under the name and version that were approved."""
    building.submit(client, specimen, data)
    building.approve(client, specimen)
    return building.submit(client, specimen, _again(data, lambda members: [_edited(member) for member in members]))


def _other_signature(daemon: Daemon, client: Client, specimen: Specimen, data: bytes) -> str:
    """The signatures of other bytes, good as they are: handed in with these."""
    keys = [PrivateKey.generate(), PrivateKey.generate()]
    other = _again(data, lambda members: [_edited(member) for member in members])
    pems = [key.public.to_pem().decode() for key in keys]
    submitted = client.submit(data, attested(other, *keys), development_public_keys=pems)
    client.approve(specimen.name, building.VERSION, tier=1, as_declared=True, reason="looked trusted")
    client.activate(specimen.name, building.VERSION)
    return submitted.digest


def _stranger(daemon: Daemon, client: Client, specimen: Specimen, data: bytes) -> str:
    """Signed, by keys that nobody trusts."""
    keys = [PrivateKey.generate(), PrivateKey.generate()]
    submitted = client.submit(data, attested(data, *keys))
    client.approve(specimen.name, building.VERSION, tier=1, as_declared=True, reason="looked trusted")
    client.activate(specimen.name, building.VERSION)
    return submitted.digest


BY_NAME: Mapping[str, Tamper] = {
    "flip_in_store": _in_store(lambda stored, data: stored.write_bytes(_flip(data)) and None),
    "truncate_in_store": _in_store(lambda stored, data: stored.write_bytes(data[: len(data) // 2]) and None),
    "append_in_store": _in_store(lambda stored, data: stored.write_bytes(data + bytes(512)) and None),
    "swap_in_store": _in_store(_other_plugin),
    "delete_from_store": _in_store(lambda stored, data: stored.unlink()),
    "unlisted_file": _in_hand(_unlisted),
    "other_bytes": _in_hand(_other_bytes),
    "dots_in_name": _in_hand(_with_member("../../escaped.py")),
    "absolute_name": _in_hand(_with_member("/etc/cron.d/job")),
    "backslash_name": _in_hand(_with_member("..\\escaped.py")),
    "case_double": _in_hand(_with_member("PLUGIN.TOML")),
    "link": _in_hand(_with_link),
    "trailing_bytes": _in_hand(lambda data: data + b"#!/bin/sh\n".ljust(512, b"\0")),
    "cut_short": _in_hand(lambda data: data[: -3 * ustar.BLOCK]),
    "other_manifest": _in_hand(_other_manifest),
    "same_version": _same_version,
    "other_signature": _other_signature,
    "stranger": _stranger,
}
