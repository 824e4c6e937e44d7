"""What plugindctl takes from the daemon's packages, one small function each. Loaded only when a command needs it."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plugind_client.cli.problems import CommandError, Exit

if TYPE_CHECKING:
    from plugind.model import Limits, Manifest, Profile, Tier
    from plugind.provenance.keys import PrivateKey
    from plugind.sandbox.jailspec import JailSpec
    from plugind_client.records import PluginVersion

DEVELOPMENT_ID = "https://planexe.org/plugind/development"
"""builder.id and verifier.id of what development keys sign."""
EXAMPLE_UID = 1
"""An instance's uid within its tier's slice; which one it gets is known when it starts."""
_DAY_MS = 24 * 60 * 60 * 1000


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
    try:
        data = bundle.build(folder, version_suffix=version_suffix)
        read = bundle.read(data)
    except InvalidBundleError as error:
        message = f"{folder}: this is no plugin that can be built"
        raise CommandError(Exit.USAGE, message, error.problems, code="INVALID_BUNDLE") from None
    cases = tuple(Case(c.name, c.input, c.has_output, c.output, c.stage) for c in read.cases)
    return Built(data, bundle.bundle_name(read.manifest), read.manifest, read.digest, cases)


def is_name(text: str) -> bool:
    """Whether a plugin may be called so."""
    with packages_of("cli"):
        from plugind.provenance import grammar
    return grammar.NAME.fullmatch(text) is not None


def generate_key() -> tuple[PrivateKey, bytes]:
    """A new key and its PEM without a passphrase: for development."""
    with packages_of("cli"):
        from plugind.provenance.keys import PrivateKey
    key = PrivateKey.generate()
    return key, key.to_pem(None)


def load_key(pem: bytes) -> PrivateKey:
    """A development key.

    Raises:
        ValueError: it is none.
    """
    with packages_of("cli"):
        from plugind.errors import InvalidRequestError
        from plugind.provenance.keys import PrivateKey
    try:
        return PrivateKey.from_pem(pem)
    except InvalidRequestError as error:
        raise ValueError(str(error)) from None


def attest(built: Built, publisher: PrivateKey, vetter: PrivateKey | None, now_unix_ms: int) -> bytes:
    """The text of the .intoto.jsonl: the publisher's provenance and, with a vetter, its summary for one day."""
    with packages_of("cli"):
        from plugind.provenance import dsse, intoto
    said = intoto.provenance(
        built.manifest, built.file_name, built.digest, builder_id=DEVELOPMENT_ID, now_unix_ms=now_unix_ms
    )
    envelopes = [dsse.sign(said, [publisher])]
    if vetter is not None:
        summary = intoto.summary(
            built.file_name,
            built.digest,
            verifier_id=DEVELOPMENT_ID,
            policy_sha256=hashlib.sha256(b"plugindctl try: nothing was checked").hexdigest(),
            now_unix_ms=now_unix_ms,
            not_after_unix_ms=now_unix_ms + _DAY_MS,
        )
        envelopes.append(dsse.sign(summary, [vetter]))
    return dsse.to_lines(envelopes)


def jail_spec(built: Built, tier: Tier) -> JailSpec:
    """The jail that the plugin in a folder would get in a tier, with the limits that it asks for."""
    return _jail_spec(tier, built.manifest.limits, built.digest)


def jail_spec_of_version(version: PluginVersion) -> JailSpec:
    """The jail of a registered version: as approved, or as asked for where nothing is approved yet."""
    with packages_of("cli"):
        from plugind.model import Limits
    approval = version.approval
    limits = approval.limits if approval else version.limits
    # The approval may narrow what the evidence gives, never widen it; a higher number is less trust.
    tier = max(version.tier, approval.tier) if approval else version.tier
    return _jail_spec(as_tier(tier), Limits(**dataclasses.asdict(limits)), version.digest)


def as_tier(number: int) -> Tier:
    """A number as a tier; what is no tier is the least trusted."""
    from plugind.model import TIERS

    return next((tier for tier in TIERS if tier == number), 2)


def _jail_spec(tier: Tier, limits: Limits, digest: str) -> JailSpec:
    from plugind.sandbox import jailspec

    profile = profiles()[tier]
    return jailspec.build(profile, jailspec.effective_limits(limits, profile), digest, EXAMPLE_UID)


def profiles() -> dict[int, Profile]:
    """The tiers' profiles of this installation.

    Raises:
        CommandError: a file is missing or wrong.
    """
    from plugind.errors import ConfigError
    from plugind.profiles import load_profiles, profiles_dir

    try:
        return load_profiles(profiles_dir())
    except ConfigError as error:
        raise CommandError(Exit.USAGE, str(error), code="CONFIG") from None
