"""Building: from a lock and wheels to what a name stands for, and nothing in between that stays. Without network."""

import importlib.util
import json
import marshal
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from plugind.environments import build as module
from plugind.environments import lock as locks
from plugind.environments import modules, pip, tree
from plugind.environments.build import build
from plugind.environments.shelf import Environment, Package, Shelf, abi
from plugind.errors import ConflictError, InvalidEnvironmentError
from plugind.sandbox.inside import packages
from tests.support.wheels import lock, wheel

pytestmark = pytest.mark.root


class Bench:
    """A shelf, a folder of wheels, and locks of them."""

    def __init__(self, folder):
        self.folder = folder
        self.wheels = folder / "wheels"
        self.shelf = Shelf(folder / "state.environments")
        self.steps = []

    def wheel(self, name="a", version="1.0", files=None, **options):
        return wheel(self.wheels, name, version, files, **options)

    def build(self, *wheels, name="science", imports=None):
        path = lock(self.folder / "requirements.lock", *wheels)
        return build(name, path, self.shelf, wheels=self.wheels, imports=imports, progress=self.steps.append)

    def trees(self):
        return sorted(os.listdir(self.shelf.folder / "trees"))

    def files(self, environment):
        folder = self.shelf.tree(environment.digest)
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture(autouse=True)
def _pip_as_it_comes(monkeypatch):
    """Without what this machine has configured for it."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def test_from_wheels_to_what_the_name_stands_for(bench):
    one = bench.wheel("one", "1.0", {"one/__init__.py": "", "one/inner.py": "X = 2\n"})
    other = bench.wheel("Other-One", "2.0.post1", {"other_one.py": "", "_private.py": "", "tests/__init__.py": ""})
    before = time.time_ns() // 1_000_000
    built = bench.build(one, other)
    assert bench.shelf.get("science") == bench.shelf.with_digest(built.digest) == built
    assert built == Environment(
        name="science",
        digest=tree.digest_of(bench.shelf.tree(built.digest)),
        lock_digest=locks.read(bench.folder / "requirements.lock").digest,
        abi=abi(),
        imports=("one", "other_one"),
        packages=(Package("one", "1.0"), Package("Other-One", "2.0.post1")),
        size_bytes=built.size_bytes,
        files=len(bench.files(built)),
        built_unix_ms=built.built_unix_ms,
    )
    assert before <= built.built_unix_ms <= time.time_ns() // 1_000_000
    assert built.size_bytes == sum(
        (bench.shelf.tree(built.digest) / file).stat().st_size for file in bench.files(built)
    )
    assert {"one/__init__.py", "one/inner.py", "other_one.py", "_private.py"} < set(bench.files(built))
    assert bench.trees() == [built.digest]
    assert bench.steps[0] == f"2 packages of {bench.folder}/requirements.lock"
    assert {"Processing", "Installing"} < {step.split()[0] for step in bench.steps}
    assert all("requirements.lock" not in step for step in bench.steps[1:])


def test_everybody_can_read_it_whatever_the_umask(bench):
    before = os.umask(0o077)
    try:
        built = bench.build(bench.wheel())
    finally:
        os.umask(before)
    place = bench.shelf.tree(built.digest)
    paths = (bench.shelf.folder, bench.shelf.folder / "trees", place, place / "a.py")
    assert [path.stat().st_mode & 0o777 for path in paths] == [0o755, 0o755, 0o555, 0o444]


def test_commands_are_left_out(bench):
    files = {"a/__init__.py": "def main(): pass\n", "a-1.0.data/scripts/tool": "#!python\n"}
    built = bench.build(bench.wheel("a", "1.0", files, commands={"a": "a:main"}))
    assert not any(file.startswith("bin/") for file in bench.files(built))


def test_modules_are_compiled_as_templates_show_them_and_what_is_no_python_of_ours_is_left(bench):
    cached = importlib.util.cache_from_source("a/b.py")
    files = {"a/__init__.py": "", "a/b.py": "X = 1\n", "a/old.py": "print 1\n", cached: "something else"}
    place = bench.shelf.tree(bench.build(bench.wheel("a", "1.0", files)).digest)
    data = (place / cached).read_bytes()
    assert data[:4] == importlib.util.MAGIC_NUMBER
    assert int.from_bytes(data[4:8], "little") == 1, "by hash, unchecked: PEP 552"
    code = marshal.loads(data[16:])
    assert code.co_filename == "/environment/a/b.py"
    assert "X" in code.co_names
    assert not (place / importlib.util.cache_from_source("a/old.py")).exists()
    assert modules.PLACE == packages.PLACE


def test_a_compiler_that_does_not_end_well_is_told(monkeypatch, tmp_path):
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho no luck >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr(modules.sys, "executable", str(broken))
    with pytest.raises(InvalidEnvironmentError, match="compileall to end, got exit code 3: no luck"):
        modules.compile_all(tmp_path)


def test_the_same_lock_gives_the_same_tree_and_keeps_it(bench):
    made = bench.wheel()
    first = bench.build(made)
    inode = bench.shelf.tree(first.digest).stat().st_ino
    second = bench.build(made)
    assert second.digest == first.digest
    assert bench.shelf.tree(first.digest).stat().st_ino == inode
    assert bench.trees() == [first.digest]


def test_a_tree_that_was_damaged_is_made_anew(bench):
    made = bench.wheel()
    first = bench.build(made)
    file = bench.shelf.tree(first.digest) / "a.py"
    file.write_text("VALUE = 2\n")
    assert bench.build(made).digest == first.digest == tree.digest_of(bench.shelf.tree(first.digest))
    assert file.read_text() == "VALUE = 1\n"
    assert bench.trees() == [first.digest]


def test_replaced_tree_stays_for_one_build_longer(bench):
    first, other = bench.build(bench.wheel("a")), bench.build(bench.wheel("b"), name="other")
    second = bench.build(bench.wheel("a", "2.0", {"a.py": "2"}))
    assert bench.trees() == sorted([first.digest, other.digest, second.digest])
    assert bench.shelf.with_digest(first.digest) is None
    third = bench.build(bench.wheel("c"), name="other")
    assert bench.trees() == sorted([other.digest, second.digest, third.digest])
    assert [each.digest for each in bench.shelf.all()] == [third.digest, second.digest]


def test_back_to_the_one_before(bench):
    one, two = bench.wheel("a"), bench.wheel("a", "2.0", {"a.py": "2"})
    first, second, third = bench.build(one), bench.build(two), bench.build(one)
    assert (third.digest, bench.shelf.get("science")) == (first.digest, third)
    assert bench.trees() == sorted([first.digest, second.digest])


def test_leftovers_of_broken_builds_are_removed(bench):
    built = bench.build(bench.wheel())
    trees = bench.shelf.folder / "trees"
    (trees / ".building-dead/tree").mkdir(parents=True)
    (trees / ".removed-dead").touch()
    (bench.shelf.folder / ".other.json.new").touch()
    (trees / ("0" * 64)).mkdir(mode=0o555)
    assert bench.build(bench.wheel("b")).digest in bench.trees()
    assert built.digest in bench.trees()
    assert len(bench.trees()) == 2
    assert sorted(os.listdir(bench.shelf.folder)) == ["lock", "science.json", "trees"]


def test_no_tree_is_removed_while_nobody_knows_what_is_in_use(bench):
    other = bench.build(bench.wheel("b"), name="other")
    (bench.shelf.folder / "other.json").chmod(0o666)
    built = bench.build(bench.wheel())
    assert bench.trees() == sorted([other.digest, built.digest])


def test_broken_record_is_replaced_by_building_again(bench):
    built = bench.build(bench.wheel())
    (bench.shelf.folder / "science.json").write_text("{}")
    with pytest.raises(InvalidEnvironmentError, match="build this environment again"):
        bench.shelf.get("science")
    assert bench.build(bench.wheel()).digest == built.digest
    assert bench.shelf.problems() == {}


def test_marker_for_another_python_leaves_a_package_out(bench):
    one, other = bench.wheel("a"), bench.wheel("b")
    path = bench.folder / "requirements.lock"
    path.write_text(f"{one.line}\nb==1.0 ; python_version < '3' --hash=sha256:{other.sha256}\n")
    assert build("science", path, bench.shelf, wheels=bench.wheels).packages == (Package("a", "1.0"),)
    path.write_text(f"b==1.0 ; python_version < '3' --hash=sha256:{other.sha256}\n")
    with pytest.raises(InvalidEnvironmentError, match="got none: the lock's markers exclude them all"):
        build("science", path, bench.shelf, wheels=bench.wheels)


def test_nothing_of_a_package_runs(bench, monkeypatch):
    evil = f"open({str(bench.folder / 'ran')!r}, 'w')\n"
    files = {"a.py": evil, "a.pth": f"import os; {evil}", "sitecustomize.py": evil, "pip.py": evil, "a/setup.py": evil}
    monkeypatch.chdir(bench.folder)
    (bench.folder / "pip.py").write_text(evil)  # in the folder where root calls the command
    monkeypatch.setenv("PYTHONPATH", str(bench.folder))
    bench.build(bench.wheel("a", "1.0", files))
    bench.build(bench.wheel("b"))
    assert not (bench.folder / "ran").exists()


# --- modules to import ahead -------------------------------------------------------------------------------------------


def test_modules_at_the_top(bench):
    suffix = f".{abi()}.so"
    files = {
        "pack/__init__.py": "",
        "pack/inner/__init__.py": "",
        f"native{suffix}": b"",
        "limited.abi3.so": b"",
        "packed/__init__.abi3.so": b"",
        "google/protobuf/__init__.py": "",
        "google/_upb/__init__.py": "",
        "google/loose.py": "",
        "pack.libs/lib.so": b"",
        "data/file.txt": "",
        "plain.txt": "",
        "dotted.name.py": "",
        "class.py": "",
        "1st.py": "",
        "test/__init__.py": "",
        "tests.py": "",
        "_hidden/__init__.py": "",
        "deep/d/d/d/p/__init__.py": "",
        "stubs-only/__init__.pyi": "",
    }
    built = bench.build(bench.wheel("a", "1.0", files))
    assert built.imports == ("google.protobuf", "limited", "native", "pack", "packed")


def test_other_modules_are_chosen(bench):
    made = bench.wheel("a", "1.0", {"a/__init__.py": "", "a/b.py": "", "n/s/m.py": "", "c.abi3.so": b""})
    chosen = ["a.b", "n.s", "n.s.m", "json.decoder", "c", "a.b"]
    assert bench.build(made, imports=chosen).imports == ("a.b", "n.s", "n.s.m", "json.decoder", "c")
    assert bench.build(made, imports=[]).imports == ()


@pytest.mark.parametrize(
    "module,told",
    [
        ("a b", "expected the name of a module such as numpy.random, got 'a b'"),
        ("../a", "expected the name of a module"),
        ("", "expected the name of a module"),
        ("nothing", "expected modules of these packages, got nothing; those at the top: a"),
        ("a.nothing", "expected modules of these packages, got a.nothing; those at the top: a"),
    ],
)
def test_module_that_is_not_there(bench, module, told):
    with pytest.raises(InvalidEnvironmentError, match=told):
        bench.build(bench.wheel(), imports=[module])
    assert (bench.shelf.all(), bench.trees()) == ([], [])


# --- what goes wrong ---------------------------------------------------------------------------------------------------


@pytest.fixture
def before(bench):
    """An environment that is in force, and has to be afterwards."""
    built = bench.build(bench.wheel("before"))
    yield built
    assert bench.shelf.get("science") == built
    assert tree.digest_of(bench.shelf.tree(built.digest)) == built.digest
    assert not [name for name in bench.trees() if name.startswith(".")]


@pytest.mark.parametrize("name", ["base", "Science", "", "../x", "a" * 64])
def test_wrong_name(bench, name):
    with pytest.raises(InvalidEnvironmentError, match=r"environment: expected a name like .*, not base, got '"):
        bench.build(bench.wheel(), name=name)
    assert not bench.shelf.folder.exists()


def test_wrong_lock(bench, before):
    path = bench.folder / "requirements.lock"
    path.write_text("numpy>=2\n")
    with pytest.raises(InvalidEnvironmentError, match=rf"{path}: line 1: expected NAME==VERSION"):
        build("science", path, bench.shelf, wheels=bench.wheels)


@pytest.mark.parametrize("what,got", [("none", "nothing"), ("file", "something else")])
def test_wrong_folder_of_wheels(bench, before, what, got):
    (bench.folder / "file").touch()
    path = lock(bench.folder / "requirements.lock", bench.wheel())
    with pytest.raises(InvalidEnvironmentError, match=f"{what}: expected a folder with wheels, got {got}"):
        build("science", path, bench.shelf, wheels=bench.folder / what)


def test_wheel_with_another_hash(bench, before):
    made = bench.wheel("a")
    path = lock(bench.folder / "requirements.lock", made)
    wheel(bench.wheels, "a", "1.0", {"a.py": "other"})
    with pytest.raises(InvalidEnvironmentError, match="find out why before you write the lock anew") as raised:
        build("science", path, bench.shelf, wheels=bench.wheels)
    assert any(made.sha256 in line for line in raised.value.lines)
    assert not any("requirements.lock" in line for line in raised.value.lines)  # of ours, and gone


def test_wheel_that_is_not_there(bench, before):
    made = bench.wheel("a")
    made.path.unlink()
    with pytest.raises(InvalidEnvironmentError) as raised:
        bench.build(made)
    wanted = f"put a wheel of it for CPython {sys.version.split()[0]} ({abi()}) into {bench.wheels}, or write"
    assert wanted in str(raised.value)
    assert raised.value.lines[-1] == "ERROR: No matching distribution found for a==1.0"


def test_wheel_for_another_python(bench, before):
    with pytest.raises(InvalidEnvironmentError, match="put a wheel of it for CPython"):
        bench.build(bench.wheel("a", tag="cp27-cp27m-win32"))


def test_source_is_never_built(bench, before):
    (bench.wheels / "a-1.0.tar.gz").write_bytes(b"no matter what")
    path = bench.folder / "requirements.lock"
    path.write_text(f"a==1.0 --hash=sha256:{'ab' * 32}\n")
    with pytest.raises(InvalidEnvironmentError, match="put a wheel of it"):
        build("science", path, bench.shelf, wheels=bench.wheels)


def test_index_that_cannot_be_reached(bench, before, monkeypatch):
    for name, value in {"INDEX_URL": "http://127.0.0.1:9/", "RETRIES": "0"}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    path = lock(bench.folder / "requirements.lock", bench.wheel("a"))
    with pytest.raises(InvalidEnvironmentError, match="or the index cannot be reached: --wheels DIR needs none"):
        build("science", path, bench.shelf)


def test_no_index_is_asked_when_there_is_a_folder_of_wheels(bench, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as index:
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{index.getsockname()[1]}/")
        monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"http://127.0.0.1:{index.getsockname()[1]}/")
        bench.build(bench.wheel())
        index.setblocking(False)
        with pytest.raises(BlockingIOError):
            index.accept()


def test_nothing_is_fetched_that_the_lock_does_not_name(bench):
    bench.wheel("needed")
    built = bench.build(bench.wheel("a", requires=["needed", "elsewhere>=2"]))
    assert built.packages == (Package("a", "1.0"),)


def test_index_of_the_machines_own_configuration_is_used(bench, monkeypatch, tmp_path):
    made = bench.wheel("a")
    (tmp_path / "pip.conf").write_text(f"[global]\nno-index = true\nfind-links = {bench.wheels}\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    assert build("science", lock(tmp_path / "lock", made), bench.shelf).packages == (Package("a", "1.0"),)


def test_of_what_pip_says_the_useful_lines_are_shown_and_no_flood_of_them():
    retries = [f"WARNING: Retrying (Retry(total={count}))" for count in range(5)]
    error = f"ERROR: Could not find a version (from versions: {', '.join(map(str, range(1000)))})"
    told = pip._explained(["Collecting a", *retries, error, "", "[notice] new", *["more"] * 20], None).lines
    assert told == (error[:300], *["more"] * 7)
    told = pip._explained(["Collecting a", *retries, *["Traceback"] * 20, "OSError: full"], None).lines
    assert told == (*["Traceback"] * 7, "OSError: full")
    assert pip._explained([], None).lines == ()


def test_pip_that_is_missing(bench, before, monkeypatch, tmp_path):
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')  # without site-packages
    bare.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(bare))
    with pytest.raises(InvalidEnvironmentError) as raised:
        bench.build(bench.wheel("a"))
    assert f"expected pip for {bare}, got none: `{bare} -m ensurepip` installs it" in str(raised.value)


def test_link_that_a_wheel_brought_is_refused(bench, before, monkeypatch):
    """No wheel can, with pip as it is: here it comes behind pip's back."""
    install = pip.install

    def with_link(lock, target, *others):
        install(lock, target, *others)
        (target / "link").symlink_to("/etc/shadow")

    monkeypatch.setattr(module.pip, "install", with_link)
    with pytest.raises(InvalidEnvironmentError, match="got a symbolic link: link"):
        bench.build(bench.wheel("a"))


def test_packages_beyond_the_lock_are_refused(bench, before, monkeypatch):
    stowaway, install = bench.wheel("stowaway"), pip.install

    def with_another(lock, *others):
        lock.write_text(f"{lock.read_text()}{stowaway.line}\n")
        install(lock, *others)

    monkeypatch.setattr(module.pip, "install", with_another)
    with pytest.raises(InvalidEnvironmentError, match="expected the packages of the lock, got stowaway as well"):
        bench.build(bench.wheel("a"))


@pytest.mark.parametrize(
    "step", ["pip.install", "modules.compile_all", "tree.seal", "tree.digest_of", "_place", "_remove_unused"]
)
def test_canceled_at_any_step(bench, before, monkeypatch, step):
    def cancel(*_arguments):
        raise KeyboardInterrupt

    owner, _, name = step.rpartition(".")
    with monkeypatch.context() as patch:
        patch.setattr(getattr(module, owner) if owner else module, name, cancel)
        with pytest.raises(KeyboardInterrupt):
            bench.build(bench.wheel("a"))


def test_full_disk_at_the_last_step(bench, before, monkeypatch):
    def full(*_arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full)
        patch.setattr("pathlib.Path.replace", full)
        with pytest.raises(OSError, match="No space left"):
            bench.build(bench.wheel("a"))


def test_two_builds_at_a_time(bench, before):
    path = lock(bench.folder / "requirements.lock", bench.wheel("a"))
    told = []

    def build_another(_step):
        with pytest.raises(ConflictError, match="another environment is being built; wait until it is done"):
            build("other", path, bench.shelf, wheels=bench.wheels)
        told.append("refused")

    build("third", path, bench.shelf, wheels=bench.wheels, progress=build_another)
    assert told
    assert [each.name for each in bench.shelf.all()] == ["science", "third"]


def test_folder_that_others_can_write_is_not_built_into(bench):
    bench.shelf.folder.mkdir()
    bench.shelf.folder.chmod(0o777)
    with pytest.raises(InvalidEnvironmentError, match="writable for root only"):
        bench.build(bench.wheel("a"))
    assert os.listdir(bench.shelf.folder) == []


def test_interrupt_ends_pip_with_us(bench, before, tmp_path):
    """Ctrl-C in a process of its own, while pip waits for an index that never answers."""
    code = (
        "import sys; from pathlib import Path; from plugind.environments.build import build;"
        "from plugind.environments.shelf import Shelf;"
        "build('science', Path(sys.argv[1]), Shelf(Path(sys.argv[2])))"
    )
    path = lock(tmp_path / "lock", bench.wheel("a"))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as index:
        index.settimeout(20)
        url = f"http://127.0.0.1:{index.getsockname()[1]}/"
        process = subprocess.Popen(
            [sys.executable, "-c", code, path, bench.shelf.folder],
            env=os.environ | {"PIP_INDEX_URL": url, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(scratch)},
            stderr=subprocess.PIPE,
        )
        connection, _ = index.accept()
        child = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())
        process.send_signal(signal.SIGINT)
        assert b"KeyboardInterrupt" in process.communicate(timeout=20)[1]
        connection.close()
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    assert os.listdir(scratch) == []


def test_record_is_what_is_documented(bench):
    built = bench.build(bench.wheel("a"))
    assert json.loads((bench.shelf.folder / "science.json").read_text()) == {
        "format": 1,
        "name": "science",
        "digest": built.digest,
        "lock_digest": built.lock_digest,
        "abi": abi(),
        "imports": ["a"],
        "packages": [{"name": "a", "version": "1.0"}],
        "size_bytes": built.size_bytes,
        "files": built.files,
        "built_unix_ms": built.built_unix_ms,
    }
