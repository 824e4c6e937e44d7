"""An environment's files: what is sealed has one digest, and what is not sealed has none."""

import hashlib
import os
import socket
import stat
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugind.environments import tree
from plugind.errors import InvalidEnvironmentError
from tests.support.descriptors import opened

pytestmark = pytest.mark.root


def make(folder, files):
    for path, content in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return folder


@pytest.fixture
def sealed(tmp_path):
    folder = make(tmp_path / "tree", {"a/one.py": b"1\n", "a.py": b"", "b/run": b"#!", "b/c/d/e": b"deep"})
    (folder / "b/run").chmod(0o4711)
    (folder / "empty").mkdir()
    tree.seal(folder)
    return folder


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def test_digest_is_that_of_the_listing_that_is_documented(sealed):
    listing = (
        "D 555 .\0"
        "D 555 a\0"
        f"F 444 0 {sha256(b'')} a.py\0"
        f"F 444 2 {sha256(b'1' + bytes([10]))} a/one.py\0"
        "D 555 b\0"
        "D 555 b/c\0"
        "D 555 b/c/d\0"
        f"F 444 4 {sha256(b'deep')} b/c/d/e\0"
        f"F 555 2 {sha256(b'#!')} b/run\0"
        "D 555 empty\0"
    )
    assert tree.digest_of(sealed) == sha256(listing.encode())
    assert tree.size_of(sealed) == tree.Size(files=4, size_bytes=8)


def test_sealing_makes_it_roots_and_takes_every_right_to_write_away(tmp_path):
    folder = make(tmp_path / "tree", {"a/one": b"", "two": b""})
    for path in (folder / "a", folder / "two"):
        os.chown(path, 1234, 1234)
        path.chmod(0o6777)
    tree.seal(folder)
    found = {
        p.name: (p.stat().st_mode & 0o7777, p.stat().st_uid, p.stat().st_gid) for p in [folder, *folder.rglob("*")]
    }
    assert found == {"tree": (0o555, 0, 0), "a": (0o555, 0, 0), "one": (0o444, 0, 0), "two": (0o555, 0, 0)}
    first = tree.digest_of(folder)
    tree.seal(folder)
    assert tree.digest_of(folder) == first


@pytest.mark.parametrize("change", ["content", "name", "mode", "new file", "new folder", "gone"])
def test_every_change_is_another_digest(sealed, change):
    before = tree.digest_of(sealed)
    if change == "content":
        (sealed / "a/one.py").write_bytes(b"2\n")
    elif change == "name":
        (sealed / "a/one.py").rename(sealed / "a/two.py")
    elif change == "mode":
        (sealed / "a/one.py").chmod(0o555)
    elif change == "new file":
        (sealed / "a/new").touch(0o444)
        (sealed / "a/new").chmod(0o444)
    elif change == "new folder":
        (sealed / "new").mkdir()
        (sealed / "new").chmod(0o555)
    else:
        (sealed / "empty").rmdir()
    assert tree.digest_of(sealed) != before


def test_times_do_not_matter(sealed):
    before = tree.digest_of(sealed)
    os.utime(sealed / "a.py", (1, 1))
    assert tree.digest_of(sealed) == before


def put_link(folder):
    (folder / "bad").symlink_to("a.py")


def put_dangling_link_to_a_folder(folder):
    (folder / "bad").symlink_to("/etc", target_is_directory=True)


def put_hard_link(folder):
    (folder / "bad").hardlink_to(folder / "a.py")


def put_fifo(folder):
    os.mkfifo(folder / "bad")


def put_socket(folder):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "bad"))


def put_device(folder):
    os.mknod(folder / "bad", stat.S_IFCHR | 0o444, os.makedev(1, 3))


def put_block_device(folder):
    os.mknod(folder / "bad", stat.S_IFBLK | 0o444, os.makedev(259, 9999))


def put_bad_name(folder):
    (folder / os.fsdecode(b"bad\xff")).touch()


def put_deep_folders(folder):
    (folder / "/".join(["d"] * (tree.MAX_DEPTH + 2))).mkdir(parents=True)


NEVER = [
    (put_link, "symbolic link: bad"),
    (put_dangling_link_to_a_folder, "symbolic link: bad"),
    (put_hard_link, "a file with 2 names"),
    (put_fifo, "a fifo: bad"),
    (put_socket, "a socket: bad"),
    (put_device, "a device: bad"),
    (put_block_device, "a device: bad"),
    (put_bad_name, r"names in UTF-8, got b'bad\\xff'"),
    (put_deep_folders, "at most 32 folders in each other"),
]


@pytest.mark.parametrize("put,told", NEVER, ids=[put.__name__ for put, _ in NEVER])
@pytest.mark.parametrize("ask", [tree.digest_of, tree.seal, tree.size_of])
def test_what_no_environment_can_have_in_it(sealed, put, told, ask):
    put(sealed)
    with pytest.raises(InvalidEnvironmentError, match=told) as raised:
        ask(sealed)
    assert str(raised.value).startswith(f"{sealed}: expected ")


@pytest.mark.parametrize("mode", [0o644, 0o464, 0o446, 0o400, 0o4555, 0o2555, 0o1444, 0o755])
def test_a_file_with_another_mode_has_no_digest(sealed, mode):
    (sealed / "a.py").chmod(mode)
    with pytest.raises(InvalidEnvironmentError, match=f"expected mode 0444 or 0555, got {mode:04o}: a.py"):
        tree.digest_of(sealed)


@pytest.mark.parametrize("path", [".", "b/c"])
def test_a_folder_that_can_be_written_has_no_digest(sealed, path):
    (sealed / path).chmod(0o755)
    with pytest.raises(InvalidEnvironmentError, match=f"expected mode 0555, got 0755: {path}"):
        tree.digest_of(sealed)


@pytest.mark.parametrize("uid,gid", [(1234, 0), (0, 1234)])
@pytest.mark.parametrize("path", [".", "a.py", "b/c"])
def test_what_is_not_roots_has_no_digest(sealed, path, uid, gid):
    os.chown(sealed / path, uid, gid)
    with pytest.raises(InvalidEnvironmentError, match=f"expected files of 0:0, got {uid}:{gid}: {path}"):
        tree.digest_of(sealed)


def test_owner_as_a_user_namespace_sees_it(sealed):
    wanted = tree.digest_of(sealed)
    with pytest.raises(InvalidEnvironmentError, match="expected files of 65534:65534, got 0:0"):
        tree.digest_of(sealed, owner=65534)
    for path in [sealed, *sealed.rglob("*")]:
        os.chown(path, 65534, 65534)
    assert tree.digest_of(sealed, owner=65534) == wanted


@pytest.mark.parametrize("what", ["nothing", "a file", "a link"])
def test_there_has_to_be_a_folder(tmp_path, what):
    path = tmp_path / "tree"
    if what == "a file":
        path.touch()
    elif what == "a link":
        path.symlink_to(tmp_path)
    with pytest.raises(InvalidEnvironmentError, match=f"{path}: expected a folder, got"):
        tree.digest_of(path)


def test_number_of_files_is_bounded(sealed, monkeypatch):
    monkeypatch.setattr(tree, "MAX_ENTRIES", 10)  # as many as there are
    tree.digest_of(sealed)
    monkeypatch.setattr(tree, "MAX_ENTRIES", 9)
    with pytest.raises(InvalidEnvironmentError, match="expected at most 9 files and folders, got more"):
        tree.digest_of(sealed)


def test_no_descriptor_is_left_open(sealed):
    put_link(sealed)
    before = opened()
    with pytest.raises(InvalidEnvironmentError):
        tree.digest_of(sealed)
    assert opened() <= before


NAMES = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="/\0"), min_size=1, max_size=8).filter(
    lambda name: name not in (".", "..")
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.tuples(NAMES, NAMES).map("/d/".join), st.binary(max_size=40), max_size=6))
def test_digest_follows_from_the_files_alone_in_whatever_order_they_came(tmp_path_factory, files):
    one = make(tmp_path_factory.mktemp("one"), files)
    other = make(tmp_path_factory.mktemp("other"), dict(reversed(files.items())))
    tree.seal(one)
    tree.seal(other)
    assert tree.digest_of(one) == tree.digest_of(other) == listed(one)


def listed(folder):
    """The digest once more, from the documented format and not by its code."""
    lines = []
    for path in [folder, *folder.rglob("*")]:
        name = os.fsencode(path.relative_to(folder))
        if path.is_dir():
            lines.append((name, b"D 555 " + name))
        else:
            content = path.read_bytes()
            lines.append((name, f"F 444 {len(content)} {sha256(content)} ".encode() + name))
    return sha256(b"".join(line + b"\0" for _, line in sorted(lines)))


def test_python_of_this_test_names_files_in_utf_8():
    assert sys.getfilesystemencoding() == "utf-8"
