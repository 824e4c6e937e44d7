"""A bundle: the same folder gives the same bytes, and what `build` did not write is refused."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugind.errors import InvalidBundleError
from plugind.provenance import bundle, ustar
from plugind.provenance.ustar import Member

TOML = """\
schema = 1
name = "demo"
version = "1.2.3"
summary = "Doubles"
license = "MIT"
origin = "authored"
entrypoint = "demo:run"
stages = ["*"]
"""
PROGRAM = TOML.replace("demo:run", "bin/tool") + 'runtime = "exec"\n'
FILES = {
    "plugin.toml": TOML,
    "demo.py": "def run(payload, context):\n    return payload * 2\n",
    "schemas/input.json": '{"type": "number"}',
    "schemas/output.json": '{"type": "number"}',
    "cases/two.json": '{"input": 2, "output": 4}',
    "helpers/Zed.py": "",
    "helpers/abc.py": "x = 1\n",
}


def write(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "demo", FILES)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return bundle.build(write(tmp_path_factory.mktemp("good"), FILES))


def members_of(data):
    return ustar.read(data, max_members=100, max_member_bytes=1 << 20)


def index_of(data):
    return json.loads(members_of(data)[0].data)


def encoded(index):
    return (json.dumps(index, ensure_ascii=False, indent=1, sort_keys=True) + "\n").encode()


def with_index(data, **change):
    """The bundle with other fields in plugin.json."""
    _, *rest = members_of(data)
    return ustar.write([Member(bundle.INDEX, encoded(index_of(data) | change)), *rest])


def relisted(data, members):
    """A bundle of these members with a plugin.json that lists them: only what they are can be wrong with it."""
    files = {member.name: hashlib.sha256(member.data).hexdigest() for member in members}
    return ustar.write([Member(bundle.INDEX, encoded(index_of(data) | {"files": files})), *members])


def by_name(members):
    return sorted(members, key=lambda member: member.name.encode())


def test_what_build_makes_is_read_back(good):
    read = bundle.read(good)
    assert {name: data.decode() for name, data in read.files.items()} == FILES
    assert (read.manifest.name, read.manifest.version, read.sequence) == ("demo", "1.2.3", 1_00002_00003)
    assert read.digest == hashlib.sha256(good).hexdigest()
    assert read.size_bytes == len(good)
    assert [(case.name, case.input, case.output) for case in read.cases] == [("two", 2, 4)]
    assert read.input_schema.errors("x")
    assert bundle.bundle_name(read.manifest) == "demo-1.2.3.plugin.tar"


def test_python_tarfile_reads_the_same_files_in_the_order_of_their_bytes(good):
    with tarfile.open(fileobj=io.BytesIO(good), mode="r:") as archive:
        names = archive.getnames()
        content = {name: archive.extractfile(name).read().decode() for name in names}
    assert names == ["plugin.json", *sorted(FILES, key=str.encode)]
    index = json.loads(content.pop("plugin.json"))
    assert content == FILES
    assert index["files"] == {name: hashlib.sha256(text.encode()).hexdigest() for name, text in FILES.items()}
    assert index["requires"] == []


BUILD = """
import hashlib, os, sys
from pathlib import Path
from plugind.provenance import bundle
os.umask(int(sys.argv[2], 8))
print(hashlib.sha256(bundle.build(Path(sys.argv[1]))).hexdigest())
"""


def built(folder, umask, **environment):
    command = [sys.executable, "-c", BUILD, str(folder), umask]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_another_umask_time_order_and_locale_give_the_same_bytes(good, tmp_path):
    reverse = write(tmp_path / "other name", dict(reversed(FILES.items())))
    for number, path in enumerate(reverse.rglob("*")):
        os.utime(path, (number * 10_000, number * 20_000))
        path.chmod(0o700 if path.is_dir() else 0o600)
    digest = hashlib.sha256(good).hexdigest()
    assert built(reverse, "077", LC_ALL="C", TZ="Pacific/Auckland", PYTHONHASHSEED="1") == digest
    assert built(reverse, "000", LC_ALL="C.UTF-8", TZ="UTC", PYTHONHASHSEED="2") == digest


def test_a_version_suffix_changes_the_version_and_no_order(folder):
    read = bundle.read(bundle.build(folder, version_suffix="+try.ab12cd34"))
    assert read.manifest.version == "1.2.3+try.ab12cd34"
    assert read.sequence == bundle.read(bundle.build(folder)).sequence
    assert b'version = "1.2.3+try.ab12cd34"' in read.files["plugin.toml"]


def test_the_executable_bit_is_kept_and_no_other_mode(folder):
    (folder / "demo.py").chmod(0o4711)
    read = bundle.read(bundle.build(folder))
    assert read.executable == {"demo.py"}


@given(st.data())
def test_any_flipped_byte_is_refused(good, data):
    place = data.draw(st.integers(0, len(good) - 1))
    mask = data.draw(st.integers(1, 255))
    with pytest.raises(InvalidBundleError):
        bundle.read(good[:place] + bytes([good[place] ^ mask]) + good[place + 1 :])


def test_a_flipped_bit_in_every_seventh_byte_is_refused(good):
    survivors = []
    for place in range(0, len(good), 7):
        try:
            bundle.read(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        except InvalidBundleError:
            continue
        survivors.append(place)
    assert survivors == []


@given(st.data())
def test_any_truncation_is_refused(good, data):
    with pytest.raises(InvalidBundleError):
        bundle.read(good[: data.draw(st.integers(0, len(good) - 1))])


@given(st.binary(min_size=1, max_size=2000))
def test_anything_behind_the_end_is_refused(good, tail):
    with pytest.raises(InvalidBundleError):
        bundle.read(good + tail)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("/etc/passwd", "/etc/passwd: expected a path relative"),
        ("../up.py", "without empty, . or .. parts"),
        ("a/../b.py", "without empty, . or .. parts"),
        ("a/./b.py", "without empty, . or .. parts"),
        ("a//b.py", "without empty, . or .. parts"),
        (".hidden", "without hidden"),
        ("a/.git/config", "without hidden"),
        ("__pycache__/x.py", "__pycache__"),
        ("x.pyc", "no bytecode"),
        ("a\\b", "without backslash"),
        ("DEMO.PY", "differ in more than case"),
        ("Helpers/ABC.py", "differ in more than case"),
        ("Plugin.JSON", "expected no file of this name"),
        ("demo.py/inner.py", "demo.py: expected a file or a folder of this name, got both"),
        ("HELPERS", "HELPERS: expected a file or a folder of this name, got both"),
        ("plugin.json/inner.py", "plugin.json: expected no folder of this name"),
        ("requirements.lock", "requirements.lock: expected none"),
    ],
)
def test_a_listed_file_of_a_bad_name_is_refused(good, name, words):
    _, *rest = members_of(good)
    with pytest.raises(InvalidBundleError, match=words):
        bundle.read(relisted(good, by_name([*rest, Member(name, b"")])))


def test_an_unlisted_file_is_refused(good):
    _, *rest = members_of(good)
    data = ustar.write([members_of(good)[0], *by_name([*rest, Member("extra.py", b"")])])
    with pytest.raises(InvalidBundleError, match=r"extra.py: expected only files that plugin.json lists"):
        bundle.read(data)


def test_a_missing_file_is_refused(good):
    kept = [member for member in members_of(good) if member.name != "helpers/abc.py"]
    with pytest.raises(InvalidBundleError, match=r"helpers/abc.py: expected this file"):
        bundle.read(ustar.write(kept))


def test_the_name_of_a_missing_file_cannot_write_on_a_terminal(good):
    listed = index_of(good)["files"] | {"\x1b[2J": "0" * 64}
    with pytest.raises(InvalidBundleError) as caught:
        bundle.read(with_index(good, files=listed))
    assert "\x1b" not in str(caught.value)


def test_a_file_twice_is_refused(good):
    first, *rest = members_of(good)
    with pytest.raises(InvalidBundleError, match=r"helpers/abc.py: expected each name once"):
        bundle.read(ustar.write([first, *by_name([*rest, Member("helpers/abc.py", b"y")])]))


def test_another_order_is_refused(good):
    first, *rest = members_of(good)
    with pytest.raises(InvalidBundleError, match="sorted by name"):
        bundle.read(ustar.write([first, *reversed(rest)]))


def test_plugin_json_comes_first_and_is_not_executable(good):
    first, *rest = members_of(good)
    for members in (rest, [*rest, first], [Member(first.name, first.data, executable=True), *rest]):
        with pytest.raises(InvalidBundleError, match="as the first member"):
            bundle.read(ustar.write(members))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": 2}, "plugin.json: schema: expected 1, got 2"),
        ({"schema": True}, "plugin.json: schema: expected 1, got true"),
        ({"sequence": 7}, "the bytes that `plugindctl build` makes"),
        ({"sequence": -1}, "sequence: expected a whole number"),
        ({"sequence": "1"}, "sequence: expected a whole number"),
        ({"requires": ["x"]}, "requires: expected an empty list"),
        ({"manifest": []}, "manifest: expected an object"),
        ({"files": []}, "files: expected an object"),
        ({"extra": 1}, "extra: unknown field"),
    ],
)
def test_each_field_of_plugin_json_is_checked(good, change, words):
    with pytest.raises(InvalidBundleError, match=words):
        bundle.read(with_index(good, **change))


@pytest.mark.parametrize("digest", ["0" * 64, 5, None, "", "A" * 1000])
def test_another_sha256_is_refused_and_both_are_named(good, digest):
    files = index_of(good)["files"] | {"demo.py": digest}
    actual = hashlib.sha256(FILES["demo.py"].encode()).hexdigest()
    with pytest.raises(InvalidBundleError, match=f"demo.py: sha256 expected .*, got {actual}"):
        bundle.read(with_index(good, files=files))


def test_plugin_json_has_to_say_what_plugin_toml_says(good):
    manifest = index_of(good)["manifest"] | {"summary": "Something else"}
    with pytest.raises(InvalidBundleError, match=r"expected what plugin.toml says"):
        bundle.read(with_index(good, manifest=manifest))


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"\xff", b'{"schema": 1, "schema": 1}'])
def test_a_plugin_json_that_is_no_object_is_refused(good, text):
    with pytest.raises(InvalidBundleError, match=r"plugin.json: "):
        bundle.read(ustar.write([Member(bundle.INDEX, text), *members_of(good)[1:]]))


def test_a_plugin_json_in_another_layout_is_refused(good):
    compact = json.dumps(index_of(good)).encode()
    with pytest.raises(InvalidBundleError, match="the bytes that `plugindctl build` makes"):
        bundle.read(ustar.write([Member(bundle.INDEX, compact), *members_of(good)[1:]]))


def test_a_bundle_above_the_limit_is_refused_unread():
    with pytest.raises(InvalidBundleError, match="at most 33554432 bytes, got 33554433"):
        bundle.read(bytes(bundle.MAX_BUNDLE_BYTES + 1))


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("demo.py", "def run(:\n", r"demo.py:1: invalid syntax"),
        ("demo.py", "def walk(): ...\n", r"demo.py: expected a function run \(plugin.toml: entrypoint\), got none"),
        ("helpers/abc.py", "x = 1\nif\n", r"helpers/abc.py:2: "),
        ("schemas/input.json", "{", r"schemas/input.json: line 1 column 2"),
        ("schemas/input.json", '{"$ref": "https://example.org/s"}', r"schemas/input.json: at /\$ref"),
        ("cases/two.json", "[]", r"cases/two.json: expected an object"),
        ("cases/two.json", "{}", r"cases/two.json: input: expected the plugin's input"),
        ("cases/two.json", '{"input": "x"}', r'cases/two.json: input: at /: "x"'),
        ("cases/two.json", '{"input": 1, "output": "x"}', r"cases/two.json: output: at /"),
        ("cases/two.json", '{"input": 1, "outptu": 2}', r"outptu: unknown field; did you mean output\?"),
        ("cases/two.json", '{"input": 1, "stage": "A B"}', r"cases/two.json: stage: expected a stage's name"),
        ("cases/two.json", '{"input": NaN}', r"cases/two.json: NaN is not JSON"),
        ("requirements.lock", "", r"requirements.lock: expected none"),
        ("plugin.json", "{}", r"plugin.json: expected no file of this name"),
        ("plugin.toml", TOML.replace("demo:run", "demo2:run"), r"expected a file demo2.py or demo2/__init__.py"),
        ("plugin.toml", TOML.replace("demo:run", "json:run"), r'got "json" of the standard library'),
        ("plugin.toml", PROGRAM, r"entrypoint: expected a file bin/tool, which is the program, got none"),
        ("plugin.toml", TOML + '[schemas]\ninput = "no.json"\n', r"no.json: expected the schema of the input"),
    ],
)
def test_build_tells_what_is_wrong_with_which_file(folder, name, text, words):
    (folder / name).write_text(text)
    with pytest.raises(InvalidBundleError, match=words):
        bundle.build(folder)


def test_program_has_to_be_executable_also_in_a_bundle_that_others_made(folder):
    (folder / "plugin.toml").write_text(PROGRAM)
    (folder / "bin").mkdir()
    (folder / "bin/tool").write_text("#!/bin/sh\ncat\n")
    (folder / "bin/tool.py").write_text("no function here = \n")  # what is no Python is told of all the same
    with pytest.raises(InvalidBundleError, match=r"bin/tool: expected an executable file .*: chmod \+x bin/tool"):
        bundle.build(folder)
    (folder / "bin/tool").chmod(0o700)
    with pytest.raises(InvalidBundleError, match=r"\Abin/tool.py:1: invalid syntax\Z"):
        bundle.build(folder)
    (folder / "bin/tool.py").unlink()
    data = bundle.build(folder)
    read = bundle.read(data)
    assert (read.manifest.runtime, read.manifest.entrypoint, read.executable) == ("exec", "bin/tool", {"bin/tool"})
    members = [replace(member, executable=False) for member in members_of(data)]
    with pytest.raises(InvalidBundleError, match="bin/tool: expected an executable file"):
        bundle.read(ustar.write(members))


def test_build_tells_every_problem_at_once(folder):
    (folder / "demo.py").write_text("def run(:\n")
    (folder / "schemas/input.json").write_text("{")
    (folder / "cases/two.json").write_text("[]")
    with pytest.raises(InvalidBundleError) as caught:
        bundle.build(folder)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "schemas/input.json",
        "cases/two.json",
        "demo.py",
    ]


def test_a_folder_without_plugin_toml_is_refused(tmp_path):
    with pytest.raises(InvalidBundleError, match=r"expected plugin.toml"):
        bundle.build(tmp_path)


def test_a_folder_named_plugin_json_is_refused(folder):
    write(folder, {"plugin.json/inner.py": ""})
    with pytest.raises(InvalidBundleError, match=r"plugin.json: expected no folder of this name"):
        bundle.build(folder)


def test_a_folder_that_is_too_large_together_is_refused(folder):
    for name in ("one", "two", "three"):
        (folder / f"{name}.bin").write_bytes(bytes(12 * 1024 * 1024))
    with pytest.raises(InvalidBundleError, match="a bundle of at most 33554432 bytes"):
        bundle.build(folder)


def test_reading_does_not_depend_on_where_it_runs(good, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert bundle.read(good) is not None
    assert list(Path().iterdir()) == []
