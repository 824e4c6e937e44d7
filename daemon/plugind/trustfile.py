"""root.json: whose signatures count, for which role, and how many. Source: SPEC.md, section "Provenance".

    {"version": 1, "expires": "2027-01-31T12:00:00Z",
     "keys": {"KEYID": {"keytype": "ed25519", "public": "-----BEGIN PUBLIC KEY-----…", "verifier_id": "…"}},
     "roles": {"publisher": {"keyids": ["KEYID"], "threshold": 1}, "vetter": {…}}}

A key id is the sha256 of the key's 32 raw bytes, hex. Rotation over several root files comes later.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from plugind import jsontext
from plugind.errors import ConfigError, InvalidBundleError, InvalidJsonError, InvalidRequestError
from plugind.provenance import intoto
from plugind.provenance.evidence import ROLES, RoleKeys, Trust, TrustedKey
from plugind.provenance.keys import PublicKey

MAX_BYTES: Final = 1024 * 1024
_ROLES: Final = ("root", "publisher", "vetter", "approver", "revoker", "log")


def load_trust(path: Path | None, now_unix_ms: int) -> Trust:
    """The trust of a file; without one nobody is trusted. Raises ConfigError with file, key, expected and got.

    One that has expired trusts nobody: everything is Tier 2 until a newer one is there.
    """
    if path is None:
        return Trust()
    try:
        table = jsontext.loads(path.read_bytes(), max_bytes=MAX_BYTES)
    except (OSError, InvalidJsonError) as error:
        raise ConfigError(f"{path}: the trust root cannot be read: {error}") from error
    fields = _table(path, "", table, ("version", "expires", "keys", "roles"))
    if type(fields["version"]) is not int or fields["version"] < 1:
        raise ConfigError(f"{path}: version: expected a whole number above 0, got {fields['version']!r}")
    try:
        expires = intoto.parse_rfc3339(str(fields["expires"]), f"{path}: expires")
    except InvalidBundleError as error:
        raise ConfigError(str(error)) from error
    keys = {keyid: _key(path, keyid, value) for keyid, value in _table(path, "keys", fields["keys"]).items()}
    roles = {
        name: _role(path, name, value, keys)
        for name, value in _table(path, "roles", fields["roles"], _ROLES, whole=False).items()
    }
    if expires <= now_unix_ms:
        return Trust()
    return Trust({role: roles[role] for role in ROLES if role in roles})


def _table(
    path: Path, where: str, value: object, known: tuple[str, ...] = (), *, whole: bool = True
) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: {where or 'the whole'}: expected an object, got {value!r:.80}")
    for name in value:
        if known and name not in known:
            raise ConfigError(f"{path}: {where}{'.' if where else ''}{name}: expected one of {', '.join(known)}")
    for name in known if whole else ():
        if name not in value:
            raise ConfigError(f"{path}: {where}{'.' if where else ''}{name}: expected a value, got nothing")
    return value


def _key(path: Path, keyid: str, value: object) -> TrustedKey:
    where = f"keys.{keyid[:16]}"
    fields = _table(path, where, value, ("keytype", "public", "verifier_id"), whole=False)
    if fields.get("keytype") != "ed25519":
        raise ConfigError(f'{path}: {where}.keytype: expected "ed25519", got {fields.get("keytype")!r}')
    try:
        key = PublicKey.from_pem(str(fields.get("public", "")).encode())
    except InvalidRequestError as error:
        raise ConfigError(f"{path}: {where}.public: {error}") from error
    if key.keyid != keyid:
        raise ConfigError(f"{path}: {where}: expected the key id {key.keyid}, the sha256 of the key, got {keyid}")
    return TrustedKey(key, str(fields.get("verifier_id", "")))


def _role(path: Path, name: str, value: object, keys: Mapping[str, TrustedKey]) -> RoleKeys:
    where = f"roles.{name}"
    fields = _table(path, where, value, ("keyids", "threshold"))
    keyids, threshold = fields["keyids"], fields["threshold"]
    if not isinstance(keyids, list) or not all(keyid in keys for keyid in keyids):
        raise ConfigError(f"{path}: {where}.keyids: expected ids of `keys`, got {keyids!r:.200}")
    if type(threshold) is not int or not 1 <= threshold <= len(set(keyids)):
        raise ConfigError(f"{path}: {where}.threshold: expected 1 to {len(set(keyids))}, got {threshold!r}")
    return RoleKeys(tuple(keys[keyid] for keyid in keyids), threshold)
