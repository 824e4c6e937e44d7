"""The launcher's own checks of work in plans' folders, against a front that was taken over.

After each attempt nothing was done that its user could not do, the launcher has said why, and has nothing more than before.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from plugind.planfiles import Entry
from plugind.sandbox import uids
from tests.support.bad_front import unmoved
from tests.support.plan_works import ANNA, BERT, Plans, caller, now_ns, plans
from tests.system.test_taken_over_front import DESCRIPTORS, assert_logged

pytestmark = pytest.mark.root
SEALS = (fcntl.F_SEAL_SHRINK, fcntl.F_SEAL_GROW, fcntl.F_SEAL_WRITE, fcntl.F_SEAL_SEAL)


@pytest.fixture(scope="module")
def made() -> Iterator[Plans]:
    """With what helpers really do."""
    from plugind.sandbox.plans.tasks import perform

    with plans(perform=perform) as made:
        made.plan = made.at.plan("anna", a="one")
        with caller() as made.anna, caller(BERT) as made.bert:
            yield made
        assert made.front.end() == 0


@contextlib.contextmanager
def nothing_moved(made: Plans) -> Iterator[None]:
    with unmoved(made.front):
        yield
        made.wait_for_helpers(0)
    assert (Path(made.plan) / "a").read_text() == "one"
    assert os.listdir(made.plan) == ["a"]


def read(made: Plans, plan_dir: str | None = None, pid: int = 0, **chosen):
    facts = {"read": ["*"], "write": [], "read_files": 10, "read_bytes": 1000}
    return made.do(made.plan if plan_dir is None else plan_dir, pid or made.anna, **{**facts, **chosen})


def test_proper_work_is_done(made) -> None:
    with nothing_moved(made):
        assert read(made).files == {"a": b"one"}


def test_a_file_is_staged_by_its_caller_and_settled_without_him(made) -> None:
    plan = Path(made.at.plan("staged", a="old"))
    order = [Entry("a", b"new", facts={"expected_sha256": hashlib.sha256(b"old").hexdigest()}), Entry("b", b"more")]
    with unmoved(made.front):
        with caller(umask=0o027) as pid:
            assert made.do(str(plan), pid, "compare", entries=[Entry("a")], most_bytes=100).files == {"a": b"old"}
            staged = made.do(str(plan), pid, "stage", entries=order, run="r1", most_bytes=100)
            assert (staged.failed, staged.files) == ("", {"a": b"old", "b": b""}), staged
        assert (plan / "a").read_text() == "old"
        for _ in range(2):
            assert made.do(str(plan), 0, "settle", run="r1", forward=True).facts["state"] == "committed"
        assert made.do(str(plan), 0, "clean", run="r1").failed == ""
    assert {path.name: path.read_text() for path in plan.iterdir()} == {"a": "new", "b": "more"}
    assert {(path.stat().st_uid, path.stat().st_mode & 0o777) for path in plan.iterdir()} == {
        (ANNA, 0o644),
        (ANNA, 0o640),
    }


@pytest.mark.parametrize("name", [name for name in DESCRIPTORS if name != "sealed memfd above every limit"])
def test_an_order_that_is_no_sealed_memfd(made, name, tmp_path) -> None:
    with nothing_moved(made):
        descriptor = DESCRIPTORS[name](tmp_path)
        told = read(made, descriptor=descriptor)
        os.close(descriptor)
        assert (told.failed, "order: expected a sealed memfd" in told.detail) == ("fault", True)
        assert made.front.works()
        assert_logged(made.front, "refused plan_work of the front: order: expected")


def test_an_order_that_is_too_large(made) -> None:
    with nothing_moved(made):
        descriptor = os.memfd_create("x", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(descriptor, 1 << 40)
        for seal in SEALS:
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seal)
        told = read(made, descriptor=descriptor)
        os.close(descriptor)
        assert (told.failed, "of at most" in told.detail) == ("fault", True)


@pytest.mark.parametrize("count", [0, 2, 3])
def test_another_number_of_descriptors(made, count) -> None:
    with nothing_moved(made):
        fields = {"op": "plan_work", "run": "w", "task": "read", "plan_dir": made.plan, "since_ns": now_ns()}
        fields |= {"caller_pid": made.anna, "caller_uid": ANNA, "caller_gid": ANNA}
        descriptors = [os.memfd_create("x") for _ in range(count)]
        made.front.send(fields, descriptors)
        for each in descriptors:
            os.close(each)
        assert made.front.works()
        assert_logged(made.front, f"expected 1 descriptors, got {count}")


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff" * 5000, b"\0\0\0\2{}", b"\0\0\0\1[" + b"[" * 100_000])
def test_an_order_of_garbage(made, data) -> None:
    from plugind.sandbox.sealed import sealed_memfd

    with nothing_moved(made):
        for task in ("read", "stage", "settle", "clean", "compare"):
            descriptor = sealed_memfd("x", data)
            assert made.do(made.plan, made.anna, task, descriptor=descriptor).failed == "fault"
            os.close(descriptor)


@pytest.mark.parametrize("task", ["", "Read", "exec", "read ", "../read", "\ud800", "x" * 4096])
def test_a_task_that_is_none(made, task) -> None:
    with nothing_moved(made):
        told = made.do(made.plan, made.anna, task)
        assert (told.failed, "expected one of clean, compare, read, settle, stage" in told.detail) == ("fault", True)


def test_somebody_else_s_process(made) -> None:
    """Of another user, of root, of the kernel; one's own, with another user's number; threads and what is no pid."""
    with nothing_moved(made):
        for pid, uid, gid in (
            (made.bert, ANNA, ANNA),
            (made.anna, BERT, BERT),
            (made.anna, ANNA, BERT),
            (made.anna, 0, 0),
            (1, ANNA, ANNA),
            (2, ANNA, ANNA),
            (os.getpid(), ANNA, ANNA),
            (made.front.pid, ANNA, ANNA),
            (-1, ANNA, ANNA),
            (2**22 + 5, ANNA, ANNA),
            (2**40, ANNA, ANNA),
            (made.anna, -1, -1),
            (made.anna, 2**32 + ANNA, ANNA),
        ):
            assert read(made, pid=pid, uid=uid, gid=gid).failed == "caller", (pid, uid, gid)


def test_a_program_with_set_user_id_is_not_its_user(made) -> None:
    with caller(saved=0) as pid, nothing_moved(made):
        told = read(made, pid=pid)
        assert (told.failed, "got 12345 12345 0 12345" in told.detail) == ("caller", True)


def test_a_beginning_in_the_future_is_not_later_than_now(made) -> None:
    with nothing_moved(made):
        assert read(made, since_ns=2**63 - 1).files == {"a": b"one"}
        assert read(made, since_ns=-(2**31)).failed == "caller"
        assert read(made, since_ns=0).failed == "caller"


def test_nobody_s_process_where_nobody_wrote(made) -> None:
    plan = made.at.plan("nobody", mode=0o777)
    with nothing_moved(made):
        for task, uid in itertools.product(("read", "stage", "settle", "clean", "compare"), (ANNA, 0, -1, 2**40)):
            assert made.do(plan, 0, task, uid=uid, entries=[Entry("b", b"")], run="r1", most_bytes=9).failed == "caller"
    assert os.listdir(plan) == []


@pytest.mark.parametrize(
    "path",
    ["/etc", "/etc/ssl", "/", "", ".", "plans", "{root}", "{root}/", "{root}/../plans/anna", "{root}/anna/..",
     "{root}/./anna", "{root}//anna", "{root}/anna/", "{root}x/anna", "/proc/self/root{root}/anna", "{root}/\ud800",
     "{root}/" + "x" * 4000],
)  # fmt: skip
def test_a_folder_that_is_not_below_a_root(made, path) -> None:
    with nothing_moved(made):
        told = read(made, path.replace("{root}", str(made.at.root)))
        assert told.failed in (("open", "fault") if path.endswith("xxx") else ("root",)), told


def test_links_and_mounts_on_the_way(made) -> None:
    """To another user's plan, to all of the machine, out of the root, and in a circle: by the folder or what is in it."""
    own = Path(made.at.plan("links"))
    (made.at.root / "etc").symlink_to("/etc")
    (made.at.root / "other").symlink_to("anna")
    (made.at.root / "circle").symlink_to("circle")
    (own / "deep").symlink_to("/etc")
    with nothing_moved(made):
        for path in ("etc", "etc/ssl", "other", "circle", "links/deep", "links/deep/ssl", "anna/a"):
            told = read(made, str(made.at.root / path))
            assert told.failed == "open", (path, told)
    (own / "b").symlink_to("/etc/shadow")
    assert read(made, str(own), read=["b"]).failed == "file"


def test_a_folder_of_another_user(made) -> None:
    other = made.at.plan("bert", BERT, b="two")
    with nothing_moved(made):
        assert read(made, other).failed == "denied"
        for task in ("stage", "settle", "clean", "compare"):
            told = made.do(other, made.anna, task, entries=[Entry("b", b"1")], run="r1")
            assert told.failed in ("denied", "fault"), told
        assert (Path(other) / "b").read_text() == "two"


def test_a_plugin_s_own_uid_is_nobody_with_files(made) -> None:
    """An instance has another root folder, so it cannot be what is named."""
    from plugind.sandbox import protocol
    from tests.support.bad_front import proper_descriptors

    with unmoved(made.front), proper_descriptors("sleep") as (descriptors, _):
        made.front.start("inside", descriptors)
        made.front.hear_of(protocol.Started, "inside")
        (pid,) = made.front.instances()
        uid = int(Path(f"/proc/{pid}/status").read_text().partition("Uid:\t")[2].split()[0])
        assert uid >= uids.FIRST
        told = read(made, pid=pid, uid=uid)
        assert (told.failed, "another root folder" in told.detail) == ("caller", True)
        made.front.send({"op": "kill", "run": "inside", "cause": "killed"})
        made.front.hear_of(protocol.Ended, "inside")


def test_a_name_that_is_at_work_already_gets_one_answer(made) -> None:
    with nothing_moved(made):
        for _ in range(3):
            made.ask(made.plan, made.anna, work="twice", read=["*"], write=[], read_files=10, read_bytes=1000)
        assert made.answer("twice").files == {"a": b"one"}
        time.sleep(0.2)
        assert made.front.works()
        assert_logged(made.front, "plan work twice is there already")


@pytest.mark.parametrize("name", ["", "../x", "x" * 65, "a b", "a\0", 7, None, ["a"]])
def test_a_name_that_is_none(made, name) -> None:
    with nothing_moved(made):
        fields = {"op": "plan_work", "run": name, "task": "read", "plan_dir": made.plan, "since_ns": now_ns()}
        descriptor = os.memfd_create("x")
        made.front.send(fields | {"caller_pid": made.anna, "caller_uid": ANNA, "caller_gid": ANNA}, [descriptor])
        os.close(descriptor)
        assert made.front.works()


@pytest.mark.slow
def test_a_thousand_at_once(made) -> None:
    """All are answered: what there is no place for is told so. Runs go on afterwards."""
    facts = {"read": ["*"], "write": [], "read_files": 10, "read_bytes": 1000}
    with nothing_moved(made):
        for number in range(1000):
            made.ask(made.plan, made.anna, work=f"k{number}", **facts)
            made.hear_what_is_there()  # who does not is left
        told = [made.answer(f"k{number}") for number in range(1000)]
        codes = {code: sum(each.failed == code for each in told) for code in {each.failed for each in told}}
        print(f"of 1000: {codes}")
        assert codes.keys() <= {"", "busy"}
        assert codes.get("", 0) >= 4
        assert all(each.files == {"a": b"one"} for each in told if not each.failed)
