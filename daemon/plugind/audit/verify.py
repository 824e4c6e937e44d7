"""Does the ledger still say what it said? Reads everything, changes nothing, names what does not hold.

1. every segment begins where the one before it ended, every line is whole and in its place
2. the Merkle root over all records is the one that the checkpoint says
3. every INTENT has at most one OUTCOME or DENIED, and every one of those has its INTENT before it; the same of what
   became of files of a plan: an OUTCOME that puts some there, or a RESTORE, and its COMMITTED or UNDONE
4. every payload is where its record says, with its digest
5. what the journal has seen agrees
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from plugind.audit import checkpoint, payloads
from plugind.audit.checkpoint import Checkpoint
from plugind.audit.merkle import Frontier, leaf_hash
from plugind.audit.records import Stored, read_line, stored_in
from plugind.audit.segments import lines, segments
from plugind.errors import StateError

MOST_FINDINGS: Final = 1000


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that does not hold. `line` counts from 1; 0: about no line. `log_id` empty: about no record."""

    segment: str
    line: int
    log_id: str
    expected: str
    got: str

    def __str__(self) -> str:
        place = ":".join(filter(None, (self.segment, str(self.line) if self.line else "", self.log_id)))
        return f"{place}: expected {self.expected}, got {self.got}"


@dataclass(frozen=True, slots=True)
class Report:
    """What was checked and what was found."""

    origin: str
    segments: int
    records: int
    root: bytes
    """Over the records that the checkpoint covers, as recomputed."""
    checkpoint_size: int
    payloads: int
    payload_bytes: int
    open_intents: tuple[int, ...]
    """INTENTs that nothing closes: they run, or the daemon was killed and has not started since."""
    journal_records: int
    """How many the journal had seen; 0 without a journal."""
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


def verify(directory: Path, journal: Iterable[tuple[int, str]] | None = None) -> Report:
    """Check a ledger, in use or not. `journal`: index and leaf hash (hex) of what was seen elsewhere, taken before.

    Raises OSError.
    """
    return _Check(directory).run(journal)


class _Check:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.findings: list[Finding] = []
        self.notes: list[str] = []
        self.leaves: dict[int, bytes] = {}
        self.frontier = Frontier()
        self.root: bytes | None = None
        self.intents: dict[int, int | None] = {}
        self.changes: dict[int, int | None] = {}
        """By INTENT or RESTORE: which record says what became of its files; None: none so far."""
        self.started = 0
        """How many of them there were when a daemon began last."""
        self.checked: dict[Stored, str] = {}
        self.next_index = 0
        self.damaged: set[int] = set()

    def run(self, journal: Iterable[tuple[int, str]] | None) -> Report:
        seen = None if journal is None else list(journal)
        known = self._known()  # before the records: it never says more than is there
        paths = segments(self.directory)
        if known and known.size == 0:
            self.root = self.frontier.root()
        for path in paths:
            self._segment(path, known, last=path == paths[-1])
        self._tree(known)
        still_open = tuple(index for index, closing in self.intents.items() if closing is None)
        if still_open:
            self.notes.append(f"open, without an outcome so far: {_logs(still_open)}")
        before = list(self.changes.items())[: self.started]
        if untold := [index for index, told in before if told is None]:
            self.notes.append(
                f"files put into a plan, or not, before a daemon began: nothing says which: {_logs(untold)}"
            )
        if seen is not None:
            self._journal(seen)
        return Report(
            origin=known.origin if known else "",
            segments=len(paths),
            records=len(self.leaves),
            root=self.root or self.frontier.root(),
            checkpoint_size=known.size if known else 0,
            payloads=len(self.checked),
            payload_bytes=sum(stored.bytes for stored in self.checked),
            open_intents=still_open,
            journal_records=len(seen or ()),
            findings=tuple(self.findings[:MOST_FINDINGS]),
            notes=tuple(self.notes),
        )

    def _find(self, segment: str, line: int, log_id: str, expected: str, got: str) -> None:
        self.findings.append(Finding(segment, line, log_id, expected, got))

    def _known(self) -> Checkpoint | None:
        try:
            found = checkpoint.read(self.directory)
        except StateError as error:
            self._find(checkpoint.NAME, 0, "", "a whole checkpoint", str(error))
            return None
        if found is None:
            self._find(checkpoint.NAME, 0, "", "a checkpoint", "no such file")
        return found

    # 1.

    def _segment(self, path: Path, known: Checkpoint | None, *, last: bool) -> None:
        first = int(path.stem)
        if first != self.next_index:
            missing = f"no record from log_{self.next_index} to log_{first - 1}"
            expected = f"a segment that begins with log_{self.next_index}"
            self._find(path.name, 0, "", expected, missing if first > self.next_index else f"one with log_{first}")
            self.next_index = first
        size = 0
        for number, text in lines(path):
            self._line(path, number, text, known)
            size += len(text) + 1
        rest = path.stat().st_size - size
        if rest and not last:
            self._find(path.name, 0, "", "a newline at the end", f"{rest} bytes of a line without one")
        elif rest:
            self.notes.append(
                f"{path.name}: {rest} bytes at the end are no whole line: being written, or cut by a crash"
            )

    def _line(self, path: Path, number: int, text: bytes, known: Checkpoint | None) -> None:
        index = self.next_index
        log_id = f"log_{index}"
        self.next_index += 1
        leaf = leaf_hash(text)
        self.leaves[index] = leaf
        self.frontier.append(leaf)
        if known and self.frontier.size == known.size:
            self.root = self.frontier.root()
        try:
            fields = read_line(text)
        except (ValueError, RecursionError) as error:
            self.damaged.add(index)
            self._find(path.name, number, log_id, "a record as it was written", f"{str(error)[:200]} in {text[:60]!r}")
            return
        if fields.get("index") != index:
            self.damaged.add(index)
            self._find(path.name, number, log_id, f"the record with index {index}", f"index {fields.get('index')!r}")
            return
        self._pair(path, number, fields)
        self._pair_changes(path, number, fields)
        self._payloads(path, number, fields)

    # 2.

    def _tree(self, known: Checkpoint | None) -> None:
        if known is None:
            return
        if self.frontier.size < known.size:
            last = f"log_{self.next_index - 1}" if self.next_index else "no record"
            self._find(checkpoint.NAME, 0, f"log_{self.next_index}", f"{known.size} records", f"{last} as the last one")
        elif self.root != known.root:
            got = self.root.hex() if self.root else "another"
            # A line with its own check made right again: the journal may know which.
            self._find(checkpoint.NAME, 0, "", f"root {known.root.hex()} over {known.size} records", got)
        late = self.frontier.size - known.size
        if late > 0:
            self.notes.append(f"the newest {late} records are not in the checkpoint yet")

    # 3.

    def _pair(self, path: Path, number: int, fields: dict[str, Any]) -> None:
        index, intent = fields["index"], fields.get("intent", -1)
        if fields.get("event") == "INTENT":
            self.intents[index] = None
        if fields.get("event") not in {"OUTCOME", "DENIED"} or intent < 0:
            if fields.get("event") == "OUTCOME":
                self._find(path.name, number, f"log_{index}", "the index of its INTENT", str(intent))
            return
        if intent not in self.intents:
            if intent not in self.damaged:
                self._find(path.name, number, f"log_{index}", f"log_{intent} to be its INTENT", "no such INTENT")
        elif (before := self.intents[intent]) is not None:
            expected = f"one outcome of log_{intent}"
            self._find(path.name, number, f"log_{index}", expected, f"a second one after log_{before}")
        else:
            self.intents[intent] = index

    def _pair_changes(self, path: Path, number: int, fields: dict[str, Any]) -> None:
        index, event, of = fields["index"], fields.get("event"), fields.get("intent", -1)
        if event == "START":
            self.started = len(self.changes)
        elif event == "RESTORE" or (event == "OUTCOME" and fields.get("plan_dir") and fields.get("files")):
            self.changes.setdefault(index if event == "RESTORE" else of, None)
        if event not in {"COMMITTED", "UNDONE"}:
            return
        if of not in self.changes:
            if not self.damaged:  # what it belongs to may be the one that cannot be read
                expected = f"an OUTCOME of log_{of} with files of a plan, or a RESTORE that is it"
                self._find(path.name, number, f"log_{index}", expected, "neither")
        elif (before := self.changes[of]) is not None:
            expected = f"one record of what became of the files of log_{of}"
            self._find(path.name, number, f"log_{index}", expected, f"a second one after log_{before}")
        else:
            self.changes[of] = index

    # 4.

    def _payloads(self, path: Path, number: int, fields: dict[str, Any]) -> None:
        log_id = f"log_{fields['index']}"
        try:
            having = stored_in(fields)
            for stored in having:
                if stored.pack >= 0 and stored not in self.checked:
                    self.checked[stored] = self._read_payload(stored)
        except (KeyError, TypeError) as error:
            self._find(path.name, number, log_id, "the places of its payloads", repr(error))
            return
        for stored in having:
            if problem := self.checked.get(stored):
                self._find(path.name, number, log_id, f"its payload with sha256 {stored.sha256}", problem)

    def _read_payload(self, stored: Stored) -> str:
        try:
            payloads.read(self.directory, stored)
        except StateError as error:
            return str(error)
        return ""

    # 5.

    def _journal(self, seen: list[tuple[int, str]]) -> None:
        for index, digest in seen:
            leaf = self.leaves.get(index)
            if leaf is None:
                self._find(
                    "journal", 0, f"log_{index}", f"the record that the journal has ({digest})", "no such record"
                )
            elif leaf.hex() != digest:
                self._find("journal", 0, f"log_{index}", f"leaf hash {digest}, as the journal has it", leaf.hex())
        missing = sorted(set(self.leaves) - {index for index, _ in seen})
        if missing:
            self.notes.append(f"in the ledger, not in the journal: {_logs(missing)}")


def _logs(indexes: Iterable[int]) -> str:
    """Indexes as ranges: log_1, log_3–log_5."""
    ranges: list[list[int]] = []
    for index in indexes:
        if ranges and index == ranges[-1][1] + 1:
            ranges[-1][1] = index
        else:
            ranges.append([index, index])
    told = [f"log_{first}" if first == last else f"log_{first}–log_{last}" for first, last in ranges[:20]]
    return ", ".join(told) + (f" and {len(ranges) - 20} more ranges" if len(ranges) > 20 else "")
