"""The launcher's own check and unpacking of bundles."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugind.errors import InvalidBundleError
from plugind.sandbox.codestore import CodeStore, footprint, read_sealed, read_tar
from plugind.sandbox.sealed import sealed_memfd


def tar_of(*members: tuple[str, bytes, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname = kind, len(content), "target"
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def load(store: CodeStore, data: bytes, digest: str | None = None) -> str:
    digest = digest or hashlib.sha256(data).hexdigest()
    descriptor = sealed_memfd("bundle", data)
    try:
        store.load(digest, descriptor, set())
    finally:
        os.close(descriptor)
    return digest


def test_files_are_readable_by_all_and_writable_by_none(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        digest = load(CodeStore(tmp_path), tar_of(("a.py", b"0", b"x = 1"), ("schemas/in.json", b"0", b"{}")))
    finally:
        os.umask(old)
    assert (tmp_path / digest / "a.py").read_bytes() == b"x = 1"
    assert (tmp_path / digest / "a.py").stat().st_mode & 0o777 == 0o444
    assert (tmp_path / digest / "schemas").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize(
    "member",
    [
        ("link.py", tarfile.SYMTYPE, b""),
        ("hard.py", tarfile.LNKTYPE, b""),
        ("fifo", tarfile.FIFOTYPE, b""),
        ("device", tarfile.CHRTYPE, b""),
        ("folder", tarfile.DIRTYPE, b""),
        ("../up.py", tarfile.REGTYPE, b"x"),
        ("a/../../up.py", tarfile.REGTYPE, b"x"),
        ("/abs.py", tarfile.REGTYPE, b"x"),
        ("a//b.py", tarfile.REGTYPE, b"x"),
        ("./a.py", tarfile.REGTYPE, b"x"),
    ],
)
def test_only_regular_files_below_the_bundle(tmp_path: Path, member: tuple[str, bytes, bytes]) -> None:
    (tmp_path / "code").mkdir()
    with pytest.raises(InvalidBundleError, match="expected a regular file below the bundle"):
        load(CodeStore(tmp_path / "code"), tar_of(("first.py", b"0", b"1"), member))
    assert not list(tmp_path.glob("code/*"))
    assert not (tmp_path / "up.py").exists()


def test_the_same_name_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    with pytest.raises(InvalidBundleError, match=r"cannot be unpacked: .*File exists"):
        load(CodeStore(tmp_path / "code"), tar_of(("a.py", b"0", b"1"), ("a.py", b"0", b"2")))
    assert list(tmp_path.glob("code/*")) == []


def test_other_bytes_than_promised(tmp_path: Path) -> None:
    with pytest.raises(InvalidBundleError, match="sha256: expected 00"):
        load(CodeStore(tmp_path), tar_of(("a.py", b"0", b"1")), digest="0" * 64)


def test_descriptors_that_are_no_sealed_memfd(tmp_path: Path) -> None:
    unsealed = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        for descriptor in (unsealed, folder):
            with pytest.raises(InvalidBundleError, match="sealed memfd"):
                read_sealed(descriptor, 100)
    finally:
        os.close(unsealed)
        os.close(folder)


def test_what_is_not_in_use_makes_room(tmp_path: Path) -> None:
    store = CodeStore(tmp_path, 40_000)
    digests = [load(store, tar_of((f"a{n}.py", b"0", b"x" * 8000))) for n in range(4)]
    assert digests[0] not in store
    assert digests[-1] in store
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(digest for digest in digests if digest in store)


def names_of(data: bytes) -> list[tuple[str, bool, bytes]]:
    return [(member.name, member.executable, bytes(member.content)) for member in read_tar(data)]


_parts = st.text("abcdefgh_-.é", min_size=1, max_size=12).filter(lambda part: part not in (".", ".."))
_names = st.lists(_parts, min_size=1, max_size=9).map("/".join).filter(lambda name: len(name.encode()) <= 100)


@settings(max_examples=30)
@given(st.dictionaries(_names, st.binary(max_size=1500), max_size=6))
def test_what_tarfile_writes_is_read_as_it_is(files: dict[str, bytes]) -> None:
    data = tar_of(*((name, tarfile.REGTYPE, content) for name, content in files.items()))
    assert names_of(data) == [(name, False, content) for name, content in files.items()]


def test_a_long_path_is_put_together_from_its_two_fields() -> None:
    name = "/".join(["folder"] * 20 + ["file.py"])
    assert names_of(tar_of((name, tarfile.REGTYPE, b"x"))) == [(name, False, b"x")]


@given(st.binary(max_size=3000))
def test_arbitrary_bytes_are_a_tar_or_refused(data: bytes) -> None:
    try:
        assert names_of(data) == []
    except InvalidBundleError:
        return
    assert not data.strip(b"\0")


_GOOD = tar_of(("a.py", tarfile.REGTYPE, b"x = 1\n" * 100), ("b/c.py", tarfile.REGTYPE, b""))


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, len(_GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_tar_never_grows(changes: list[tuple[int, int]]) -> None:
    data = bytearray(_GOOD)
    for place, byte in changes:
        data[place] = byte
    try:
        found = names_of(bytes(data))
    except InvalidBundleError:
        return
    assert sum(len(content) for _, _, content in found) <= len(data)


@pytest.mark.parametrize(
    ("form", "headers", "why"),
    [
        (tarfile.PAX_FORMAT, {"path": "other.py"}, "expected a regular file"),
        (tarfile.PAX_FORMAT, {"size": "-512"}, "expected a regular file"),
        (tarfile.PAX_FORMAT, {"GNU.sparse.size": "1099511627776", "GNU.sparse.map": "0,0"}, "expected a regular file"),
        (tarfile.GNU_FORMAT, {}, "expected a USTAR header"),
    ],
)
def test_other_kinds_of_tar_are_refused_before_they_cost_anything(form: int, headers: dict[str, str], why: str) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
        info = tarfile.TarInfo("a.py")
        info.size, info.pax_headers = 1, headers
        archive.addfile(info, io.BytesIO(b"x"))
    with pytest.raises(InvalidBundleError, match=why):
        names_of(stream.getvalue())


def test_something_after_the_end_is_refused() -> None:
    with pytest.raises(InvalidBundleError, match="nothing but zeros after its end"):
        names_of(_GOOD + b"x")


def test_too_many_files_or_folders_are_refused(tmp_path: Path) -> None:
    many = tar_of(*((f"{n}.py", tarfile.REGTYPE, b"") for n in range(4097)))
    deep = tar_of(*((f"{n}/" * 8 + "x.py", tarfile.REGTYPE, b"") for n in range(600)))
    for data in (many, deep):
        with pytest.raises(InvalidBundleError, match="at most 4096 files and folders"):
            load(CodeStore(tmp_path), data)
    assert list(tmp_path.iterdir()) == []


def test_what_is_in_use_makes_no_room(tmp_path: Path) -> None:
    store = CodeStore(tmp_path, 40_000)
    first = load(store, tar_of(("a.py", b"0", b"x" * 20_000)))
    data = tar_of(("b.py", b"0", b"x" * 20_000))
    descriptor = sealed_memfd("bundle", data)
    with pytest.raises(InvalidBundleError, match="bundles in use"):
        store.load(hashlib.sha256(data).hexdigest(), descriptor, {first})
    assert first in store
    assert store.load(hashlib.sha256(data).hexdigest(), descriptor, set()) == [first]
    os.close(descriptor)


def test_small_files_count_as_what_they_take() -> None:
    members = list(read_tar(tar_of(("a/b/c.py", b"0", b"x"), ("a/d.py", b"0", b""))))
    assert footprint(members) == 4096 * (1 + 2 + 3)  # a page of content, two files, three folders


def test_an_executable_keeps_its_bit(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        info = tarfile.TarInfo("tool")
        info.mode = 0o755
        archive.addfile(info)
    digest = load(CodeStore(tmp_path), stream.getvalue())
    assert (tmp_path / digest / "tool").stat().st_mode & 0o777 == 0o555
