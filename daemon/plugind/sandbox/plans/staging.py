"""stage: write what is to come beside the plan's files, see what it replaces, and change none of them."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from plugind.errors import PlanError
from plugind.planfiles import Entry, folders_of
from plugind.sandbox.plans import stagings
from plugind.sandbox.plans.calls import FILE, NEW_FILE, Calls
from plugind.sandbox.plans.files import Found, read_file
from plugind.sandbox.plans.journal import Change, Journal, Made, State
from plugind.sandbox.plans.opening import Plan, opened, refusal, split
from plugind.sandbox.plans.orders import count_of, run_of
from plugind.sandbox.plans.stagings import PROBES, Staging, staging_opened

MOST_OLD_BYTES: Final = 64 * 1024 * 1024
"""Of all that is replaced together, unless the order says something else."""
MOST_FOLDERS: Final = 900
"""In which files may lie that are written together: below OPEN_FILES (helper.py), with what else is open then."""
_FILE_MODE: Final = 0o644
_FOLDER_MODE: Final = 0o755


@dataclass(frozen=True, slots=True)
class _Target:
    """A path, what is to come there, and what is there now."""

    entry: Entry
    found: Found | None
    missing: tuple[str, ...]
    """The folders on the way to it that are not there."""

    @property
    def is_expected(self) -> bool:
        """Whether what is there is what whoever decided on the change has seen there."""
        if "expected_sha256" in self.entry.facts:
            return bool(self.entry.facts["expected_sha256"] == (self.found.sha256 if self.found else ""))
        return self.entry.mark == (self.found.mark if self.found else "")

    @property
    def deletes(self) -> bool:
        return self.entry.content is None


def stage(plan: Plan, entries: Sequence[Entry], facts: Mapping[str, Any]) -> list[Entry]:
    """Stage the entries for run `run`; what is there now, of each. `most_bytes`: of all that together.

    Raises PlanError: "conflict" (names every file), "file", "large", "denied", "busy". Then nothing is left behind.
    """
    run, most_bytes = run_of(facts), count_of({"most_bytes": MOST_OLD_BYTES, **facts}, "most_bytes")
    for entry in entries:
        if (entry.content is None) != (entry.facts.get("delete") is True):
            raise PlanError("fault", f"{entry.path}: expected content, or none and `delete`")
    if len(folders_of(entry.path for entry in entries)) > MOST_FOLDERS:
        # All are open while it is settled, which is too late to find out.
        raise PlanError("large", f"expected files in at most {MOST_FOLDERS} folders, got more")
    targets = _looked_at(plan, entries, most_bytes)
    if changed := [target.entry.path for target in targets if not target.is_expected]:
        raise PlanError(
            "conflict", f"changed by somebody meanwhile: {', '.join(changed)}: run again with what is there"
        )
    _remove_leftover(plan, run)
    stagings.make(plan, run)
    try:
        with staging_opened(plan, run) as staging:
            if staging is None:
                raise PlanError("conflict", f"{stagings.name_of(run)}: somebody has taken it away")
            _fill(plan, staging, targets)
    except (OSError, PlanError):
        with staging_opened(plan, run) as staging:
            if staging is not None:
                staging.remove(plan)
        raise
    return [_answer(target) for target in targets]


def _answer(target: _Target) -> Entry:
    if target.found is None:
        return Entry(target.entry.path)
    return Entry(target.entry.path, target.found.content, target.found.mark, facts={"mode": target.found.mode})


def _looked_at(plan: Plan, entries: Sequence[Entry], most_bytes: int) -> list[_Target]:
    targets = []
    for entry in entries:
        missing = _missing(plan, entry.path)
        found = None if missing else _found(plan, entry.path, most_bytes)
        most_bytes -= len(found.content) if found else 0
        targets.append(_Target(entry, found, missing))
    new = {target.entry.path for target in targets if not target.deletes}
    for target in targets:
        if inside := new.intersection(target.missing):
            raise PlanError("file", f"{target.entry.path}: expected a folder on the way, got the file {inside.pop()}")
    return targets


def _missing(plan: Plan, path: str) -> tuple[str, ...]:
    """The folders on the way to a file that are not there, from the top. Raises PlanError "file", "denied"."""
    parts = path.split("/")[:-1]
    for depth in range(1, len(parts) + 1):
        folder = "/".join(parts[:depth])
        try:
            plan.folder(folder)
        except FileNotFoundError:
            return tuple("/".join(parts[:each]) for each in range(depth, len(parts) + 1))
        except OSError as error:
            raise refusal(error, folder) from error
    return ()


def _found(plan: Plan, path: str, most_bytes: int) -> Found | None:
    parent, name = split(path)
    return read_file(plan.calls, plan.folder(parent), name, path, most_bytes)


def _remove_leftover(plan: Plan, run: str) -> None:
    """Whatever an interrupted stage of this run has left. Raises PlanError "fault" where that was completed."""
    with staging_opened(plan, run) as staging:
        if staging is None:
            return
        if staging.journal() is not None:
            raise PlanError("fault", f"{stagings.name_of(run)}: expected no staging of this run, got a complete one")
        staging.remove(plan)


def _fill(plan: Plan, staging: Staging, targets: Sequence[_Target]) -> None:
    calls = plan.calls
    _probe(calls, staging)
    folders = _made(calls, staging, targets)
    names = [f"f{number}" for number in range(len(targets))]
    for name, target in zip(names, targets, strict=True):
        if not target.deletes:
            _write(plan, staging, name, target)
    changes = []
    for name, target in zip(names, targets, strict=True):  # synced when all are written: the first waits for most
        new = None if target.deletes else _synced(calls, staging, name, target.entry.content or b"")
        old = None if target.found is None else _state(target.found)
        if new is not None or old is not None:
            changes.append(Change(target.entry.path, name, new, old))
    calls.fsync(staging.descriptor)
    staging.put_journal(Journal(staging.run, tuple(changes), folders))
    calls.fsync(plan.folder(""))


def _probe(calls: Calls, staging: Staging) -> None:
    """Find out now whether the file system can do what settling needs."""
    for name in PROBES:
        calls.mkdir(staging.descriptor, name, 0o700)
    try:
        calls.exchange(staging.descriptor, PROBES[0], staging.descriptor, PROBES[1])
    except OSError as error:
        expected = "expected a file system that exchanges names (renameat2: ext4, xfs, btrfs, tmpfs)"
        raise PlanError("open", f"{expected}, got: {error}: move the plan to one") from error
    for name in PROBES:
        calls.rmdir(staging.descriptor, name)


def _made(calls: Calls, staging: Staging, targets: Sequence[_Target]) -> tuple[Made, ...]:
    """Folders that will be moved into place: whose inode is in the journal was made by us."""
    paths = sorted({path for target in targets if not target.deletes for path in target.missing})
    made = []
    for number, path in enumerate(paths):
        name = f"d{number}"
        calls.mkdir(staging.descriptor, name, _FOLDER_MODE)
        status = calls.stat(staging.descriptor, name)
        if status is None:
            raise PlanError("conflict", f"{path}: somebody has taken its folder out of the staging")
        made.append(Made(path, name, status.st_ino))
    return tuple(made)


def _write(plan: Plan, staging: Staging, name: str, target: _Target) -> None:
    calls, found = plan.calls, target.found
    with opened(calls, staging.descriptor, name, NEW_FILE, 0o600 if found else _FILE_MODE) as file:
        calls.write(file, target.entry.content or b"")
        calls.begin_sync(file)
        if found is not None:
            _keep_rights(calls, file, found, target.entry.path)
        elif not target.missing:
            folder = calls.fstat(plan.folder(split(target.entry.path)[0]))
            if folder.st_mode & stat.S_ISGID:
                _keep_group(calls, file, folder.st_gid)


def _keep_rights(calls: Calls, file: int, found: Found, path: str) -> None:
    """Let nobody read or write the new file who could not read or write the old one."""
    mode = found.mode
    if not _keep_group(calls, file, found.status.st_gid):
        if found.access_list:
            raise PlanError("denied", f"{path}: its access list is for a group that the caller is not in")
        mode = (mode & ~0o070) | (mode & 0o007) << 3  # this group may what others may
    calls.fchmod(file, mode)
    if found.access_list:
        calls.set_access_list(file, found.access_list)


def _keep_group(calls: Calls, file: int, gid: int) -> bool:
    """Whether the file has the group now: only a member of it can give it away."""
    if calls.fstat(file).st_gid == gid:
        return True
    try:
        calls.fchown(file, gid)
    except PermissionError:
        return False
    return True


def _synced(calls: Calls, staging: Staging, name: str, content: bytes) -> State:
    with opened(calls, staging.descriptor, name, FILE) as file:
        calls.fsync(file)
        status = calls.fstat(file)
    return State(
        status.st_ino, len(content), status.st_mtime_ns, hashlib.sha256(content).hexdigest(), status.st_mode & 0o777
    )


def _state(found: Found) -> State:
    status = found.status
    return State(status.st_ino, status.st_size, status.st_mtime_ns, found.sha256, found.mode)
