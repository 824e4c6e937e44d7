"""The one form of tar: Python's tarfile reads what we write, and nothing else than what we write is read."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugind.errors import InvalidBundleError
from plugind.provenance import ustar
from plugind.provenance.ustar import BLOCK, Member

NAMES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=100).filter(
    lambda name: not name.startswith("/") and not name.endswith("/")
)
MEMBERS = st.lists(st.builds(Member, NAMES, st.binary(max_size=1200), st.booleans()), min_size=1, max_size=5)
ONE = ustar.write([Member("dir/file.py", b"x" * 700)])
END = bytes(2 * BLOCK)


def read(data, max_members=10, max_member_bytes=2000):
    return ustar.read(data, max_members=max_members, max_member_bytes=max_member_bytes)


def sealed(header):
    """The header with the checksum that its bytes now have."""
    blank = header[:148] + b" " * 8 + header[156:]
    return blank[:148] + b"%06o\0 " % sum(blank) + blank[156:]


def changed(place, new):
    return sealed(ONE[:place] + new + ONE[place + len(new) : BLOCK]) + ONE[BLOCK:]


@given(MEMBERS)
def test_what_is_written_is_read(members):
    assert read(ustar.write(members)) == members


@given(MEMBERS)
def test_python_tarfile_reads_the_same(members):
    with tarfile.open(fileobj=io.BytesIO(ustar.write(members)), mode="r:") as archive:
        entries = [(entry, archive.extractfile(entry).read()) for entry in archive]
    assert [(entry.name, data, entry.mode) for entry, data in entries] == [
        (member.name, member.data, 0o755 if member.executable else 0o644) for member in members
    ]
    for entry, _ in entries:
        assert entry.isreg()
        assert (entry.uid, entry.gid, entry.mtime, entry.uname, entry.gname, entry.linkname) == (0, 0, 0, "", "", "")


LONG = [("d" * 48 + "/") * (length // 60) + "f" * (length - length // 60 * 49) for length in (99, 100, 101, 150, 200)]


@pytest.mark.parametrize("name", [*LONG, "d" * 155 + "/" + "f" * 100])
def test_a_long_path_is_split_as_python_tarfile_joins_it(name):
    assert [member.name for member in read(ustar.write([Member(name, b"")]))] == [name]
    with tarfile.open(fileobj=io.BytesIO(ustar.write([Member(name, b"")])), mode="r:") as archive:
        assert archive.getnames() == [name]


@pytest.mark.parametrize("name", ["x" * 101, "d" * 156 + "/f", "d/" + "f" * 101, "d" * 150 + "/" + "f" * 101])
def test_a_path_that_fits_into_no_header_is_refused(name):
    with pytest.raises(InvalidBundleError, match="fits into a USTAR header"):
        ustar.write([Member(name, b"")])


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (b"1", "hard link"),
        (b"2", "symbolic link"),
        (b"3", "character device"),
        (b"4", "block device"),
        (b"5", "a folder"),
        (b"6", "a fifo"),
        (b"7", "type"),
        (b"\0", "type"),
        (b"x", "pax header"),
        (b"g", "global pax"),
        (b"L", "GNU long name"),
        (b"S", "sparse"),
    ],
)
def test_only_regular_files_are_read(kind, words):
    with pytest.raises(InvalidBundleError, match=f"dir/file.py: expected a regular file, got .*{words}"):
        read(changed(156, kind))


@pytest.mark.parametrize(
    ("place", "new", "words"),
    [
        (0, b"\0", "printable ASCII"),
        (3, b"\x1b", "printable ASCII"),
        (3, b"\xff", "printable ASCII"),
        (50, b"x", "printable ASCII"),
        (100, b"0000777\0", "mode 0644 or 0755"),
        (100, b"0004755\0", "mode 0644 or 0755"),
        (108, b"0000001\0", "uid 0"),
        (108, b"000000 \0", "uid: expected 7 octal digits"),
        (116, b"0001750\0", "gid 0"),
        (124, b"       1274\0", "size: expected 11 octal digits"),
        (124, b"\x80\0\0\0\0\0\0\0\0\0\x02\xbc", "size: expected 11 octal digits"),
        (124, b"77777777777\0", "at most 2000 bytes"),
        (136, b"00000000001\0", "mtime 0"),
        (157, b"target", "no link, owner or device"),
        (257, b"ustar  \0", "a USTAR header"),
        (265, b"root", "no link, owner or device"),
        (297, b"root", "no link, owner or device"),
        (329, b"0000000\0", "no link, owner or device"),
        (345, b"prefix", "the header that"),
        (400, b"x", "printable ASCII"),
        (500, b"x", "no link, owner or device"),
    ],
)
def test_each_field_of_a_header_is_checked(place, new, words):
    with pytest.raises(InvalidBundleError, match=words):
        read(changed(place, new))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "truncated: expected two blocks of zeros"),
        (END, "empty tar"),
        (ONE[:-1], "truncated or padded"),
        (ONE[:-BLOCK], "truncated: expected two blocks"),
        (ONE[: -2 * BLOCK], "truncated: expected two blocks"),
        (ONE[: 2 * BLOCK], "dir/file.py: truncated: expected 700 bytes, got 512"),
        (ONE[:BLOCK], "dir/file.py: truncated: expected 700 bytes, got 0"),
        (ONE + bytes(BLOCK), "nothing after its end"),
        (ONE + bytes(20 * BLOCK), "nothing after its end"),
        (ONE + ONE, "nothing after its end"),
        (ONE[:-BLOCK] + b"x" * BLOCK, "something in the second"),
        (ONE[: BLOCK + 700] + b"x" + ONE[BLOCK + 701 :], "dir/file.py: expected zeros after its content"),
        (b"\1" + ONE[1:], "printable ASCII"),
        (b"D" + ONE[1:], "checksum"),
        (ONE[:148] + b"7" + ONE[149:], "checksum"),
    ],
)
def test_a_tar_that_is_cut_padded_or_damaged_is_refused(data, words):
    with pytest.raises(InvalidBundleError, match=words):
        read(data)


def test_limits_hold_before_content_is_taken():
    two = ustar.write([Member("a", b"12"), Member("b", b"")])
    with pytest.raises(InvalidBundleError, match="a: expected at most 1 bytes, got 2"):
        read(two, max_member_bytes=1)
    with pytest.raises(InvalidBundleError, match="at most 1 files, got more"):
        read(two, max_members=1)


@given(st.binary(max_size=3 * BLOCK) | st.binary(min_size=BLOCK, max_size=BLOCK).map(lambda block: sealed(block) + END))
def test_other_bytes_are_refused_and_nothing_else_happens(data):
    with pytest.raises(InvalidBundleError):
        read(data)


@pytest.mark.parametrize("format_", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_a_tar_made_by_another_tool_is_refused(format_):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format_) as archive:
        entry = tarfile.TarInfo("dir/file.py")
        entry.size = 3
        archive.addfile(entry, io.BytesIO(b"abc"))
    with pytest.raises(InvalidBundleError):
        read(buffer.getvalue())
