"""The launcher's own check and unpacking of bundles."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest

from plugind.errors import InvalidBundleError
from plugind.sandbox.client import sealed_memfd
from plugind.sandbox.codestore import CodeStore, read_sealed


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
    with pytest.raises(InvalidBundleError):
        load(CodeStore(tmp_path / "code"), tar_of(("first.py", b"0", b"1"), member))
    assert not list(tmp_path.glob("code/*"))
    assert not (tmp_path / "up.py").exists()


def test_the_same_name_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    with pytest.raises(InvalidBundleError):
        load(CodeStore(tmp_path / "code"), tar_of(("a.py", b"0", b"1"), ("a.py", b"0", b"2")))


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
