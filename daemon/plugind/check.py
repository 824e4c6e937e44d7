"""`plugind check`: would the daemon start here? Changes nothing."""

from __future__ import annotations

from plugind.api import listen
from plugind.config import ServeConfig
from plugind.errors import PlugindError
from plugind.profiles import builtin_digests, load_profiles, profiles_dir
from plugind.sandbox import features

EXIT_CHECK = 7


def check(config: ServeConfig) -> int:
    """Print what holds and what does not; 0, or 7 when something does not. Raises nothing that is a PlugindError."""
    problems = 0
    folder = config.profiles or profiles_dir()
    try:
        listen.check_path(config.socket)
        _say("ok", f"socket {config.socket}")
    except PlugindError as error:
        problems += 1
        _say("FAILED", str(error))
    try:
        profiles = load_profiles(folder)
        builtin_digests(folder)
        _say("ok", f"profiles {folder}")
    except PlugindError as error:
        _say("FAILED", str(error))
        return EXIT_CHECK
    found = features.probe()
    for tier, profile in sorted(profiles.items()):
        lacking = features.missing(profile, found)
        problems += bool(lacking)
        _say("FAILED" if lacking else "ok", f"tier {tier}: " + (", ".join(lacking) or "this machine has what it needs"))
    return EXIT_CHECK if problems else 0


def _say(mark: str, text: str) -> None:
    print(f"{mark:<7}{text}")  # noqa: T201 - the answer
