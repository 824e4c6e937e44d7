"""keys new and sign: a person's own key, and what is said with it about a bundle. Neither needs a daemon."""

from __future__ import annotations

import enum
import getpass
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plugind_client.cli import adapters
from plugind_client.cli.files import replace, write_new
from plugind_client.cli.problems import CommandError, Exit
from plugind_client.cli.screen import note, print_json
from plugind_client.cli.settings import JsonFlag, SocketPath, examples, settled

if TYPE_CHECKING:
    from plugind.provenance.keys import PrivateKey
    from plugind_client.cli.adapters import Built

EXPIRES_DAYS = 90
"""How long a vetter's summary holds unless it says otherwise."""


class SignAs(enum.StrEnum):
    """The roles that can sign here."""

    PUBLISHER = "publisher"
    VETTER = "vetter"


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    keys = typer.Typer(no_args_is_help=True, help="Make keys to sign plugins with.")
    keys.command(
        name="new", epilog=examples("plugindctl keys new publisher.pem", "plugindctl keys new dev.pem --no-passphrase")
    )(new)
    app.add_typer(keys, name="keys")
    app.command(
        epilog=examples(
            "plugindctl sign cost_rollup-0.1.0.plugin.tar --key publisher.pem",
            "plugindctl sign cost_rollup-0.1.0.plugin.tar --key vetter.pem --as vetter --expires 30",
        )
    )(sign)


def new(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where the private key goes; FILE.pub has the public.")],
    no_passphrase: Annotated[
        bool, typer.Option("--no-passphrase", help="For development: whoever can read the file can sign.")
    ] = False,
    as_json: JsonFlag = False,
    socket: SocketPath = None,
) -> None:
    """Make an Ed25519 key: PKCS#8 with a passphrase, readable by you alone.

    Nothing is overwritten. Who runs a daemon names FILE.pub in its trust root.
    """
    settings = settled(context, as_json, socket)
    public_file = file.with_name(f"{file.name}.pub")
    for path in (file, public_file):
        if path.exists() or path.is_symlink():
            raise CommandError(Exit.USAGE, f"{path}: is there already, and nothing is overwritten")
    key, pem = adapters.generate_key(None if no_passphrase else _chosen_passphrase())
    write_new(file, pem, 0o600)
    write_new(public_file, key.public.to_pem(), 0o644)
    if no_passphrase:
        note("this key has no passphrase: it is for development, never for what others trust")
    if settings.as_json:
        print_json({"keyid": key.public.keyid, "file": str(file), "public_file": str(public_file)})
        return
    print(key.public.keyid)
    note(f"wrote {file}, which stays with you, and {public_file}, which goes to who runs the daemon")


def _chosen_passphrase() -> bytes:
    _needs_terminal("a passphrase is asked for on a terminal; `--no-passphrase` is for development")
    chosen = getpass.getpass("Passphrase of the new key: ")
    if not chosen:
        raise CommandError(Exit.USAGE, "expected a passphrase, got nothing; `--no-passphrase` is for development")
    if getpass.getpass("The same again: ") != chosen:
        raise CommandError(Exit.USAGE, "the two passphrases differ, and nothing was written")
    return chosen.encode()


def _needs_terminal(otherwise: str) -> None:
    if not sys.stdin.isatty():
        raise CommandError(Exit.USAGE, otherwise)


def sign(
    context: typer.Context,
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A .plugin.tar, as `plugindctl build` makes it.")],
    key_file: Annotated[
        Path, typer.Option("--key", metavar="FILE", help="Your private key; see `keys new`.", show_default=False)
    ],
    role: Annotated[
        SignAs, typer.Option("--as", help="publisher: you built it. vetter: you checked it, and it passed.")
    ] = SignAs.PUBLISHER,
    builder: Annotated[
        str | None, typer.Option(metavar="ID", help="Publisher: who built it, a URI.", show_default="by the key")
    ] = None,
    verifier: Annotated[
        str | None, typer.Option(metavar="ID", help="Vetter: who checked it, a URI.", show_default="by the key")
    ] = None,
    expires: Annotated[
        int | None,
        typer.Option(metavar="DAYS", min=1, max=3650, help="Vetter: holds so long.", show_default=str(EXPIRES_DAYS)),
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Vetter: checked against it.", show_default="the one in force here"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Without it BUNDLE.intoto.jsonl.", show_default=False),
    ] = None,
    as_json: JsonFlag = False,
    socket: SocketPath = None,
) -> None:
    """Sign a bundle: that you built it, or that you checked it.

    What you say is added to what others have said in the same file. `plugindctl submit` hands both in.
    """
    settings = settled(context, as_json, socket)
    wrong = (verifier, expires, policy) if role is SignAs.PUBLISHER else (builder,)
    if any(wrong):
        named = "--verifier, --expires and --policy are" if role is SignAs.PUBLISHER else "--builder is"
        raise CommandError(Exit.USAGE, f"{named} not for a {role}")
    built = adapters.read_bundle(bundle)
    target = output or bundle.with_name(f"{bundle.name}.intoto.jsonl")
    before = target.read_bytes() if target.exists() else b""
    adapters.voices(before, target, built.digest)
    checked = adapters.policy_digest(policy) if role is SignAs.VETTER else ""
    key = _key(key_file)
    line = _line(built, key, builder or verifier or adapters.key_uri(key), checked, expires or EXPIRES_DAYS)
    replace(target, before + (b"\n" if before and not before.endswith(b"\n") else b"") + line)
    said = {"file": str(target), "keyid": key.public.keyid, "role": str(role), "sha256": built.digest}
    if settings.as_json:
        print_json(said)
        return
    print(target)
    note(f"{built.label}, sha256 {built.digest}: signed as {role} with key {key.public.keyid}")
    note(f"hand it in with `plugindctl submit {bundle}`")


def _line(built: Built, key: PrivateKey, who: str, checked: str, days: int) -> bytes:
    now_unix_ms = time.time_ns() // 1_000_000
    if checked:
        return adapters.vetter_line(built, key, who, checked, now_unix_ms, days)
    return adapters.publisher_line(built, key, who, now_unix_ms)


def _key(path: Path) -> PrivateKey:
    pem = path.read_bytes()
    passphrase = None
    if b"ENCRYPTED PRIVATE KEY" in pem:
        _needs_terminal(f"{path}: its passphrase is asked for on a terminal")
        passphrase = getpass.getpass(f"Passphrase of {path}: ").encode()
    try:
        return adapters.load_key(pem, passphrase)
    except ValueError as error:
        raise CommandError(Exit.USAGE, f"{path}: {error}", code="BAD_KEY") from None
