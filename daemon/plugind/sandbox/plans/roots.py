"""Below which folders plans lie, as the launcher itself reads it from the policy, whatever the front believes.

Nothing else of the policy is read or judged here: that is the front's (plugind.policy).
"""

from __future__ import annotations

import os
import stat
import tomllib
from pathlib import Path
from typing import Final

import plugind
from plugind.errors import PlanError
from plugind.planfiles import MOST_ROOTS, is_root, root_of

MAX_BYTES: Final = 1 << 20
"""A longer file is no policy (plugind.policyfile)."""
_ADD: Final = (
    '[plans] roots = ["…"] in policy.toml names the folders below which plans lie; then plugindctl policy check and'
    " systemctl reload plugind"
)
_Mark = tuple[int, int, int, int, int]


class Roots:
    """`[plans] roots`, read again whenever the file has changed.

    In a development daemon the owner of the checkout may own the file, and without roots each plan has the folder above
    its own.
    """

    def __init__(self, policy: Path | None, *, development: bool = False) -> None:
        self._policy = policy
        self._development = development
        self._owners = {0, os.stat(plugind.__file__).st_uid} if development else {0}
        self._mark: _Mark | None = None
        self._roots: tuple[str, ...] = ()
        self._problem = ""

    def above(self, plan_dir: str) -> str:
        """The root that a plan's folder is below. Raises PlanError "root" where there is none."""
        if not is_root(plan_dir) or not _is_text(plan_dir):
            raise PlanError(
                "root", f"plan_dir: expected an absolute path without . and .. parts, got {plan_dir!r:.200}"
            )
        self._look()
        if self._problem:
            raise PlanError("root", self._problem)
        if self._development and not self._roots:
            root = os.path.dirname(plan_dir)
            if is_root(root):
                return root
            raise PlanError("root", f"plan_dir: expected a folder in a folder below /, got {plan_dir:.300}; or {_ADD}")
        if root := root_of(plan_dir, self._roots):
            return root
        listed = ", ".join(self._roots) or "there is none"
        expected = f"a folder below a plan root ({listed:.300})"
        raise PlanError("root", f"plan_dir: expected {expected}, got {plan_dir:.300}: {_ADD}")

    def _look(self) -> None:
        if self._policy is None:
            return
        try:
            mark = _mark_of(os.stat(self._policy))
            if mark != self._mark:
                self._roots, self._problem, self._mark = (), "", None
                self._roots, self._mark = self._read(self._policy), mark
        except (OSError, ValueError, RecursionError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
            said = error.strerror if isinstance(error, OSError) else error
            self._roots, self._mark = (), None
            self._problem = f"{self._policy}: no plan roots can be taken from it: {said}; see plugindctl policy check"

    def _read(self, path: Path) -> tuple[str, ...]:
        """Raises OSError, ValueError."""
        # O_NONBLOCK: of a FIFO in its place the open would wait.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            self._check(os.fstat(descriptor))
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ValueError(f"expected at most {MAX_BYTES} bytes, got more")
        table = tomllib.loads(data.decode()).get("plans", {})
        roots = table.get("roots", []) if isinstance(table, dict) else None
        if not isinstance(roots, list) or len(roots) > MOST_ROOTS:
            raise ValueError(f"plans.roots: expected a list of at most {MOST_ROOTS} folders, got {roots!r:.80}")
        for root in roots:
            if not isinstance(root, str) or not is_root(root):
                raise ValueError(f"plans.roots: expected absolute folders below /, without . and .., got {root!r:.80}")
        return tuple(roots)

    def _check(self, status: os.stat_result) -> None:
        # Whoever may write it says whose folders are opened. In a checkout that is who may write the launcher as well,
        # and many people's checkouts are writable for a group of their own.
        others = 0o002 if self._development else 0o022
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("expected a regular file, got something else")
        if status.st_uid not in self._owners or status.st_mode & others:
            got = f"mode {stat.S_IMODE(status.st_mode):04o} of uid {status.st_uid}"
            raise ValueError(f"expected a file of root's that nobody else may write, got {got}; chown root, chmod go-w")


def _mark_of(status: os.stat_result) -> _Mark:
    # The owner and mode belong to it, and change the time of the inode.
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
