"""What a plugin tries to open is noted, and the plugin does not notice: each in a process of its own, for a hook stays."""

import json
import subprocess
import sys
import textwrap

import pytest

from plugind import planfiles
from plugind.sandbox.inside import learning, packages


def test_the_names_are_those_of_files_of_a_plan():
    named = (learning.PLAN_DIR, learning.OUTPUT_DIR, learning.LEARNED)
    assert named == (planfiles.PLAN_DIR, planfiles.OUTPUT_DIR, planfiles.LEARNED)
    assert packages.PLACE in learning._OWN


@pytest.fixture
def learned(tmp_path):
    """What is noted while code runs with `plan`, `output` and `other` as its folders."""
    plan, output, other = (tmp_path / name for name in ("plan", "output", "other"))
    for folder in (plan / "wbs", output, other):
        folder.mkdir(parents=True)
    (plan / "wbs/a.json").write_text("{}")
    (plan / "b.json").write_text("{}")
    (other / "c.txt").write_text("c")

    def run(code, **call):
        said = {"plan_dir": str(plan), "output_dir": str(output), "learn": "1"} | call
        script = f"""
            import io, os, sys
            from plugind.sandbox.inside import learning
            learning._OWN = ("/plugin", "/dev", "/proc")  # this test's folders are below /tmp
            plan, output, other = {str(plan)!r}, {str(output)!r}, {str(other)!r}
            learning.begin({said!r})
        """
        script = textwrap.dedent(script) + textwrap.dedent(code)
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=other)
        assert (done.returncode, done.stderr) == (0, "")
        notes = output / learning.LEARNED
        lines = notes.read_text().splitlines() if notes.exists() else None
        return lines if lines is None else [tuple(json.loads(line).values()) for line in lines]

    run.other = other
    return run


def test_every_distinct_open_is_noted_once_by_place_and_mode(learned):
    code = """
        for _ in range(3):
            open(f"{plan}/wbs/a.json").close()
        os.close(os.open(os.fsencode(plan) + b"/wbs/../b.json", os.O_RDONLY))
        open(f"{output}/new.json", "w").close()
        open(f"{output}/new.json").close()
        open(f"{output}/new.json", "a").close()
        io.FileIO("c.txt").close()
        for path in (f"{plan}/none.json", "/etc/none", f"{plan}/wbs"):
            try:
                open(path)
            except OSError:
                pass
    """
    assert learned(code) == [
        ("wbs/a.json", "read", "plan", True),
        ("b.json", "read", "plan", True),
        ("new.json", "write", "output", False),
        ("new.json", "read", "output", True),
        (str(learned.other / "c.txt"), "read", "elsewhere", True),
        ("none.json", "read", "plan", False),
        ("/etc/none", "read", "elsewhere", False),
    ]


def test_file_that_gets_its_name_later_is_noted_by_that_name_and_a_removed_one_not_at_all(learned):
    code = """
        for name in ("part", "gone"):
            open(f"{output}/{name}", "w").close()
        os.replace(f"{output}/part", f"{output}/whole")
        os.remove(f"{output}/gone")
        open(f"{plan}/b.json").close()
    """
    assert learned(code) == [("whole", "write", "output", False), ("b.json", "read", "plan", True)]


def test_own_trees_and_the_notes_themselves_are_not_noted(learned):
    code = """
        import json, xmlrpc.client
        open(json.__file__).close()
        open("/dev/null").close()
        open("/proc/self/stat").close()
        open(f"{output}/.learned.plugind").close()
        open(0, closefd=False)
    """
    assert learned(code) == []


def test_hook_raises_nothing_into_the_plugin_and_ends_with_so_many_notes(learned):
    code = f"""
        for number in range({learning.MOST} + 5):
            open(f"{{output}}/{{number}}", "w").close()
        os.closerange(3, 64)
        open(f"{{output}}/x" , "w").close()
        os.replace(f"{{output}}/1", f"{{output}}/y")
        for odd in ("\\0", b"\\xff/x", "\\udcff", "x" * 5000):
            try:
                open(odd)
            except (OSError, ValueError):
                pass
        import shutil
        shutil.rmtree(output + "/nothing", ignore_errors=True)
    """
    notes = learned(code)
    assert len(notes) == learning.MOST
    assert notes[-1] == (str(learning.MOST - 1), "write", "output", False)


@pytest.mark.parametrize("call", [{"learn": ""}, {"learn": "0"}])
def test_nothing_is_noted_in_a_run_that_does_not_learn(learned, call):
    assert learned("open(f'{plan}/b.json').close()", **call) is None


def test_runner_begins_before_the_plugin_is_imported(learned, tmp_path):
    (tmp_path / "early.py").write_text(f"open({str(tmp_path / 'plan/b.json')!r}).close()\ndef run(p, c): return 1\n")
    call = {"interface": "json", "entrypoint": "early:run", "stage": "", "plan_id": "", "mode": "run"}
    call |= {"plan_dir": str(tmp_path / "plan"), "output_dir": str(tmp_path / "output"), "learn": "1"}
    code = f"""
        from plugind.sandbox.inside import runner
        sys.path.insert(0, {str(tmp_path)!r})
        assert runner._plugin({call!r}).answer(None) == 1
    """
    assert ("b.json", "read", "plan", True) in learned(code, learn="")
