"""new and build: what they write, the same bytes every time, and every mistake in a manifest told by its field."""

import hashlib
import io
import json
import keyword
import os
import re
import shutil
import subprocess
import sys
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugind_client.cli import adapters, starter
from tests.support.fake_daemon import plugindctl, plugindctl_process


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """No daemon is needed, and none is there."""
    monkeypatch.setenv("PLUGIND_SOCKET", str(tmp_path / "missing.sock"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def demo(tmp_path):
    assert plugindctl("new", "demo").code == 0
    return tmp_path / "demo"


def changed(folder, old, new):
    path = folder / "plugin.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


# --- new -----------------------------------------------------------------------------------------------------------


def test_new_plugin_builds_and_its_case_holds(demo):
    assert plugindctl("build", "demo").code == 0
    case = json.loads((demo / "cases/two_tasks.json").read_text())
    script = "import json, sys, demo; print(json.dumps(demo.run(json.load(sys.stdin), {})))"
    out = subprocess.check_output(
        [sys.executable, "-B", "-c", script], input=json.dumps(case["input"]), text=True, cwd=demo
    )
    assert json.loads(out) == case["output"]


def test_new_program_builds_and_its_case_holds(tmp_path):
    done = plugindctl("new", "tool", "--runtime", "exec")
    assert done.code == 0
    assert done.err.splitlines()[-1] == "try it with `plugindctl try tool --tier 1`"
    folder = tmp_path / "tool"
    assert plugindctl("build", "tool").code == 0
    case = json.loads((folder / "cases/two_lines.json").read_text())
    out = subprocess.check_output([folder / "bin/tool"], input=json.dumps(case["input"]), text=True)
    assert json.loads(out) == case["output"]
    (folder / "bin/tool").chmod(0o644)
    refused = plugindctl("build", "tool")
    assert refused.code == 2
    assert "bin/tool: expected an executable file (plugin.toml: entrypoint)" in refused.err
    assert "chmod +x bin/tool" in refused.err


def test_new_program_is_not_made_of_python_source(tmp_path):
    (tmp_path / "m.py").write_text("def f(): return 1\n")
    done = plugindctl("new", "tool", "--from", "m.py", "--runtime", "exec")
    assert (done.code, "--from takes Python source" in done.err) == (2, True)
    assert not (tmp_path / "tool").exists()


def test_new_tells_what_it_wrote_and_what_to_do_next(tmp_path):
    done = plugindctl("new", "demo", "--dir", "a/b")
    written = [line.removeprefix("wrote ") for line in done.err.splitlines() if line.startswith("wrote ")]
    assert (done.code, done.out) == (0, "")
    assert sorted(written) == sorted(str(path) for path in tmp_path_files(tmp_path, "a/b/demo"))
    assert done.err.splitlines()[-1] == "try it with `plugindctl try a/b/demo`"


def tmp_path_files(root, below):
    return [path.relative_to(root) for path in (root / below).rglob("*") if path.is_file()]


def test_new_as_json(tmp_path):
    done = plugindctl("new", "demo", "--json")
    assert (done.code, done.err, set(done.json)) == (0, "", {"folder", "files"})
    assert done.json["folder"] == "demo"
    assert done.json["files"] == sorted(str(path) for path in tmp_path_files(tmp_path / "demo", ""))


def test_new_overwrites_nothing(demo):
    (demo / "demo.py").write_text("mine")
    done = plugindctl("new", "demo")
    assert (done.code, done.err) == (2, "plugindctl: demo: is there already, and nothing is overwritten\n")
    assert (demo / "demo.py").read_text() == "mine"


@pytest.mark.parametrize("name", ["a", "Demo", "1demo", "_demo", "de-mo", "../demo", "demo/x", "", "x" * 64, "démo"])
def test_new_refuses_what_is_no_name(tmp_path, name):
    done = plugindctl("new", "--", name)
    assert done.code == 2
    assert "expected a name of 2 to 63 lower-case letters" in done.err
    assert list(tmp_path.iterdir()) == []


def test_new_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    done = plugindctl("new", "demo", "--dir", "file/below")
    assert (done.code, done.err) == (2, "plugindctl: file/below: Not a directory\n")


@pytest.mark.parametrize("name", ["json", "class", "async", "sys", "antigravity"])
def test_name_that_python_needs_itself_gets_another_module(tmp_path, name):
    assert plugindctl("new", name).code == 0
    assert (tmp_path / name / f"{name}_plugin.py").is_file()
    assert plugindctl("build", name).code == 0


def test_module_of_any_name_can_be_imported():
    for name in (*keyword.kwlist, *sys.stdlib_module_names, "demo"):
        (module,) = (path.removesuffix(".py") for path in starter.files(name) if path.endswith(".py"))
        assert module.isidentifier()
        assert not keyword.iskeyword(module)
        assert module not in sys.stdlib_module_names


@given(st.text(max_size=70))
def test_is_name_is_the_contracts_pattern(text):
    assert adapters.is_name(text) is bool(re.fullmatch(r"[a-z][a-z0-9_]{1,62}", text))


# --- new --from ----------------------------------------------------------------------------------------------------

SOURCE = (
    '"""Margins."""\nimport math\n\ndef margin(income: float, cost: float = 0.0) -> float:\n    return income - cost\n'
)


def test_new_from_source_is_a_folder_to_review_that_builds(tmp_path):
    (tmp_path / "calculations.py").write_text(SOURCE)
    done = plugindctl("new", "margins", "--from", "calculations.py")
    assert (done.code, done.out) == (0, "")
    assert done.err.splitlines()[-1] == "try it with `plugindctl try margins`"
    assert sorted(str(path) for path in tmp_path_files(tmp_path, "margins")) == [
        "margins/cases/first_call.json",
        "margins/margins.py",
        "margins/plugin.toml",
        "margins/schemas/input.json",
        "margins/schemas/output.json",
    ]
    assert (tmp_path / "margins/margins.py").read_text() == SOURCE
    toml = (tmp_path / "margins/plugin.toml").read_text()
    for line in ('origin = "synthesized"', 'interface = "functions"', 'version = "0.1.0"', 'summary = "Margins."'):
        assert line in toml.splitlines()
    case = json.loads((tmp_path / "margins/cases/first_call.json").read_text())
    assert case == {"input": {"function": "margin", "arguments": {"income": 1.0}}}
    assert plugindctl("build", "margins").out == "margins-0.1.0.plugin.tar\n"


def test_new_from_keeps_line_ends_and_needs_no_case(tmp_path):
    data = "def f(x: Kind): return 'ü'\r\n".encode()
    (tmp_path / "m.py").write_bytes(data)
    assert plugindctl("new", "margins", "--from", "m.py").code == 0
    assert (tmp_path / "margins/margins.py").read_bytes() == data
    assert plugindctl("build", "margins").code == 0


@pytest.mark.parametrize(
    "data,said",
    [
        (b"def f(:\n", "m.py:1:7: expected Python source, got invalid syntax"),
        (b"\xff", "m.py:1:1: expected UTF-8, got byte 0xff"),
        (b"x = 1\n", "m.py:1:1: expected at least one public function at the top level, got no function"),
        (None, "m.py: No such file or directory"),
    ],
)
def test_new_from_what_is_no_source_writes_nothing(tmp_path, data, said):
    if data is not None:
        (tmp_path / "m.py").write_bytes(data)
    done = plugindctl("new", "margins", "--from", "m.py")
    assert done.code == 2
    assert done.err.splitlines()[-1].strip().removeprefix("plugindctl: ") == said
    assert not (tmp_path / "margins").exists()


# --- build ---------------------------------------------------------------------------------------------------------


def test_build_prints_the_path_and_tells_the_digest(demo, tmp_path):
    done = plugindctl("build", "demo")
    data = (tmp_path / "demo-0.1.0.plugin.tar").read_bytes()
    assert (done.code, done.out) == (0, "demo-0.1.0.plugin.tar\n")
    assert done.err == f"demo 0.1.0: {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}\n"
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getnames() == ["plugin.json", *sorted(str(path) for path in tmp_path_files(demo, ""))]


def test_build_as_json(demo, tmp_path):
    done = plugindctl("--json", "build", "demo", "-o", "out.tar")
    data = (tmp_path / "out.tar").read_bytes()
    assert done.json == {
        "file": "out.tar",
        "name": "demo",
        "version": "0.1.0",
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
    }


def test_same_folder_always_gives_the_same_bytes(demo, tmp_path):
    plugindctl("build", "demo", "-o", "one.tar")
    again = tmp_path / "elsewhere"
    for path in sorted(tmp_path_files(demo, ""), reverse=True):
        (again / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(demo / path, again / path)
    environment = os.environ | {"TZ": "Asia/Tokyo"}
    done = plugindctl_process("build", again, "-o", tmp_path / "two.tar", umask=0o077, env=environment)
    assert done.code == 0
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()


@pytest.mark.parametrize(
    "old,new,line",
    [
        ('origin = "authored"', 'orgin = "authored"', "plugin.toml: orgin: unknown field; did you mean origin?"),
        ('"0.1.0" ', '"1.x" ', 'plugin.toml: version: expected MAJOR.MINOR.PATCH, such as 1.2.0, got "1.x"'),
        ("wall_ms = 2000", 'wall_ms = "2s"', "plugin.toml: limits.wall_ms: expected a whole number"),
        ('"demo:run"', '"dmeo:run"', "plugin.toml: entrypoint"),
        ('license = "MIT"\n', "", "plugin.toml: license: expected"),
        ("schema = 1", "schema = [", "plugin.toml: expected TOML"),
        (
            '"schemas/input.json"',
            '"schemas/none.json"',
            "schemas/none.json: expected the schema of the input (plugin.toml: schemas.input)",
        ),
    ],
)
def test_wrong_field_is_named_with_what_was_expected(demo, tmp_path, old, new, line):
    changed(demo, old, new)
    done = plugindctl("build", "demo")
    first, *lines = done.err.splitlines()
    assert (done.code, done.out, first) == (2, "", "plugindctl: demo: this is no plugin that can be built")
    assert [each for each in lines if each.strip().startswith(line)]
    assert list(tmp_path.glob("*.tar")) == []


def test_all_mistakes_are_told_at_once_and_as_json(demo):
    changed(demo, '"0.1.0" ', '"1.x" ')
    changed(demo, "wall_ms = 2000", "wall_ms = 0")
    done = plugindctl("build", "demo", "--json")
    assert (done.code, done.err, set(done.json), set(done.json["error"])) == (
        2,
        "",
        {"error"},
        {"code", "message", "problems"},
    )
    assert done.json["error"]["code"] == "INVALID_BUNDLE"
    assert [problem.split(":")[1].strip() for problem in done.json["error"]["problems"]] == [
        "version",
        "limits.wall_ms",
    ]


@pytest.mark.parametrize(
    "make,said",
    [
        (lambda path: None, "expected a plugin's folder, got nothing"),
        (lambda path: path.write_text(""), "expected a plugin's folder, got a file"),
        (lambda path: path.mkdir(), "there is no plugin.toml in it; `plugindctl new NAME` makes a folder with one"),
    ],
    ids=["missing", "file", "empty"],
)
@pytest.mark.parametrize("command", ["build", "try", "jail"])
def test_folder_that_is_no_plugin(tmp_path, command, make, said):
    make(tmp_path / "thing")
    done = plugindctl(command, f"{tmp_path}/thing")
    assert done.code == 2
    assert said in done.err


def test_bundle_that_cannot_be_written(demo):
    done = plugindctl("build", "demo", "-o", "missing/out.tar")
    assert (done.code, done.err) == (2, "plugindctl: missing/out.tar: No such file or directory\n")
