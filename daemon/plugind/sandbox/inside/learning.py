"""Notes what a plugin tries to open, for an author who wants to know which files of a plan it needs.

Only in a run that learns (`plugindctl try --learn`, development daemons). What is noted is what Python itself tells its
audit hooks: a library that opens files with calls of its own is not seen. The plugin could write the notes itself; it
is its author's, and nothing is permitted because of them.

Source: SPEC.md, "Files of a plan"; sys.addaudithook, PEP 578.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Final

PLAN_DIR: Final = "/grant/read/plan"
OUTPUT_DIR: Final = "/grant/write/output"
LEARNED: Final = ".learned.plugind"
"""As in plugind.planfiles, which is not here; the call may name other folders."""
MOST: Final = 1000
"""Notes of one run; what comes after them is not noted."""
_MOST_CHARS: Final = 1024
"""Of a path."""
_OWN: Final = ("/plugin", "/tmp", "/dev", "/proc", "/environment")  # noqa: S108 - the instance's own
_WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def begin(call: dict[str, str]) -> None:
    """From here on, when this call is to learn. There is no end: a hook stays as long as its interpreter."""
    if call.get("learn") != "1":
        return
    notes = Notes(call.get("plan_dir") or PLAN_DIR, call.get("output_dir") or OUTPUT_DIR)
    sys.addaudithook(notes.hear)


class Notes:
    """What was opened, once each, one JSON object a line."""

    def __init__(self, plan: str, output: str) -> None:
        """Raises OSError: there is no output folder to write them to."""
        self._places = {"plan": f"{plan}/", "output": f"{output}/"}
        interpreter = {sys.prefix, sys.base_prefix, sys.exec_prefix, *sys.path}
        self._ours = tuple(f"{path.rstrip('/')}/" for path in (*_OWN, *interpreter) if path.startswith("/"))
        self._seen: dict[tuple[str, str, str], bytes] = {}
        # Opened once, before anybody listens: to write a note is nothing that a hook is told.
        self._file = os.open(f"{output}/{LEARNED}", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def hear(self, event: str, given: tuple[Any, ...]) -> None:
        """The hook. What it raised would come out of the plugin's own call."""
        if event not in ("open", "os.rename", "os.remove"):
            return
        try:
            if event == "open":
                self._opened(given[0], given[2])
            elif event == "os.rename":
                self._renamed(given[0], given[1])
            else:
                self._forget(given[0])
        except Exception:  # noqa: S110 - a full disk, a closed descriptor, a name that is none
            pass

    def _opened(self, path: Any, flags: int) -> None:
        if not isinstance(path, str | bytes):
            return  # a descriptor: it was opened before
        place, absolute, shown = self._placed(path)
        mode = "write" if flags & _WRITING else "read"
        if not place or os.path.isdir(absolute):
            return
        self._note(place, shown, mode, found=os.path.lexists(absolute))

    def _renamed(self, source: Any, target: Any) -> None:
        """Who writes a file and then gives it its name wants to write the file of that name."""
        if self._forget(source):
            place, absolute, shown = self._placed(target)
            self._note(place, shown, "write", found=os.path.lexists(absolute))

    def _forget(self, path: Any) -> bool:
        """Whether it was noted as an output; it is none any more."""
        place, _, shown = self._placed(path)
        if place != "output" or self._seen.pop((place, shown, "write"), None) is None:
            return False
        os.ftruncate(self._file, 0)
        self._write(b"".join(self._seen.values()))
        return True

    def _placed(self, path: str | bytes) -> tuple[str, str, str]:
        """Which place a path is in, the path whole, and as it is shown. Empty place: it is nobody's business."""
        absolute = os.path.abspath(os.fsdecode(path))
        for place, folder in self._places.items():
            if absolute.startswith(folder):
                shown = absolute.removeprefix(folder)
                return ("" if shown == LEARNED else place), absolute, shown
        return ("" if absolute.startswith(self._ours) else "elsewhere"), absolute, absolute

    def _note(self, place: str, path: str, mode: str, *, found: bool) -> None:
        key = (place, path, mode)
        if not place or key in self._seen or len(self._seen) >= MOST:
            return
        told = {"path": path[:_MOST_CHARS], "mode": mode, "place": place, "found": found}
        self._seen[key] = line = json.dumps(told).encode() + b"\n"
        self._write(line)

    def _write(self, lines: bytes) -> None:
        left = memoryview(lines)
        while left:
            left = left[os.write(self._file, left) :]
