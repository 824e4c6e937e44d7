"""Specimens of the corpus: a plugin's source with a header that says what it does and what has to come of it.

The header is TOML: the end of the module's docstring from the line `[corpus]` on, or in a script (.sh) the leading
comment. README.md of this folder explains every key. What is not understood is refused: a specimen that means nothing
would pass for ever.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parent
CATEGORIES: Final[Mapping[str, tuple[str, ...]]] = {
    "unsafe": ("exfiltration", "resources", "escapes", "slow_burn", "poisoning", "over_asking", "tampered"),
    "benign": ("libraries", "calculations", "files", "concurrency", "habits", "unsteady"),
}
EXPECTED: Final = ("ok", "contained", "blocked")
OUTCOMES: Final = frozenset(
    "ok failed timeout cpu_exceeded out_of_memory pids_exceeded output_limit output_invalid violation".split()
)
QUARANTINE: Final = (True, "breaker", "held", False)
APPROVALS: Final = ("declared", "nothing", "none")
_TABLES: Final = ("corpus", "manifest", "input_schema", "output_schema")
_KEYS: Final[Mapping[str, type | tuple[type, ...]]] = {
    "tries": str,
    "habit": str,
    "tier": int,
    "runs": int,
    "inputs": list,
    "numbered": str,
    "stage": str,
    "sensitivity": str,
    "approve": str,
    "tamper": str,
    "expected": str,
    "outcomes": list,
    "codes": list,
    "says": str,
    "refused": list,
    "quarantine": (bool, str),
    "why": str,
    "outputs": list,
    "check": str,
    "most_failures_percent": int,
}


class InvalidSpecimenError(ValueError):
    """A header that says too little, or what nobody understands."""


@dataclass(frozen=True)
class Specimen:
    """One plugin and what has to come of it."""

    name: str
    category: str
    benign: bool
    source: str
    entry: str
    """Name of the file that `source` is, in the bundle."""
    what: str
    """What it tries, or its habit: one sentence."""
    inputs: tuple[Any, ...]
    """Run i has input i, and after the last one the first again."""
    expected: str
    """ok, contained (it ran, and got nothing) or blocked (it never ran)."""
    extra_files: Mapping[str, bytes]
    tier: int = 2
    runs: int = 1
    numbered: str = ""
    """Key of the input that is the number of the run."""
    stage: str = ""
    sensitivity: str = ""
    approve: str = "declared"
    tamper: str = ""
    """Name of what is done to its bundle (tampering.py)."""
    outcomes: frozenset[str] = frozenset({"ok"})
    codes: frozenset[str] = frozenset()
    says: str = ""
    """Of one that is blocked: a part of what is said about it."""
    refused: frozenset[str] = frozenset()
    """Names of violations that have to be listed."""
    quarantine: bool | str = False
    """True: after the run that was bad; "breaker": by way of the circuit breaker; "held": the breaker holds it for a
    time, and it may go no further than that; False: nothing holds it."""
    outputs: tuple[Any, ...] = ()
    """What comes out, of each input; none: any."""
    check: str = ""
    """An expression about `payload` and `output` that has to hold."""
    most_failures_percent: int = 0
    manifest: Mapping[str, Any] | None = None
    input_schema: Any = True
    output_schema: Any = True

    @property
    def id(self) -> str:
        return f"{'benign' if self.benign else 'unsafe'}-{self.category}-{self.name}"

    def payload(self, run: int) -> Any:
        """The input of a run, counted from 0."""
        given = self.inputs[run % len(self.inputs)]
        return given | {self.numbered: run} if self.numbered else given


def load_all(root: Path = ROOT) -> list[Specimen]:
    """All specimens by category and name. Raises InvalidSpecimenError, also for a name that is there twice."""
    found = [load(path) for path in sorted(_entries(root))]
    names = [each.name for each in found]
    if double := sorted({name for name in names if names.count(name) > 1}):
        raise InvalidSpecimenError(f"{root}: expected each name once, got twice: {', '.join(double)}")
    return found


def load(path: Path) -> Specimen:
    """The specimen of KIND/CATEGORY/NAME.py (or .sh), or of KIND/CATEGORY/NAME/ with NAME.py and more files."""
    entry = path
    files: dict[str, bytes] = {}
    if path.is_dir():
        (entry,) = [each for each in path.glob(f"{path.name}.*") if each.suffix in (".py", ".sh")]
        files = {
            each.relative_to(path).as_posix(): each.read_bytes()
            for each in sorted(path.rglob("*"))
            if each.is_file() and each != entry and each.suffix != ".pyc"
        }
    kind, category = path.parts[-3:-1]
    return parse(entry.read_text(), kind=kind, category=category, entry=entry.name, extra_files=files)


def parse(
    source: str, *, kind: str, category: str, entry: str, extra_files: Mapping[str, bytes] | None = None
) -> Specimen:
    """A specimen from its source. Raises InvalidSpecimenError with what is wrong."""
    where = f"{kind}/{category}/{entry}"
    if category not in CATEGORIES.get(kind, ()):
        raise InvalidSpecimenError(f"{where}: expected a category of {dict(CATEGORIES)}, got {kind}/{category}")
    tables = _tables(source, where)
    header = _checked(tables["corpus"], where)
    benign = kind == "benign"
    told = "habit" if benign else "tries"
    made = Specimen(
        name=Path(entry).stem,
        category=category,
        benign=benign,
        source=source,
        entry=entry,
        what=header.pop(told, ""),
        inputs=tuple(header.pop("inputs", ())),
        expected=header.pop("expected", "ok" if benign else ""),
        extra_files=extra_files or {},
        manifest=tables.get("manifest", {}),
        **{key: tables[key] for key in ("input_schema", "output_schema") if key in tables},
        **_fields(header, where),
    )
    if problems := [
        *_problems(made, header),
        *(f"{key}: expected only of others" for key in {"tries", "habit"} & {*header}),
    ]:
        raise InvalidSpecimenError(f"{where}: {'; '.join(problems)}")
    return made


def _entries(root: Path) -> list[Path]:
    folders = [root / kind / category for kind, categories in CATEGORIES.items() for category in categories]
    return [
        each
        for folder in folders
        if folder.is_dir()
        for each in folder.iterdir()
        if each.suffix in (".py", ".sh") or (each.is_dir() and each.name != "__pycache__")
    ]


def _tables(source: str, where: str) -> dict[str, Any]:
    lines = _header_text(source, where).splitlines()
    if "[corpus]" not in lines:
        raise InvalidSpecimenError(f"{where}: expected a header that begins with the line [corpus], got none")
    try:
        tables = tomllib.loads("\n".join(lines[lines.index("[corpus]") :]))
    except (ValueError, RecursionError) as error:
        raise InvalidSpecimenError(f"{where}: expected TOML after [corpus]: {error}") from error
    if unknown := sorted({*tables} - {*_TABLES}):
        raise InvalidSpecimenError(f"{where}: expected the tables {', '.join(_TABLES)}, got {', '.join(unknown)}")
    return tables


def _header_text(source: str, where: str) -> str:
    if where.endswith(".sh"):
        lines = source.splitlines()
        return "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines if line.startswith("#"))
    try:
        return ast.get_docstring(ast.parse(source)) or ""
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InvalidSpecimenError(f"{where}: expected Python: {error}") from error


def _checked(header: Any, where: str) -> dict[str, Any]:
    """The table `[corpus]`, each of its keys known and of its type."""
    if not isinstance(header, dict):
        raise InvalidSpecimenError(f"{where}: corpus: expected a table, got {type(header).__name__}")
    for key, value in header.items():
        if key not in _KEYS:
            raise InvalidSpecimenError(f"{where}: expected only {', '.join(_KEYS)}, got {key}")
        wanted = _KEYS[key]
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is int):
            raise InvalidSpecimenError(f"{where}: {key}: expected {wanted}, got {value!r}")
    return dict(header)


def _fields(header: dict[str, Any], where: str) -> dict[str, Any]:
    """What is left of a header as fields of a Specimen, but for what it says for people."""
    fields = {key: value for key, value in header.items() if key not in ("tries", "habit", "why")}
    for key in ("outcomes", "codes", "refused"):
        if key in fields:
            if not all(isinstance(each, str) for each in fields[key]):
                raise InvalidSpecimenError(f"{where}: {key}: expected a list of words, got {fields[key]!r}")
            fields[key] = frozenset(fields[key])
    if "outputs" in fields:
        fields["outputs"] = tuple(fields["outputs"])
    return fields


def _problems(made: Specimen, header: Mapping[str, Any]) -> list[str]:
    """Everything that does not fit together."""
    why = str(header.get("why", ""))
    explained = made.expected == "contained" and not made.benign and made.quarantine in (False, "held")
    rules = (
        (bool(made.what.strip()), "tries or habit: expected one sentence"),
        (bool(made.inputs), "inputs: expected at least one"),
        (made.runs >= 1, "runs: expected at least 1"),
        (made.tier in (1, 2), "tier: expected 1 or 2"),
        (made.approve in APPROVALS, f"approve: expected one of {APPROVALS}"),
        (made.expected in EXPECTED, f"expected: expected one of {EXPECTED}"),
        ((made.expected == "ok") == made.benign, "expected: expected ok of what is benign, and of nothing else"),
        (made.quarantine in QUARANTINE, f"quarantine: expected one of {QUARANTINE}"),
        (made.benign or "quarantine" in header, "quarantine: expected to be said of what is unsafe"),
        (not (made.benign and "quarantine" in header), "quarantine: expected of nothing that is benign"),
        (bool(made.outcomes) and made.outcomes <= OUTCOMES, f"outcomes: expected of {sorted(OUTCOMES)}"),
        (made.expected != "contained" or "outcomes" in header, "outcomes: expected of what is contained"),
        (made.expected != "blocked" or bool(made.codes or made.says), "codes or says: expected of what is blocked"),
        (made.expected == "blocked" or not (made.codes or made.says), "codes, says: expected only with blocked"),
        (not explained or bool(why.strip()), "why: expected where it does not end in quarantine"),
        (explained or not why, "why: expected only where what is contained does not end in quarantine"),
        (not made.outputs or len(made.outputs) == len(made.inputs), "outputs: expected one of each input"),
        (not made.benign or bool(made.outputs or made.check), "outputs or check: expected of what is benign"),
        (0 <= made.most_failures_percent < 50, "most_failures_percent: expected 0 to 49"),
        (not made.numbered or all(isinstance(each, dict) for each in made.inputs), "numbered: expected tables"),
        ((made.category == "tampered") == bool(made.tamper), "tamper: expected of what is tampered, and of no other"),
    )
    return [problem for holds, problem in rules if not holds]
