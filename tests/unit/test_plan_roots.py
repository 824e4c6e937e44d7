"""The plan roots as the launcher reads them: of a file that root alone may write, again whenever it has changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import plugind
from plugind.errors import PlanError
from plugind.planfiles import MOST_ROOTS
from plugind.sandbox.plans.roots import Roots

TEXT = 'schema = 1\n[plans]\nroots = ["/srv/plans", "/srv/plans/deep"]\n'


@pytest.fixture
def policy(tmp_path, monkeypatch):
    path = tmp_path / "policy.toml"
    path.write_text(TEXT)
    path.chmod(0o644)
    return path


def of(policy, development=False):
    roots = Roots(policy, development=development)
    roots._owners.add(os.geteuid())  # without root the file is the tester's
    return roots


def refused(roots, plan_dir="/srv/plans/p"):
    with pytest.raises(PlanError) as caught:
        roots.above(plan_dir)
    assert caught.value.code == "root"
    return str(caught.value)


def test_the_nearest_root(policy):
    roots = of(policy)
    assert roots.above("/srv/plans/p") == "/srv/plans"
    assert roots.above("/srv/plans/deep/p") == "/srv/plans/deep"
    assert roots.above("/srv/plans/deep") == "/srv/plans"


@pytest.mark.parametrize("plan_dir", ["/srv/plans", "/srv/plansx/p", "/srv", "/etc", "/etc/passwd"])
def test_outside_says_what_to_do(policy, plan_dir):
    said = refused(of(policy), plan_dir)
    assert "(/srv/plans, /srv/plans/deep)" in said
    for word in ('[plans] roots = ["…"]', "plugindctl policy check", "systemctl reload plugind"):
        assert word in said


@pytest.mark.parametrize(
    "plan_dir",
    ["", "/", "srv/plans/p", "/srv/plans/../plans/p", "/srv/plans/p/..", "/srv/plans/./p", "/srv/plans//p",
     "/srv/plans/p/", "//srv/plans/p", "/srv/plans/p\0", "/srv/plans/\udc80"],
)  # fmt: skip
def test_no_path(policy, plan_dir):
    for development in (False, True):
        assert "expected an absolute path" in refused(of(policy, development), plan_dir)


def test_a_very_long_one_leaves_room_for_what_to_do(policy):
    said = refused(of(policy), "/x" * 2000)
    assert len(said) < 1000
    assert "systemctl reload" in said


def test_none_without_a_policy(tmp_path):
    assert "there is none" in refused(Roots(None))


def test_a_change_is_seen(policy):
    roots = of(policy)
    assert roots.above("/srv/plans/p")
    policy.write_text('schema = 1\n[plans]\nroots = ["/srv/other"]\n')
    assert "there is none" not in refused(roots)
    assert roots.above("/srv/other/p") == "/srv/other"
    policy.write_text("schema = 1\n")
    assert "there is none" in refused(roots)
    policy.write_text(TEXT)
    assert roots.above("/srv/plans/p") == "/srv/plans"


def test_one_that_is_replaced_by_one_of_the_same_size_and_time(policy):
    roots = of(policy)
    assert roots.above("/srv/plans/p")
    times = policy.stat()
    policy.write_text(TEXT.replace("plans/deep", "plans/seep"))
    os.utime(policy, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert roots.above("/srv/plans/seep/p") == "/srv/plans/seep"


@pytest.mark.parametrize(
    "text",
    ["[plans", 'plans = "x"', "[plans]\nroots = 7", '[plans]\nroots = ["relative"]', '[plans]\nroots = ["/"]',
     '[plans]\nroots = ["/a/.."]', "[plans]\nroots = [7]", '[plans]\nroots = "/srv/plans"', "x = " + "[" * 5000,
     f"[plans]\nroots = {[f'/srv/{number}' for number in range(MOST_ROOTS + 1)]}", "#" * (1 << 20) + "\n",
     '[plans]\nroots = ["/a\\u0000"]'],
)  # fmt: skip
def test_a_policy_that_cannot_be_read_has_no_roots(policy, text):
    """And that it had some before is forgotten; in a development daemon the folder above is none either."""
    for development in (False, True):
        policy.write_text(TEXT)
        roots = of(policy, development)
        assert roots.above("/srv/plans/p")
        policy.write_text(text)
        for _ in range(2):
            assert "no plan roots can be taken from it" in refused(roots)
        policy.write_text(TEXT)
        assert roots.above("/srv/plans/p")


def test_bytes_that_are_no_text(policy):
    policy.write_bytes(b"\xff")
    assert "no plan roots" in refused(of(policy))


def test_a_policy_that_is_not_there(tmp_path):
    roots = of(tmp_path / "policy.toml")
    assert "No such file" in refused(roots)


def test_a_fifo_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "policy.toml")
    assert "expected a regular file" in refused(of(tmp_path / "policy.toml"))


@pytest.mark.parametrize(("mode", "production", "development"), [
    (0o644, True, True), (0o600, True, True), (0o664, False, True), (0o646, False, False), (0o666, False, False),
])  # fmt: skip
def test_who_may_write_it(policy, mode, production, development):
    policy.chmod(mode)
    for wanted, roots in ((production, of(policy)), (development, of(policy, True))):
        if wanted:
            assert roots.above("/srv/plans/p") == "/srv/plans"
        else:
            assert f"got mode {mode:04o} of uid {os.geteuid()}" in refused(roots)


def test_an_owner_that_is_not_root_is_refused(policy):
    """In development the owner of the sources is none that anybody has to be afraid of."""
    roots = Roots(policy)
    roots._owners = {os.geteuid() + 1}
    assert "expected a file of root's" in refused(roots)
    assert Roots(policy)._owners == {0}
    assert Roots(policy, development=True)._owners == {0, Path(plugind.__file__).stat().st_uid}


def test_a_development_daemon_without_roots_takes_the_folder_above(policy):
    policy.write_text("schema = 1\n")
    for roots in (Roots(None, development=True), of(policy, True)):
        assert roots.above("/home/me/plans/p") == "/home/me/plans"
        assert roots.above("/home/p") == "/home"
        assert "expected a folder in a folder below /" in refused(roots, "/home")


def test_a_development_daemon_with_roots_goes_by_them(policy):
    assert of(policy, True).above("/srv/plans/a/b") == "/srv/plans"
    assert "expected a folder below a plan root" in refused(of(policy, True), "/home/me/p")
