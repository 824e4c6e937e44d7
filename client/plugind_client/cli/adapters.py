"""What plugindctl takes from the daemon's packages, one small function each. Loaded only when a command needs it."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plugind_client.cli.problems import CommandError, Exit

if TYPE_CHECKING:
    from plugind.model import Limits, Manifest, Profile, Tier
    from plugind.provenance.bundle import Bundle
    from plugind.provenance.keys import PrivateKey
    from plugind.sandbox import features
    from plugind.sandbox.features import Feature
    from plugind.sandbox.jailspec import JailSpec
    from plugind_client.records import PluginVersion

DEVELOPMENT_ID = "https://planexe.org/plugind/development"
"""builder.id and verifier.id of what development keys sign."""
EXAMPLE_UID = 1
"""An instance's uid within its tier's slice; which one it gets is known when it starts."""
DAY_MS = 24 * 60 * 60 * 1000


@contextlib.contextmanager
def packages_of(extra: str) -> Iterator[None]:
    """Says which extra to install when a package of it is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        message = f"the package {error.name} is missing: install it with `pip install 'plugind[{extra}]'`"
        raise CommandError(Exit.USAGE, message, code="PACKAGE_MISSING") from None


@dataclass(frozen=True, slots=True)
class Case:
    """One of a plugin's own cases."""

    name: str
    input: Any
    has_output: bool
    output: Any
    stage: str


@dataclass(frozen=True, slots=True)
class Built:
    """A bundle with what is known of it."""

    data: bytes
    file_name: str
    manifest: Manifest
    digest: str
    cases: tuple[Case, ...]

    @property
    def label(self) -> str:
        """NAME VERSION."""
        return f"{self.manifest.name} {self.manifest.version}"


def build(folder: Path, version_suffix: str = "") -> Built:
    """The bundle of a plugin's folder.

    Raises:
        CommandError: it is none; its lines are all problems.
    """
    with packages_of("cli"):
        from plugind.errors import InvalidBundleError
        from plugind.provenance import bundle
    if folder.is_dir() and not (folder / "plugin.toml").exists():  # before everything below any folder is read
        message = f"{folder}: this is no plugin's folder"
        hint = "there is no plugin.toml in it; `plugindctl new NAME` makes a folder with one"
        raise CommandError(Exit.USAGE, message, [hint], code="INVALID_BUNDLE")
    try:
        data = bundle.build(folder, version_suffix=version_suffix)
        read = bundle.read(data)
    except InvalidBundleError as error:
        message = f"{folder}: this is no plugin that can be built"
        raise CommandError(Exit.USAGE, message, error.problems, code="INVALID_BUNDLE") from None
    return _built(data, read)


def read_bundle(path: Path) -> Built:
    """The bundle in a file, checked in full.

    Raises:
        CommandError: it is none; its lines are all problems.
    """
    with packages_of("cli"):
        from plugind.errors import InvalidBundleError
        from plugind.provenance import bundle
    with path.open("rb") as file:
        data = file.read(bundle.MAX_BUNDLE_BYTES + 1)
    try:
        read = bundle.read(data)
    except InvalidBundleError as error:
        message = f"{path}: this is no valid bundle"
        lines = [*error.problems, "`plugindctl build DIR` makes one of a plugin's folder"]
        raise CommandError(Exit.USAGE, message, lines, code="INVALID_BUNDLE") from None
    return _built(data, read)


def _built(data: bytes, read: Bundle) -> Built:
    from plugind.provenance import bundle

    cases = tuple(Case(c.name, c.input, c.has_output, c.output, c.stage) for c in read.cases)
    return Built(data, bundle.bundle_name(read.manifest), read.manifest, read.digest, cases)


def is_name(text: str) -> bool:
    """Whether a plugin may be called so."""
    with packages_of("cli"):
        from plugind.provenance import grammar
    return grammar.NAME.fullmatch(text) is not None


def generate_key(passphrase: bytes | None = None) -> tuple[PrivateKey, bytes]:
    """A new key and its PEM; without a passphrase for development only."""
    with packages_of("cli"):
        from plugind.provenance.keys import PrivateKey
    key = PrivateKey.generate()
    return key, key.to_pem(passphrase)


def load_key(pem: bytes, passphrase: bytes | None = None) -> PrivateKey:
    """A private key.

    Raises:
        ValueError: it is none, or the passphrase is missing, wrong or one too many.
    """
    with packages_of("cli"):
        from plugind.errors import InvalidRequestError
        from plugind.provenance.keys import PrivateKey
    try:
        return PrivateKey.from_pem(pem, passphrase)
    except InvalidRequestError as error:
        raise ValueError(str(error)) from None


def key_uri(key: PrivateKey) -> str:
    """What a key's owner is called who has given no builder.id or verifier.id: by the key."""
    return f"https://planexe.org/plugind/key/{key.public.keyid}"


def publisher_line(built: Built, key: PrivateKey, builder_id: str, now_unix_ms: int) -> bytes:
    """A line of the .intoto.jsonl: the publisher's provenance."""
    with packages_of("cli"):
        from plugind.provenance import dsse, intoto
    said = intoto.provenance(
        built.manifest, built.file_name, built.digest, builder_id=builder_id, now_unix_ms=now_unix_ms
    )
    return dsse.to_lines([dsse.sign(said, [key])])


def vetter_line(
    built: Built, key: PrivateKey, verifier_id: str, policy_sha256: str, now_unix_ms: int, days: int
) -> bytes:
    """A line of the .intoto.jsonl: the vetter's summary, which holds for so many days."""
    with packages_of("cli"):
        from plugind.provenance import dsse, intoto
    said = intoto.summary(
        built.file_name,
        built.digest,
        verifier_id=verifier_id,
        policy_sha256=policy_sha256,
        now_unix_ms=now_unix_ms,
        not_after_unix_ms=now_unix_ms + days * DAY_MS,
    )
    return dsse.to_lines([dsse.sign(said, [key])])


def attest(built: Built, publisher: PrivateKey, vetter: PrivateKey | None, now_unix_ms: int) -> bytes:
    """The text of the .intoto.jsonl: the publisher's provenance and, with a vetter, its summary for one day."""
    lines = publisher_line(built, publisher, DEVELOPMENT_ID, now_unix_ms)
    if vetter is not None:
        nothing = hashlib.sha256(b"plugindctl try: nothing was checked").hexdigest()
        lines += vetter_line(built, vetter, DEVELOPMENT_ID, nothing, now_unix_ms, 1)
    return lines


def voices(attestations: bytes, where: Path, digest: str) -> frozenset[str]:
    """The roles that say something about these bytes in an .intoto.jsonl. No signature is verified.

    Raises:
        CommandError: it is none; the message tells the line.
    """
    with packages_of("cli"):
        from plugind.errors import InvalidBundleError
        from plugind.provenance import dsse, intoto
    roles = {intoto.PROVENANCE: "publisher", intoto.VSA: "vetter"}
    try:
        said = [intoto.parse(envelope.payload) for envelope in dsse.parse_lines(attestations, str(where))]
    except InvalidBundleError as error:
        message = f"{where}: these are no attestations"
        raise CommandError(Exit.USAGE, message, error.problems, code="INVALID_BUNDLE") from None
    about = [statement.predicate_type for statement in said if digest in statement.subject_digests]
    return frozenset(roles[kind] for kind in about if kind in roles)


def policy_digest(path: Path | None) -> str:
    """sha256 of a valid policy file: the one named, the configured one, or the one that was installed.

    Raises:
        CommandError: it is none.
    """
    with packages_of("cli"):
        from plugind import config
        from plugind.errors import ConfigError
        from plugind.policyfile import load_policy, shipped_policy
    try:
        return load_policy(path or config.load(config.Flags(), os.environ).policy or shipped_policy()).digest
    except ConfigError as error:
        raise CommandError(Exit.USAGE, str(error), code="CONFIG") from None


def jail_spec(built: Built, tier: Tier) -> JailSpec:
    """The jail that the plugin in a folder would get in a tier, with the limits that it asks for."""
    return _jail_spec(
        tier,
        built.manifest.limits,
        built.digest,
        [(each.kind, each.entry) for each in built.manifest.permissions],
    )


def jail_spec_of_version(version: PluginVersion) -> JailSpec:
    """The jail of a registered version: as approved, or as asked for where nothing is approved yet."""
    with packages_of("cli"):
        from plugind.model import Limits
    approval = version.approval
    limits = approval.limits if approval else version.limits
    # The approval may narrow what the evidence gives, never widen it; a higher number is less trust.
    tier = max(version.tier, approval.tier) if approval else version.tier
    permissions = approval.permissions if approval else version.permissions
    return _jail_spec(
        as_tier(tier),
        Limits(**dataclasses.asdict(limits)),
        version.digest,
        [(each.kind, each.entry_json) for each in permissions],
    )


def _hosts(permissions: Iterable[tuple[str, str]]) -> list[str]:
    """Whom a plugin may talk to, by its permissions' kinds and entries."""
    return sorted({json.loads(entry)["host"] for kind, entry in permissions if kind == "network"})


def as_tier(number: int) -> Tier:
    """A number as a tier; what is no tier is the least trusted."""
    from plugind.model import TIERS

    return next((tier for tier in TIERS if tier == number), 2)


def _jail_spec(tier: Tier, limits: Limits, digest: str, permissions: Collection[tuple[str, str]]) -> JailSpec:
    from plugind.sandbox import jailspec, rootfs

    profile = profiles()[tier]
    limits = jailspec.effective_limits(limits, profile)
    spec = jailspec.build(profile, limits, digest, EXAMPLE_UID, rootfs.ground(profile))
    kinds, files, hosts = {kind for kind, _ in permissions}, profile.files, _hosts(permissions)
    spec = jailspec.with_files(
        spec,
        reads="file_read" in kinds and files.read_files > 0,
        write_files=files.write_files if "file_write" in kinds else 0,
        write_bytes=files.write_bytes,
    )
    if not hosts or not profile.network_bytes_per_second:
        return spec
    return jailspec.with_network(spec, f"addresses found at the start, of {', '.join(hosts)}")


def profiles() -> dict[int, Profile]:
    """The tiers' profiles, where the daemon's configuration or else this installation has them.

    Raises:
        CommandError: a file is missing or wrong.
    """
    from plugind import config
    from plugind.errors import ConfigError
    from plugind.profiles import load_profiles, profiles_dir

    try:
        return load_profiles(config.load(config.Flags(), os.environ).profiles or profiles_dir())
    except ConfigError as error:
        raise CommandError(Exit.USAGE, str(error), code="CONFIG") from None


@dataclass(frozen=True, slots=True)
class MachineCheck:
    """A fact about this machine and the tiers that require it. `ok` is None where it takes root to find out."""

    name: str
    ok: bool | None
    found: str
    tiers: tuple[int, ...]
    remedy: str = ""
    command: str = ""
    instead: str = ""


@dataclass(frozen=True, slots=True)
class Machine:
    """What this machine has of what the tiers' profiles require."""

    tiers: tuple[int, ...]
    checks: tuple[MachineCheck, ...]
    tight: Mapping[int, Sequence[str]] = field(default_factory=dict)
    """By tier: what a plugin may ask for there and this machine does not have."""


def machine() -> Machine:
    """The facts about this machine, found out by trying.

    Raises:
        CommandError: the profiles cannot be read.
    """
    from plugind import config
    from plugind.errors import ConfigError
    from plugind.sandbox import features
    from plugind.sandbox.network import probing

    try:
        network_range = config.load(config.Flags(), os.environ).network_range
    except ConfigError as error:
        raise CommandError(Exit.USAGE, str(error), code="CONFIG") from None
    return machine_of(features.Machine(), profiles(), probing.facts(probing.settings(network_range)))


def machine_of(asked: features.Machine, tiers: Mapping[int, Profile], networks: Sequence[Feature] = ()) -> Machine:
    """The same, about a given machine, with what is known of its networks."""
    from plugind.sandbox import features

    tight = {tier: features.tight(asked, profile) for tier, profile in sorted(tiers.items())}
    found = features.probe(asked) | {feature.name: feature for feature in networks}
    return dataclasses.replace(judged(found, tiers), tight=tight)


def judged(found: Mapping[str, Feature], tiers: Mapping[int, Profile]) -> Machine:
    """The same, of given facts."""
    from plugind.sandbox import features

    rows = [
        MachineCheck(**dataclasses.asdict(check.feature), tiers=check.needed_by)
        for check in features.checks(found, tiers)
    ]
    return Machine(tuple(sorted(tiers)), tuple(rows))
