"""One target under atheris: python -m tests.soak.fuzz.one NAME [libFuzzer's arguments]. `run.py` starts it."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["plugind", "tomllib"]):
    from tests.soak.fuzz.targets import TARGETS


def main() -> None:
    """Never returns: libFuzzer ends the process."""
    name, *arguments = sys.argv[1:]
    atheris.Setup([name, *arguments], TARGETS[name].check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
