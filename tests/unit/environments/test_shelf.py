"""The shelf: one file for each name, swapped as a whole, and never an old answer after a swap."""

import dataclasses
import json
import os
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugind.environments import shelf as module
from plugind.environments.shelf import Environment, Package, Shelf, abi, is_module, path_of
from plugind.errors import InvalidEnvironmentError
from plugind.provenance import grammar

pytestmark = pytest.mark.root

SCIENCE = Environment(
    name="science",
    digest="ab" * 32,
    lock_digest="cd" * 32,
    abi=abi(),
    imports=("numpy", "pandas.core"),
    packages=(Package("numpy", "2.3.1"), Package("pandas", "2.3.0")),
    size_bytes=100_000_000,
    files=5000,
    built_unix_ms=1_700_000_000_000,
)
OTHER = dataclasses.replace(SCIENCE, name="other-1", digest="ef" * 32)


@pytest.fixture
def shelf(tmp_path):
    folder = tmp_path / "state.environments"
    folder.mkdir(mode=0o755)
    return Shelf(folder)


def settle(shelf):
    """Let the folder's mtime be old enough for a look to be remembered."""
    time.sleep(module._SETTLED_NS / 1e9 + 0.02)
    shelf.all()


def test_it_lies_beside_the_state_folder(tmp_path):
    assert path_of(tmp_path / "state") == tmp_path / "state.environments"


def test_names_are_those_that_a_manifest_may_name():
    assert grammar.ENVIRONMENT is module.NAME


def test_without_a_folder_there_is_nothing(tmp_path):
    shelf = Shelf(tmp_path / "none")
    assert (shelf.get("science"), shelf.with_digest("ab" * 32), shelf.all(), shelf.problems()) == (None, None, [], {})


def test_what_is_put_is_found_by_name_and_by_digest(shelf):
    shelf.put(SCIENCE)
    shelf.put(OTHER)
    assert shelf.get("science") == shelf.with_digest(SCIENCE.digest) == SCIENCE
    assert shelf.all() == [OTHER, SCIENCE]
    assert shelf.get("nothing") is None
    assert shelf.with_digest("00" * 32) is None
    assert shelf.problems() == {}
    assert shelf.tree(SCIENCE.digest) == shelf.folder / "trees" / SCIENCE.digest
    assert sorted(os.listdir(shelf.folder)) == ["other-1.json", "science.json"]


def test_what_package_urls_name_of_a_tree_is_known_also_when_its_name_stands_for_another(shelf):
    assert shelf.purls(SCIENCE.digest) == shelf.purls("") == frozenset()
    shelf.put(SCIENCE)
    assert shelf.in_force("science") == SCIENCE.digest
    numpy = {"pkg:pypi/numpy", "pkg:pypi/numpy@2.3.1"}
    assert shelf.purls(SCIENCE.digest) == {*numpy, "pkg:pypi/pandas", "pkg:pypi/pandas@2.3"}
    shelf.put(dataclasses.replace(SCIENCE, digest="ef" * 32, packages=(Package("My.Package", "1.0"),)))
    assert shelf.in_force("science") == "ef" * 32
    assert shelf.purls("ef" * 32) == {"pkg:pypi/my-package", "pkg:pypi/my-package@1"}
    assert numpy <= shelf.purls(SCIENCE.digest)


def test_file_is_readable_for_all_whatever_the_umask(shelf):
    before = os.umask(0o777)
    try:
        shelf.put(SCIENCE)
    finally:
        os.umask(before)
    status = (shelf.folder / "science.json").stat()
    assert (status.st_mode & 0o7777, status.st_uid) == (0o644, 0)
    assert json.loads((shelf.folder / "science.json").read_text())["format"] == 1


def test_what_is_no_longer_current_is_not_found_by_its_digest(shelf):
    shelf.put(SCIENCE)
    assert shelf.with_digest(SCIENCE.digest)
    shelf.put(dataclasses.replace(SCIENCE, digest="00" * 32))
    assert shelf.with_digest(SCIENCE.digest) is None
    assert shelf.with_digest("00" * 32) == shelf.get("science")


def test_a_leftover_of_a_broken_put_is_replaced_and_never_read(shelf):
    (shelf.folder / ".science.json.new").write_text("half")
    assert shelf.all() == []
    assert shelf.problems() == {}
    shelf.put(SCIENCE)
    assert os.listdir(shelf.folder) == ["science.json"]


# --- what is remembered ----------------------------------------------------------------------------------------------


def test_swaps_in_the_same_tick_are_all_seen(shelf):
    for count in range(300):
        shelf.put(dataclasses.replace(SCIENCE, files=count))
        assert shelf.get("science").files == count


def test_swap_after_a_look_that_is_remembered_is_seen(shelf):
    shelf.put(SCIENCE)
    settle(shelf)
    for count in range(20):
        shelf.put(dataclasses.replace(SCIENCE, files=count))
        assert shelf.get("science").files == count


def test_swaps_by_another_process_are_seen_with_a_clock_of_coarse_ticks(shelf):
    shelf.put(SCIENCE)
    assert shelf.get("science") == SCIENCE
    tick = shelf.folder.stat().st_mtime_ns
    Shelf(shelf.folder).put(OTHER)
    os.utime(shelf.folder, ns=(tick, tick))  # as if both had happened within one
    assert shelf.get("other-1") == OTHER


def test_files_are_read_once_until_something_changes(shelf, monkeypatch):
    shelf.put(SCIENCE)
    settle(shelf)
    monkeypatch.setattr(module, "_read_manifest", lambda path: pytest.fail("read again"))
    assert shelf.get("science") == SCIENCE
    assert shelf.with_digest(SCIENCE.digest) == SCIENCE


def test_folder_that_goes_and_comes_back_is_read_again(shelf):
    shelf.put(SCIENCE)
    settle(shelf)
    shelf.folder.rename(shelf.folder.with_name("away"))
    assert shelf.get("science") is None
    shelf.folder.with_name("away").rename(shelf.folder)
    assert shelf.get("science") == SCIENCE


def test_clock_that_was_set_back_makes_nothing_stale(shelf):
    shelf.put(SCIENCE)
    later = time.time_ns() + 10**12
    os.utime(shelf.folder, ns=(later, later))
    assert shelf.get("science") == SCIENCE
    Shelf(shelf.folder).put(OTHER)
    os.utime(shelf.folder, ns=(later, later))
    assert shelf.get("other-1") == OTHER


# --- what is broken --------------------------------------------------------------------------------------------------


def change(**fields):
    return lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def without_lock_digest(path):
    fields = json.loads(path.read_text())
    del fields["lock_digest"]
    path.write_text(json.dumps(fields))


def fifo(path):
    path.unlink()
    os.mkfifo(path)


def link(path):
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def too_long(path):
    path.write_bytes(path.read_bytes() + b" " * module.MAX_MANIFEST_BYTES)


BROKEN = {
    "empty": (lambda path: path.write_bytes(b""), "expected JSON"),
    "no JSON": (lambda path: path.write_bytes(b'{"name": '), "expected JSON"),
    "no UTF-8": (lambda path: path.write_bytes(b"\xff"), "expected JSON"),
    "deep": (lambda path: path.write_bytes(b"[" * 100_000), "expected JSON"),
    "long": (too_long, "expected JSON"),
    "no object": (lambda path: path.write_bytes(b"[1]"), "expected the fields format, name, digest"),
    "field missing": (without_lock_digest, "expected the fields"),
    "field too many": (change(other=1), "expected the fields"),
    "format": (change(format=2), "format: expected 1, got 2: another plugind wrote it"),
    "format of another type": (change(format=True), "format: expected int, got True"),
    "other name": (change(name="other"), "name: expected science, .* got 'other'"),
    "name of another type": (change(name=3), "name: expected str, got 3"),
    "digest": (change(digest="AB" * 32), "digest: expected a sha256 in hex"),
    "digest with a path": (change(digest="../" * 21 + "a"), "digest: expected a sha256 in hex"),
    "lock_digest": (change(lock_digest=""), "lock_digest: expected a sha256 in hex"),
    "imports": (change(imports=["a b"]), "imports: expected names of modules, got 'a b'"),
    "imports of another type": (change(imports=[1]), "imports: expected names of modules, got 1"),
    "imports no list": (change(imports="numpy"), "imports: expected list, got 'numpy'"),
    "packages": (change(packages=[{"name": "numpy"}]), "packages: expected the fields name, version"),
    "packages of another type": (change(packages=[{"name": "a", "version": 1}]), "packages: version: expected str"),
    "packages no objects": (change(packages=["numpy"]), "packages: expected the fields"),
    "negative": (change(files=-1), "files: expected 0 to 140737488355328, got -1"),
    "year 10000": (change(built_unix_ms=253402300800000), "built_unix_ms: expected 0 to .*, got 253402300800000"),
    "huge": (change(files=10**4000), "files: expected 0 to .*, got"),
    "bool": (change(size_bytes=True), "size_bytes: expected int, got True"),
    "float": (change(built_unix_ms=1.5), "built_unix_ms: expected int, got 1.5"),
    "fifo": (fifo, "expected a regular file"),
    "link": (link, "cannot be read: Too many levels of symbolic links"),
    "folder": (lambda path: (path.unlink(), path.mkdir()), "expected a regular file|Is a directory"),
    "somebody's": (lambda path: os.chown(path, 1234, 0), "expected to be root's, .* of uid 1234"),
    "writable for its group": (lambda path: path.chmod(0o664), "writable for root only, got mode 0664 of uid 0"),
    "writable for all": (lambda path: path.chmod(0o646), "writable for root only, got mode 0646 of uid 0"),
}


@pytest.mark.parametrize("damage,told", BROKEN.values(), ids=BROKEN)
def test_broken_file_is_told_for_its_own_name_and_hides_no_other(shelf, damage, told):
    shelf.put(SCIENCE)
    shelf.put(OTHER)
    damage(shelf.folder / "science.json")
    with pytest.raises(InvalidEnvironmentError, match=told) as raised:
        shelf.get("science")
    assert str(raised.value).startswith(f"{shelf.folder}/science.json: ")
    assert shelf.problems() == {"science": str(raised.value)}
    assert shelf.all() == [OTHER]
    assert shelf.get("other-1") == shelf.with_digest(OTHER.digest) == OTHER
    assert shelf.with_digest(SCIENCE.digest) is None


@pytest.mark.parametrize("name", ["base", "Science", "1st", "a.b", "a" * 64])
def test_file_under_another_kind_of_name_is_no_environment(shelf, name):
    shelf.put(SCIENCE)
    (shelf.folder / "science.json").rename(shelf.folder / f"{name}.json")
    assert (shelf.get(name), shelf.all(), shelf.problems()) == (None, [], {})


@pytest.mark.parametrize("mode,uid", [(0o775, 0), (0o757, 0), (0o755, 1234)])
def test_folder_that_others_can_write_has_no_environments(shelf, mode, uid):
    shelf.put(SCIENCE)
    settle(shelf)
    shelf.folder.chmod(mode)
    os.chown(shelf.folder, uid, 0)
    for ask in (lambda: shelf.get("science"), shelf.all, shelf.problems, lambda: shelf.with_digest(SCIENCE.digest)):
        with pytest.raises(InvalidEnvironmentError, match="expected to be root's, and writable for root only"):
            ask()


@pytest.mark.parametrize("make", [lambda path: path.touch(), lambda path: path.symlink_to("/etc")])
def test_something_else_in_the_folders_place(tmp_path, make):
    make(tmp_path / "shelf")
    with pytest.raises(InvalidEnvironmentError, match=f"{tmp_path}/shelf: expected a folder"):
        Shelf(tmp_path / "shelf").all()


def test_folder_below_something_else(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InvalidEnvironmentError, match="cannot be read: Not a directory"):
        Shelf(tmp_path / "file/shelf").get("science")


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "base"},
        {"name": "Science"},
        {"name": "../science"},
        {"digest": "zz"},
        {"imports": ("import",)},
        {"abi": "\udc80"},
        {"files": -1},
    ],
)
def test_what_could_not_be_read_back_is_not_written(shelf, fields):
    with pytest.raises(InvalidEnvironmentError):
        shelf.put(dataclasses.replace(SCIENCE, **fields))
    assert os.listdir(shelf.folder) == []


# --- values ----------------------------------------------------------------------------------------------------------


def test_environment_of_another_interpreter_says_so():
    assert SCIENCE.problem == ""
    told = dataclasses.replace(SCIENCE, abi="cpython-39-x86_64-linux-gnu").problem
    assert told.startswith(f"expected to be built for {abi()}, got cpython-39-x86_64-linux-gnu: build it again")


@pytest.mark.parametrize("name", ["a", "_a", "numpy.random", "A1.b_2"])
def test_modules(name):
    assert is_module(name)


@pytest.mark.parametrize("name", ["", ".", "a.", ".a", "a..b", "a-b", "1a", "a b", "ä", "class", "a.import", "a" * 256])
def test_no_modules(name):
    assert not is_module(name)


TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
DIGESTS = st.binary(min_size=32, max_size=32).map(bytes.hex)
NUMBERS = st.integers(0, 2**47)
ENVIRONMENTS = st.builds(
    Environment,
    name=st.from_regex(module.NAME, fullmatch=True).filter(lambda name: name != "base"),
    digest=DIGESTS,
    lock_digest=DIGESTS,
    abi=TEXT,
    imports=st.lists(st.sampled_from(["numpy", "a.b", "_c"])).map(tuple),
    packages=st.lists(st.builds(Package, TEXT, TEXT), max_size=4).map(tuple),
    size_bytes=NUMBERS,
    files=NUMBERS,
    built_unix_ms=NUMBERS,
)


@settings(max_examples=40, deadline=None)
@given(ENVIRONMENTS)
def test_what_was_put_is_what_is_got(tmp_path_factory, environment):
    shelf = Shelf(tmp_path_factory.mktemp("shelf"))
    shelf.put(environment)
    assert shelf.get(environment.name) == environment


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=60)
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(st.sampled_from(sorted(module._ENVIRONMENT_FIELDS)), JSON).map(
        lambda fields: json.dumps(json.loads(module._encoded(SCIENCE)) | fields).encode()
    )
)
def test_whatever_is_in_the_file_it_is_an_environment_or_refused(data):
    try:
        found = module._parsed(data, "science")
    except InvalidEnvironmentError:
        return
    assert found.name == "science"
    assert json.loads(module._encoded(found)) == json.loads(data)
