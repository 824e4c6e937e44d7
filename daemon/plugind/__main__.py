"""The command line of the daemon."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from plugind import config, errors

_EXAMPLES = """examples:
  sudo plugind serve --standalone --dev                      for you alone, at the usual places
  sudo plugind serve --standalone --dev --state /tmp/state --socket /tmp/plugind.sock
  plugind check                                              would it start here?

exit codes:
  0  it was stopped in order, or the check held        6  a fault of plugind itself, or the launcher is gone
  2  a flag, the configuration or a path is wrong      7  a check did not hold
  3  refused: not root, another daemon, a state that is another daemon's or damaged
"""
EXIT_USAGE, EXIT_REFUSED, EXIT_FAULT, EXIT_CHECK = 2, 3, 6, 7
EXIT_CODES: dict[type[errors.PlugindError], int] = {
    errors.ConfigError: EXIT_USAGE,
    errors.NotAllowedError: EXIT_REFUSED,
    errors.AlreadyRunningError: EXIT_REFUSED,
    errors.StateError: EXIT_REFUSED,
}
"""Every other PlugindError is EXIT_FAULT."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit with its code."""
    options = _parser().parse_args(arguments)
    try:
        sys.exit(_run(options))
    except errors.PlugindError as error:
        config.log(str(error))
        sys.exit(EXIT_CODES.get(type(error), EXIT_FAULT))
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        config.log(f"{error.filename or 'the system'}: {error.strerror}")
        sys.exit(EXIT_FAULT)


def _run(options: argparse.Namespace) -> int:
    flags = config.Flags(
        config=options.config,
        state=options.state,
        socket=options.socket,
        admin_socket=options.admin_socket,
        dev=getattr(options, "dev", False),
        standalone=getattr(options, "standalone", False),
    )
    loaded = config.load(flags, os.environ)
    if options.command == "check":
        from plugind import check  # noqa: PLC0415 - each command imports what it needs

        return check.check(loaded)
    from plugind import app  # noqa: PLC0415 - the same

    return app.serve(loaded)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="plugind",
        description="Runs other people's plugins in a jail, after they were verified and approved.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", metavar="serve | check", required=True)
    serve = _command(commands, "serve", "run the daemon in the foreground")
    serve.add_argument("--standalone", action="store_true", help="start the launcher too, without systemd (needs root)")
    serve.add_argument(
        "--dev", action="store_true", help="one socket, mode 0600, with every role for whoever typed sudo"
    )
    _command(
        commands, "check", "check configuration, profiles and this machine, and change nothing; exits 7 on a failure"
    )
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str
) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_argument(
        "--config", type=_path, metavar="FILE", help=f"default: {config.DEFAULT_CONFIG}, if it is there"
    )
    command.add_argument(
        "--state",
        type=_path,
        metavar="DIR",
        help=f"default: {config.DEFAULT_STATE}, with --dev {config.DEFAULT_DEV_STATE}",
    )
    command.add_argument("--socket", type=_path, metavar="PATH", help=f"default: {config.DEFAULT_SOCKET}")
    command.add_argument(
        "--admin-socket",
        type=_path,
        metavar="PATH",
        help=f"default: {config.DEFAULT_ADMIN_SOCKET}; with --dev there is none, one socket serves both",
    )
    return command


def _path(text: str) -> Path:
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError("expected a path, got an empty text")
    return Path(text)


if __name__ == "__main__":
    main()
