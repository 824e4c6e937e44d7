"""Files of a plan in a plugind in memory: real folders, and what a run was given of them and leaves.

Patterns are respected, and all or nothing is written. What is not there: limits, plan roots, and a look at whether
somebody else has changed a file while the answer was made.

Source: SPEC.md, "Files of a plan".
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from plugind_client.memory.answers import Ending
from plugind_client.planfiles import digest, matches
from plugind_client.planfolder import PlanProblem, put, read
from plugind_client.records import Reason
from plugind_proto.v1 import common_pb2, registry_pb2, runtime_pb2

KINDS: Final = ("file_read", "file_write")


class PlanRefused(Exception):  # noqa: N818 - a denial
    """Why a run cannot be given its files."""

    def __init__(self, rule: str, expected: str, actual: str) -> None:
        super().__init__()
        self.reason: Final = Reason("INPUT_INVALID", f"plans.{rule}", expected, actual)


@dataclass(frozen=True, slots=True)
class PlanContext:
    """What an answer has as its second argument: as a plugin's own context. A folder is empty without permission."""

    stage: str
    plan_id: str
    scratch_dir: str
    plan_dir: str
    output_dir: str


class Workspace:
    """The folders of one run. They are made when an answer asks for its context, and gone with `close`."""

    def __init__(
        self, request: runtime_pb2.RunRequest, version: registry_pb2.PluginVersion, sent: Mapping[str, bytes] | None
    ) -> None:
        """Raises PlanRefused."""
        self._request = request
        self._patterns = {kind: list(_patterns(version, kind)) for kind in KINDS}
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._context: PlanContext | None = None
        self.given: Mapping[str, bytes] = {}
        """What it may read."""
        self.plan_dir = request.plan_dir if any(self._patterns.values()) and sent is None else ""
        """Where what it writes comes; empty: back to the caller, or nowhere."""
        self.written: dict[str, bytes] = {}
        self.replaced: dict[str, bytes] = {}
        if any(self._patterns.values()):
            self.given = self._taken(sent)

    def _taken(self, sent: Mapping[str, bytes] | None) -> Mapping[str, bytes]:
        wanted = self._patterns["file_read"]
        if sent is not None:
            return {path: content for path, content in sent.items() if matches(path, wanted)}
        if not os.path.isdir(self.plan_dir):  # noqa: PTH112 - text, as it came
            raise PlanRefused("folder", "the plan's folder, plan_dir, or files", self.plan_dir or "none")
        try:
            return read(self.plan_dir, wanted)
        except PlanProblem as problem:
            raise PlanRefused("file", "regular files with one name", str(problem)) from None

    def context(self) -> PlanContext:
        """What it was given, in real folders."""
        if self._context is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="plugind-fake-")
            places = {name: Path(self._temporary.name, name) for name in ("scratch", "plan", "output")}
            for place in places.values():
                place.mkdir()
            for path, content in self.given.items():
                target = places["plan"] / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
            self._context = PlanContext(
                self._request.stage,
                self._request.plan_id,
                str(places["scratch"]),
                str(places["plan"]) if self._patterns["file_read"] else "",
                str(places["output"]) if self._patterns["file_write"] else "",
            )
        return self._context

    def settled(self, ending: Ending) -> Ending:
        """The same ending with what was written in its place, or another one and nothing written."""
        if ending.outcome != "ok" or ending.reasons or not (self._context and self._context.output_dir):
            return ending
        found = dict(_left(Path(self._context.output_dir)))
        wrong = [path for path, content in found.items() if content is None or not self._may_write(path)]
        if wrong:
            told = [common_pb2.Violation(kind="file", name=path, count=1) for path in wrong]
            expected = "expected regular files that a pattern of file_write means"
            return Ending("violation", f"{wrong[0]}: {expected}", violations=tuple(told))
        contents = {path: content for path, content in found.items() if content is not None}
        try:
            before = self._there(contents)
            if self.plan_dir:
                put(self.plan_dir, contents, {})
        except (PlanProblem, OSError) as error:
            return Ending("canceled", f"nothing was written: {error}")
        self.written, self.replaced = contents, before
        return ending

    def _may_write(self, path: str) -> bool:
        return matches(path, self._patterns["file_write"])

    def _there(self, paths: Mapping[str, bytes]) -> dict[str, bytes]:
        now = read(self.plan_dir, self._patterns["file_write"], only_good=True) if self.plan_dir else self.given
        return {path: content for path, content in now.items() if path in paths}

    def close(self) -> None:
        """The folders are gone."""
        if self._temporary is not None:
            self._temporary.cleanup()

    # --- what is told of it ----------------------------------------------------------------------------------------

    def of_intent(self) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Fields of an INTENT, and payloads."""
        files = [{"path": path, "content": _stored(content)} for path, content in self.given.items()]
        return {"plan_dir": self.plan_dir, "files": files}, {f"file:{path}": each for path, each in self.given.items()}

    def of_outcome(self) -> tuple[dict[str, Any], dict[str, bytes]]:
        """The same of an OUTCOME."""
        files = [
            {"path": path, "content": _stored(content), "replaced": _stored(self.replaced.get(path))}
            for path, content in self.written.items()
        ]
        payloads = {f"file:{path}": content for path, content in self.written.items()}
        payloads |= {f"replaced:{path}": content for path, content in self.replaced.items()}
        return {"plan_dir": self.plan_dir if files else "", "files": files}, payloads

    def messages(self) -> list[runtime_pb2.WrittenFile]:
        """What was written, for the answer."""
        return [
            runtime_pb2.WrittenFile(
                path=path,
                sha256=digest(content),
                bytes=len(content),
                replaced_sha256=digest(self.replaced[path]) if path in self.replaced else "",
                replaced_bytes=len(self.replaced.get(path, b"")),
            )
            for path, content in self.written.items()
        ]


def _patterns(version: registry_pb2.PluginVersion, kind: str) -> Iterator[str]:
    for each in version.approval.permissions:
        path = json.loads(each.entry_json or "{}").get("path") if each.kind == kind else None
        if isinstance(path, str):
            yield path


def _left(output: Path) -> Iterator[tuple[str, bytes | None]]:
    """Path and content of what is in an output folder; None for what is no regular file with one name."""
    for path in sorted(output.rglob("*")):
        kind = path.lstat()
        if not stat.S_ISDIR(kind.st_mode):
            regular = stat.S_ISREG(kind.st_mode) and kind.st_nlink == 1
            yield path.relative_to(output).as_posix(), path.read_bytes() if regular else None


def _stored(content: bytes | None) -> dict[str, Any]:
    """As a record tells of a payload. It is in no pack."""
    sha256 = "" if content is None else digest(content)
    return {"sha256": sha256, "bytes": len(content or b""), "pack": -1, "offset": -1}
