"""Small plugins for tests: folders, bundles, signatures."""

from __future__ import annotations

import json
import time
from pathlib import Path

from plugind.model import Approval, Caller, Limits, Permission
from plugind.provenance import bundle, dsse, intoto
from plugind.provenance.keys import PrivateKey

DAY_MS = 24 * 3600 * 1000
ECHO = "def run(payload, context):\n    return payload\n"
OPERATOR = Caller(1000, 1000, 1, frozenset({"caller", "operator"}))
CALLER = Caller(2000, 2000, 2, frozenset({"caller"}))


def folder(
    parent: Path,
    name: str = "echo",
    version: str = "1.0.0",
    code: str = ECHO,
    *,
    stages: tuple[str, ...] = ("*",),
    extra: str = "",
    input_schema: object = True,
    output_schema: object = True,
    origin: str = "authored",
    environment: str = "base",
) -> Path:
    """A plugin's folder; `extra` is more TOML."""
    target = parent / f"{name}-{version}"
    (target / "schemas").mkdir(parents=True)
    (target / "plugin.toml").write_text(
        f'schema = 1\nname = "{name}"\nversion = "{version}"\nsummary = "For tests"\nlicense = "MIT"\n'
        f'origin = "{origin}"\nruntime = "python"\nrequires_python = ">=3.11"\nenvironment = "{environment}"\n'
        f'interface = "json"\nentrypoint = "{name}:run"\nstages = {json.dumps(list(stages))}\ndeterministic = true\n'
        f"{extra}"
    )
    (target / f"{name}.py").write_text(code)
    (target / "schemas/input.json").write_text(json.dumps(input_schema))
    (target / "schemas/output.json").write_text(json.dumps(output_schema))
    return target


def program(
    parent: Path, name: str, content: str | bytes, *, limits: str = "", input_schema: object = True, stage: str = "*"
) -> Path:
    """The folder of a plugin with runtime "exec"; `content` is its program, `limits` lines of TOML."""
    target = parent / f"{name}-1.0.0"
    (target / "schemas").mkdir(parents=True)
    (target / "bin").mkdir()
    (target / "plugin.toml").write_text(
        f'schema = 1\nname = "{name}"\nversion = "1.0.0"\nsummary = "For tests"\nlicense = "MIT"\norigin = "authored"\n'
        f'runtime = "exec"\nentrypoint = "bin/{name}"\nstages = ["{stage}"]\n[limits]\n{limits}\n'
    )
    (target / "bin" / name).write_bytes(content.encode() if isinstance(content, str) else content)
    (target / "bin" / name).chmod(0o755)
    (target / "schemas/input.json").write_text(json.dumps(input_schema))
    (target / "schemas/output.json").write_text("true")
    return target


def built(parent: Path, *arguments: str, **named: object) -> bytes:
    """Its bundle."""
    return bundle.build(folder(parent, *arguments, **named))  # type: ignore[arg-type]


def attested(data: bytes, publisher: PrivateKey, vetter: PrivateKey | None = None, not_after_unix_ms: int = 0) -> bytes:
    """Attestations for a bundle: a publisher's, and a vetter's."""
    read = bundle.read(data)
    now = time.time_ns() // 1_000_000
    name = bundle.bundle_name(read.manifest)
    said = [
        dsse.sign(
            intoto.provenance(read.manifest, name, read.digest, builder_id="urn:test", now_unix_ms=now), [publisher]
        )
    ]
    if vetter is not None:
        summary = intoto.summary(
            name,
            read.digest,
            verifier_id="urn:test",
            policy_sha256="0" * 64,
            now_unix_ms=now,
            not_after_unix_ms=not_after_unix_ms or now + DAY_MS,
        )
        said.append(dsse.sign(summary, [vetter]))
    return dsse.to_lines(said)


def approval(
    tier: int = 2,
    stages: tuple[str, ...] = ("*",),
    permissions: tuple[Permission, ...] = (),
    limits: Limits | None = None,
    by_uid: int = 7,
    reason: str = "looked at",
    not_after_unix_ms: int = 0,
) -> Approval:
    """An approval as an approver gives it."""
    return Approval(tier, stages, permissions, limits or Limits(), by_uid, 1, reason, not_after_unix_ms)  # type: ignore[arg-type]
