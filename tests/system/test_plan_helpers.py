"""Plan helpers of a real launcher: they are their caller and nothing more, and whoever hangs holds nobody up."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from plugind.api.accept import peer_of
from plugind.linux import constants as c
from plugind.linux import syscalls
from plugind.planfiles import Entry
from plugind.sandbox.plans.works import DEADLINE_S, LAST_S, MOST, MOST_OF_ONE
from tests.escapes.attack import attack
from tests.support.bad_front import Front
from tests.support.pace import stretched
from tests.support.plan_works import ANNA, BERT, Plans, caller, hung, now_ns, own_mounts, plans, take

RUN_S = stretched(0.05)


@pytest.fixture(scope="module")
def shared() -> Iterator[Plans]:
    """One launcher for all that leaves nothing behind."""
    with plans() as made:
        yield made


@pytest.fixture
def made(shared: Plans) -> Iterator[Plans]:
    yield shared
    shared.wait_for_helpers(0)


def test_it_is_its_caller_with_his_groups_and_nothing_of_the_launcher_s(made) -> None:
    plan = made.at.plan("own")
    with caller(groups=(7, 12345, 4711), umask=0o027) as pid:
        seen = made.do(plan, pid, do="who").facts
    status = seen["status"]
    assert status["Uid"] == status["Gid"] == ["12345"] * 4
    assert sorted(map(int, status["Groups"])) == [7, 4711, 12345]
    assert {int(status[f"Cap{kind}"][0], 16) for kind in ("Eff", "Prm", "Inh", "Bnd", "Amb")} == {0}
    assert (status["NoNewPrivs"], status["Umask"]) == (["1"], ["0027"])
    assert (seen["dumpable"], seen["dies_with_parent"], seen["ppid"]) == (0, signal.SIGKILL, made.front.pid)
    assert (seen["cwd"], seen["root"], seen["oom_score_adj"]) == ("/", str(made.at.root), "500")
    assert (seen["limits"]["RLIMIT_NPROC"], seen["limits"]["RLIMIT_CPU"]) == ([0, 0], [5, 5])
    opened = sorted(seen["open"].values())
    assert [name.partition(":")[0] for name in opened] == ["/dev/null"] * 3 + ["/memfd", "socket"], opened


@attack(57, "a caller names another user's plan", "the plan helper has become the caller: the kernel refuses")
def test_it_reads_what_its_caller_may_read_and_nothing_else(made) -> None:
    own, others, shared_by_group = (
        made.at.plan("anna", a="one"),
        made.at.plan("bert", BERT, b="two"),
        made.at.plan("group", BERT, 0o750, c="three"),
    )
    with caller() as pid, caller(groups=(BERT,)) as member, caller(0) as root:
        assert made.do(own, pid).files == {"a": b"one"}
        refused = made.do(others, pid)
        assert (refused.failed, others in refused.detail) == ("denied", True)
        assert made.do(shared_by_group, pid).failed == "denied"
        assert made.do(made.at.plan("group2", BERT, 0o750), member).failed == ""
        for name in ("group", "group2"):
            for file in (made.at.root / name).iterdir():
                file.chmod(0o640)
        assert made.do(shared_by_group, member).files == {"c": b"three"}
        # Root without a capability is a user like any other.
        assert made.do(own, root, uid=0).failed == "denied"
        assert made.do(str(made.at.root / "none"), pid).failed == "open"


def test_who_connected_is_who_is_meant(made, tmp_path) -> None:
    """As the front does it: SO_PEERCRED and the time, of a connection of that process."""
    plan = made.at.plan("connected", a="x")
    path = made.at.root / "sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        path.chmod(0o777)
        listener.listen()
        pid = os.fork()
        if pid == 0:
            try:
                os.setgroups([])
                os.setresgid(ANNA, ANNA, ANNA)
                os.setresuid(ANNA, ANNA, ANNA)
                with socket.socket(socket.AF_UNIX) as sock:
                    sock.connect(str(path))
                    sock.recv(1)
            finally:
                os._exit(0)
        sock, _ = listener.accept()
        with sock:
            who = peer_of(sock)
            assert (who.uid, who.gid, who.pid) == (ANNA, ANNA, pid)
            assert made.do(plan, who.pid, since_ns=who.since_ns).files == {"a": b"x"}
        os.waitpid(pid, 0)
    assert made.do(plan, pid, since_ns=who.since_ns).failed == "caller", "it has ended"


def test_a_pid_that_is_another_process_s_by_now(made) -> None:
    """What connected a minute ago cannot be a process that began now."""
    plan = made.at.plan("reused", a="x")
    with caller() as pid:
        refused = made.do(plan, pid, since_ns=now_ns() - 60 * 10**9)
        assert (refused.failed, "later: connect again" in refused.detail) == ("caller", True)
        assert made.do(plan, pid).files == {"a": b"x"}


def test_a_caller_in_another_root_is_told_to_send_its_files(made, tmp_path) -> None:
    plan = made.at.plan("chroot", a="x")
    with caller(root=tmp_path) as pid:
        for task in ("read", "stage", "settle"):
            refused = made.do(plan, pid, task)
            assert (refused.failed, "plugindctl run --send" in refused.detail) == ("caller", True)
        # And what it would have staged nobody knows: without its process it cannot be had either.
        assert made.do(plan, 0, "compare").failed == "caller"


def test_whoever_staged_is_known_when_he_is_gone_and_nobody_else(made) -> None:
    plan, other = made.at.plan("known"), made.at.plan("other")
    for task in ("stage", "settle", "clean", "compare", "read"):
        assert made.do(plan, 0, task).failed == "caller"
    with caller(groups=(4711,)) as pid:
        assert made.do(plan, pid, "stage", entries=[Entry("a", b"1")]).failed == ""
    assert (Path(plan) / "a").stat().st_uid == ANNA
    for task in ("stage", "settle", "clean", "compare"):
        assert made.do(plan, 0, task).failed == ""
        assert made.do(other, 0, task).failed == made.do(plan, 0, task, uid=BERT).failed == "caller"
    assert made.do(plan, 0, "read").failed == "caller", "to read somebody has to be there"
    assert made.do(plan, 0, "compare", do="who").facts["status"]["Groups"] == ["4711"]
    known = made.front.state.with_name(f"{made.front.state.name}.plans")
    assert (known.stat().st_uid, known.stat().st_mode & 0o777) == (0, 0o600)
    text = known.read_bytes()
    known.write_bytes(b"{}\n" + text)
    assert "line 1" in made.do(plan, 0, "settle").detail
    with caller() as pid:
        assert made.do(other, pid, "stage", entries=[Entry("a", b"1")]).failed == "fault"
        assert not (Path(other) / "a").exists(), "it would not be known whose that is"
        assert made.do(other, pid, "read").failed == ""
    known.write_bytes(text)
    assert made.do(plan, 0, "settle").failed == ""


def test_the_policy_s_roots_are_read_by_the_launcher(made) -> None:
    plan = made.at.plan("rooted", a="x")
    text = made.at.policy.read_text()
    with caller() as pid:
        assert made.do("/etc/ssl", pid).failed == "root"
        made.at.policy.write_text("schema = 1\n")
        assert "there is none" in made.do(plan, pid).detail
        made.at.policy.chmod(0o666)
        made.at.policy.write_text(text)
        assert "chmod go-w" in made.do(plan, pid).detail
        made.at.policy.chmod(0o644)
        assert made.do(plan, pid).files == {"a": b"x"}


@pytest.mark.parametrize(
    ("what", "code", "words"),
    [
        ("conflict", "conflict", "somebody else was here"),
        ("fail", "fault", "the plan helper failed: RuntimeError: a mistake of ours"),
        ("odd code", "fault", "nonsense"),
        ("long words", "file", "\U0001f600"),
        ("leave", "fault", "ended without an answer"),
        ("die", "fault", "was killed by signal 11"),
        ("eat", "fault", "MemoryError"),
        ("stop", "deadline", "got none"),
        ("sleep", "deadline", "got none"),
    ],
)
def test_however_one_ends_it_is_told_once(made, what, code, words) -> None:
    plan = made.at.plan(f"ends {what}")
    with caller() as pid:
        told = made.do(plan, pid, do=what)
        assert (told.failed, words in told.detail) == (code, True), told
        assert made.do(plan, pid).failed == ""
    made.wait_for_helpers(0)
    assert made.front.works()
    assert made.front.silent()


def test_a_caller_that_is_killed_meanwhile(made) -> None:
    """What it asked for goes on; who it was is settled."""
    plan = made.at.plan("killed", a="x")
    with caller() as pid:
        made.ask(plan, pid, do="read after a moment", s=0.3)
        made.wait_for_helpers(1)
    assert made.answer().files == {"a": b"x"}


def test_a_helper_that_its_user_kills(made) -> None:
    plan = made.at.plan("own kill")
    with caller() as pid:
        made.ask(plan, pid, do="sleep")
        (helper,) = made.wait_for_helpers(1)
        deadline = time.monotonic() + 10
        while f"Uid:\t{ANNA}" not in Path(f"/proc/{helper}/status").read_text():
            assert time.monotonic() < deadline
        killer = os.fork()
        if killer == 0:
            os.setresuid(ANNA, ANNA, ANNA)
            os.kill(helper, signal.SIGKILL)
            os._exit(0)
        os.waitpid(killer, 0)
        told = made.answer()
        assert (told.failed, "signal 9" in told.detail) == ("fault", True)


@pytest.mark.alone
def test_more_than_there_are_places_for_wait_for_their_turn(made) -> None:
    """Eight at one time, four of one user; the others do not wait for him."""
    plan, other = made.at.plan("many", a="x"), made.at.plan("few", BERT, b="y")
    most = 0
    with caller() as pid, caller(BERT) as bert:
        for number in range(20):
            made.ask(plan, pid, work=f"m{number}", do="read after a moment", s=0.2)
        made.ask(other, bert, work="bert", uid=BERT)
        first = made.answer("bert")
        assert (first.files, first.after_s < 0.5) == ({"b": b"y"}, True)
        answers = []
        for number in range(20):
            most = max(most, len(made.helpers()))
            answers.append(made.answer(f"m{number}"))
    assert {answer.failed for answer in answers} == {""}
    assert max(answer.after_s for answer in answers) >= 0.2 * 20 / MOST_OF_ONE
    assert most <= MOST_OF_ONE + 1, "one may go and one come while the kernel lists them"


def test_who_waits_gets_the_place_of_one_that_was_killed_for_taking_too_long(made) -> None:
    """Killed is not hung: it dies within a moment, and nobody is sent away for it."""
    plan = made.at.plan("slow", a="x")
    with caller() as pid:
        for number in range(MOST_OF_ONE):
            made.ask(plan, pid, work=f"s{number}", do="sleep")
        time.sleep(1)
        made.ask(plan, pid, work="waits")
        time.sleep(0.2)
        os.kill(made.front.pid, signal.SIGSTOP)  # so that it finds all of them late at once
        time.sleep(DEADLINE_S - 1)
        os.kill(made.front.pid, signal.SIGCONT)
        assert {made.answer(f"s{number}").failed for number in range(MOST_OF_ONE)} == {"deadline"}
        assert made.answer("waits").files == {"a": b"x"}


@pytest.mark.alone
def test_how_long_it_takes(made) -> None:
    """A fork of this pytest, which is larger than a launcher is: so only that it is no matter of seconds."""
    plan = made.at.plan("quick", a="x" * 100_000)
    with caller() as pid:
        took_s = [made.do(plan, pid).after_s for _ in range(20)]
    print(f"one read: {statistics.median(took_s) * 1000:.1f} ms")
    assert statistics.median(took_s) < stretched(0.1)


# -- file systems that hang


@contextlib.contextmanager
def hung_plans(count: int, *, takes: bool) -> Iterator[tuple[Plans, list[str], int]]:
    """A launcher, and folders in a file system that hangs, in a mount namespace that ends with this. A plan root is one
    that hangs wholly: no mount is crossed below it."""
    with own_mounts(), plans() as made:
        folder = made.at.root / "hung"
        folder.mkdir(mode=0o755)
        with hung(folder, takes=takes) as served:
            yield made, [f"{folder}/{number}" for number in range(count)], served


def runs_s(front: Front, count: int = 15) -> float:
    """How long an ordinary run takes, median."""
    took = []
    for number in range(count):
        began = time.monotonic()
        assert front.works(f"quick{number}")
        took.append(time.monotonic() - began)
    return statistics.median(took)


@attack(57, "a plan in a FUSE file system that never answers", "a process of its own, with a deadline, left behind")
@pytest.mark.alone
@pytest.mark.parametrize("takes", [False, True])
def test_a_folder_that_hangs_is_given_up_and_runs_do_not_wait(takes) -> None:
    """With `takes` not even SIGKILL ends its helper: it is left behind, and counts, until the file system lets go."""
    with hung_plans(1, takes=takes) as (made, (folder,), served), caller() as pid:
        plan = made.at.plan("well", a="x")
        usual_s = runs_s(made.front)
        made.ask(folder, pid)
        if takes:
            take(served)
        meanwhile_s = runs_s(made.front)
        assert made.do(plan, pid, work="other").files == {"a": b"x"}
        told = made.answer()
        print(f"a run: {usual_s * 1000:.1f} ms, while one hangs {meanwhile_s * 1000:.1f} ms")
        assert (told.failed, folder in told.detail) == ("deadline", True)
        assert DEADLINE_S <= told.after_s < DEADLINE_S + stretched(1)
        assert meanwhile_s < max(RUN_S, 2 * usual_s)  # of a busy machine all runs take longer
        if takes:
            time.sleep(0.2)
            assert len(made.helpers()) == 1
            assert " D " in Path(f"/proc/{made.helpers()[0]}/stat").read_text()
            assert made.do(plan, pid, work="other").files == {"a": b"x"}
            os.close(os.dup(served))
        else:
            made.wait_for_helpers(0)
        assert "no answer in 3 s, killed: read in" in made.front.log()


@pytest.mark.alone
def test_eight_that_hang_are_enough_and_runs_go_on() -> None:
    with hung_plans(2 * MOST, takes=True) as (made, folders, served), caller() as anna, caller(BERT) as bert:
        plan = made.at.plan("well", mode=0o755, a="x")
        users = {ANNA: anna, BERT: bert}
        usual_s = runs_s(made.front)
        for number in range(MOST):
            uid = (ANNA, BERT)[number % 2]
            made.ask(folders[number], users[uid], work=f"h{number}", uid=uid)
        for _ in range(MOST):
            take(served)
        assert len(made.helpers()) == MOST
        meanwhile_s = runs_s(made.front)
        assert {made.answer(f"h{number}").failed for number in range(MOST)} == {"deadline"}
        time.sleep(2 * LAST_S)  # what was killed may yet end, and then it is none that hangs
        for uid, pid in (*users.items(), (0, os.getpid())):
            told = made.do(plan, pid, uid=uid, gid=uid)
            assert (told.failed, told.after_s < 0.5) == ("busy", True), told
            assert "8 at work, 8 of them hung" in told.detail
        after_s = runs_s(made.front)
        print(f"a run while eight hang: {meanwhile_s * 1000:.1f} ms, and when they are left: {after_s * 1000:.1f} ms")
        assert max(meanwhile_s, after_s) < max(RUN_S, 2 * usual_s)
        assert len(made.helpers()) == MOST
        with contextlib.suppress(OSError):  # it stays in use; but with MNT_FORCE it fails what it was asked
            syscalls.umount2(str(made.at.root / "hung"), 1)
        made.wait_for_helpers(0)
        assert made.do(plan, anna).files == {"a": b"x"}


@attack(57, "as many plans that hang as there are helpers", "half of the places are one user's at most")
def test_one_user_s_that_hang_leave_the_others_their_places() -> None:
    with hung_plans(MOST, takes=True) as (made, folders, served), caller() as anna, caller(BERT) as bert:
        plan = made.at.plan("well", BERT, a="x")
        for number in range(MOST):
            made.ask(folders[number], anna, work=f"h{number}")
        for _ in range(MOST_OF_ONE):
            take(served)
        assert made.do(plan, bert, uid=BERT).files == {"a": b"x"}
        told = [made.answer(f"h{number}") for number in range(MOST)]
        assert [each.failed for each in told] == ["deadline"] * MOST_OF_ONE + ["busy"] * MOST_OF_ONE
        assert made.do(plan, bert, uid=BERT).files == {"a": b"x"}


@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM", "front"])
def test_when_the_launcher_ends_its_helpers_do(how) -> None:
    with plans() as made, caller() as pid:
        plan = made.at.plan("well")
        for number in range(3):
            made.ask(plan, pid, work=f"w{number}", do="sleep" if number else "stop")
        helpers = made.wait_for_helpers(3)
        deadline = time.monotonic() + 10
        while any(f"Uid:\t{ANNA}" not in Path(f"/proc/{each}/status").read_text() for each in helpers):
            assert time.monotonic() < deadline
        time.sleep(0.1)
        if how == "front":
            made.front.sock.close()
        else:
            os.kill(made.front.pid, getattr(signal, how))
        began = time.monotonic()
        assert made.front.wait() == (-signal.SIGKILL if how == "SIGKILL" else 0)
        while any(Path(f"/proc/{each}").exists() for each in helpers):
            assert time.monotonic() < began + 10
            time.sleep(0.005)


def test_a_launcher_that_ends_does_not_wait_for_what_hangs() -> None:
    with hung_plans(2, takes=True) as (made, folders, served), caller() as pid:
        for number in range(2):
            made.ask(folders[number], pid, work=f"h{number}")
            take(served)
        helpers = made.wait_for_helpers(2)
        began = time.monotonic()
        made.front.sock.close()
        assert made.front.wait() == 0
        assert time.monotonic() - began < stretched(2)
        assert "is left behind: it does not die" in made.front.log()
        assert all(Path(f"/proc/{each}").exists() for each in helpers)


# -- what is mounted later


def test_what_the_host_mounts_later_the_helper_sees_and_nothing_of_ours_goes_out() -> None:
    """A plan root is mounted, and unmounted, after the launcher began. Templates and instances see nothing of it."""
    with own_mounts(), plans() as made, caller() as pid:
        before = mounts("self")
        assert not [line for line in before if "plugind-" in line and "/code" in line], "ours went out"
        zygote = next(each for each, name in made_descendants(made).items() if name == "plugind-zygote")
        own = mounts(zygote)
        syscalls.mount("late", str(made.at.root), "tmpfs", 0, "mode=0755")
        try:
            plan = made.at.plan("late", a="x")
            assert made.do(plan, pid).files == {"a": b"x"}
            assert mounts(zygote) == own
            assert made.front.works()
        finally:
            syscalls.umount2(str(made.at.root), c.MNT_DETACH)
        assert made.do(plan, pid).failed == "open"
        assert not any(str(made.at.root) in line for line in mounts(made.front.pid)), "it would stay in use"
        assert mounts("self") == before


def mounts(pid: object) -> list[str]:
    return Path(f"/proc/{pid}/mountinfo").read_text().splitlines()


def made_descendants(made: Plans) -> dict[int, str]:
    from tests.support.jail import descendants

    return descendants(made.front.pid)
