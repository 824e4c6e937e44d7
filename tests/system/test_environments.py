"""Environments in real templates: who imports their packages, with what, and what becomes of those that misbehave."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator

import pytest

from plugind.errors import IsolationUnavailableError
from plugind.model import Outcome
from plugind.sandbox import template, templates
from tests.support.environments import shelve
from tests.support.jail import Jail, descendants, jail

pytestmark = pytest.mark.root
USES = "import greeting\ndef run(payload, context): return greeting.of(payload)"
GREETING = {"greeting.py": "def of(name): return f'hello {name}'"}


@pytest.fixture
async def jailed() -> AsyncIterator[Jail]:
    async with jail() as made:
        yield made


async def test_a_plugin_has_its_environments_packages_and_no_others(jailed: Jail) -> None:
    one = shelve(jailed.shelf, GREETING, name="one")
    other = shelve(jailed.shelf, {"farewell/__init__.py": "of = str"}, name="other")
    assert await jailed.value(USES, "x", environment=one.digest) == "hello x"
    for environment in ("", other.digest):
        result = await jailed.run(USES, "x", environment=environment)
        assert result.error is not None
        assert result.error.type == "ModuleNotFoundError"
    look = "import os\ndef run(payload, context): return sorted(os.listdir('/environment'))"
    assert await jailed.value(look) == []
    assert await jailed.value(look, environment=other.digest) == ["farewell"]


async def test_what_was_imported_ahead_is_there_when_an_instance_starts(jailed: Jail) -> None:
    """Its module's code has run once, in the zygote: all instances have what it then made."""
    stamp = {"stamp.py": "import time\nmade_ns = time.monotonic_ns()"}
    made = shelve(jailed.shelf, stamp)
    code = "import stamp\ndef run(payload, context): return stamp.made_ns"
    values = {await jailed.value(code, environment=made.digest) for _ in range(3)}
    assert len(values) == 1
    assert {await jailed.value(code, environment=made.digest, tier=1) for _ in range(2)}.isdisjoint(values)


async def test_a_plugins_own_module_comes_before_an_environments_of_the_same_name(jailed: Jail) -> None:
    made = shelve(jailed.shelf, {"helper.py": "whose = 'package'", "json_more.py": "import helper"})
    code = "import helper, json_more\ndef run(payload, context): return helper.whose"
    assert await jailed.value(code, environment=made.digest) == "package"
    request = {"files": {"helper": "whose = 'plugin'"}, "environment": made.digest}
    result = await jailed.run(code, **request)
    assert result.output_json == b'"plugin"', result


async def test_the_standard_library_comes_before_an_environment(jailed: Jail) -> None:
    made = shelve(jailed.shelf, {"colorsys.py": "x = 1"})
    code = "import colorsys\ndef run(payload, context): return colorsys.__file__"
    assert not str(await jailed.value(code, environment=made.digest)).startswith("/environment")


async def test_what_draws_random_numbers_when_it_is_imported_is_seeded_anew_in_each_instance(jailed: Jail) -> None:
    """numpy.random keeps a generator that is seeded by its import; here is one that is made in the same way."""
    numpy = "import os\nstate = b''\ndef seed():\n    global state\n    state = os.urandom(8)\nseed()"
    made = shelve(
        jailed.shelf,
        {
            "numpy/__init__.py": "from . import random",
            "numpy/random.py": numpy,
            "dice.py": "import random, uuid, tempfile",
        },
        imports=["numpy", "dice"],
    )
    code = (
        "import numpy, random, tempfile, uuid\ndef run(payload, context):\n"
        "    return [numpy.random.state.hex(), random.random(), str(uuid.uuid4()), tempfile.mktemp()]"
    )
    drawn = [await jailed.value(code, environment=made.digest) for _ in range(20)]
    for each in zip(*drawn, strict=True):
        assert len(set(each)) == 20, each


async def test_numerical_libraries_are_told_to_use_one_thread(jailed: Jail) -> None:
    made = shelve(jailed.shelf, GREETING)
    code = "import os\ndef run(payload, context): return dict(os.environ)"
    base, own = [await jailed.value(code, environment=each) for each in ("", made.digest)]
    assert own == {**base, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


async def test_what_cannot_be_imported_ahead_is_told_and_keeps_nobody_from_the_rest(jailed: Jail) -> None:
    made = shelve(jailed.shelf, {**GREETING, "odd.py": "import nowhere", "leaves.py": "raise SystemExit(3)"})
    assert await jailed.value(USES, "x", environment=made.digest) == "hello x"
    assert jailed.imported[-1].failed == {
        "leaves": "SystemExit: 3",
        "odd": "ModuleNotFoundError: No module named 'nowhere'",
    }
    result = await jailed.run("import odd", environment=made.digest)
    assert result.error is not None
    assert result.error.message == "No module named 'nowhere'"


@pytest.mark.parametrize(
    ("module", "why"),
    [
        ("import os\nos._exit(0)", "it ended"),
        ("import os\nos.kill(os.getpid(), 9)", "it ended"),
        ("import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()", "left 2 processes"),
        ("import os, time\nif os.fork() == 0: time.sleep(60)", "left 2 processes"),
        ('import socket\nsocket.socket(fileno=3).send(b\'{"op": "ready"\')', "template of tier 2"),
    ],
    ids=["exits", "dies", "thread", "process", "nonsense"],
)
async def test_a_package_that_misbehaves_has_its_environment_refused_and_nothing_else(
    jailed: Jail, module: str, why: str
) -> None:
    made = shelve(jailed.shelf, {"bad.py": module})
    for _ in range(2):  # the second one is told without another try
        with pytest.raises(IsolationUnavailableError, match=why):
            await jailed.run(USES, environment=made.digest)
    assert jailed.imported == []
    assert await jailed.value("def run(payload, context): return 1") == 1
    names = list(descendants(jailed.launcher_pid).values())
    assert names.count("plugind-zygote") == len(jailed.profiles), names


async def test_an_import_that_does_not_end_is_ended_and_others_run_meanwhile(monkeypatch) -> None:
    monkeypatch.setattr(template, "IMPORT_TIMEOUT_S", 2.0)  # inherited by the launcher, which is a fork of this process
    async with jail() as jailed:
        made = shelve(jailed.shelf, {"endless.py": "while True: pass"})
        began = time.monotonic()
        waiting = asyncio.ensure_future(jailed.run(USES, environment=made.digest))
        await asyncio.sleep(0.5)
        assert await jailed.value("def run(payload, context): return 1") == 1
        assert not waiting.done()
        with pytest.raises(IsolationUnavailableError, match="take too long"):
            await waiting
        assert time.monotonic() - began >= 2


async def test_files_that_are_not_those_that_were_built_are_not_imported(jailed: Jail) -> None:
    made = shelve(jailed.shelf, GREETING)
    path = jailed.shelf.tree(made.digest) / "greeting.py"
    path.chmod(0o644)
    path.write_text("of = print")
    path.chmod(0o444)
    with pytest.raises(IsolationUnavailableError, match=f"expected files with the digest {made.digest}, got"):
        await jailed.run(USES, environment=made.digest)


async def test_once_it_was_built_anew_the_old_one_serves_nobody(jailed: Jail) -> None:
    old = shelve(jailed.shelf, GREETING)
    assert await jailed.value(USES, "x", environment=old.digest) == "hello x"
    new = shelve(jailed.shelf, {"greeting.py": "def of(name): return f'good day {name}'"})
    assert await jailed.value(USES, "x", environment=new.digest) == "good day x"
    with pytest.raises(IsolationUnavailableError, match="not in force"):
        await jailed.run(USES, environment=old.digest)
    with pytest.raises(IsolationUnavailableError, match="not in force"):
        await jailed.run(USES, environment="0" * 64)


def zygotes(box: Jail) -> int:
    return list(descendants(box.launcher_pid).values()).count("plugind-zygote")


async def test_the_one_that_was_used_least_recently_gives_way_and_comes_again(monkeypatch) -> None:
    monkeypatch.setattr(templates, "MOST_WITH_PACKAGES", 2)
    async with jail() as jailed:
        before = zygotes(jailed)
        made = [shelve(jailed.shelf, {"greeting.py": f"def of(name): return {n}"}, name=f"e{n}") for n in range(3)]
        for order in ([0, 1], [0, 2], [1, 2]):
            for number in order:
                assert await jailed.value(USES, environment=made[number].digest) == number
            assert zygotes(jailed) == before + 2
        assert [each.environment for each in jailed.imported] == [made[n].digest for n in (0, 1, 2, 1)]


async def test_one_that_somebody_uses_does_not_give_way(monkeypatch) -> None:
    monkeypatch.setattr(templates, "MOST_WITH_PACKAGES", 1)
    async with jail() as jailed:
        one, other = (shelve(jailed.shelf, {"greeting.py": f"n = {n}"}, name=f"e{n}") for n in range(2))
        begun = asyncio.Event()
        sleeps = "import time\ndef run(payload, context): time.sleep(payload)"
        busy = asyncio.ensure_future(jailed.run(sleeps, 1, environment=one.digest, on_started=begun.set))
        await begun.wait()
        with pytest.raises(IsolationUnavailableError, match="in use"):
            await jailed.run(USES, environment=other.digest)
        assert (await busy).outcome is Outcome.OK


async def test_one_that_nobody_needs_ends(monkeypatch) -> None:
    monkeypatch.setattr(templates, "IDLE_NS", 500 * 10**6)
    async with jail() as jailed:
        before = zygotes(jailed)
        made = shelve(jailed.shelf, GREETING)
        assert await jailed.value(USES, "x", environment=made.digest) == "hello x"
        assert zygotes(jailed) == before + 1
        async with asyncio.timeout(5):
            while zygotes(jailed) != before:
                await asyncio.sleep(0.05)
        assert await jailed.value(USES, "x", environment=made.digest) == "hello x"


async def test_when_its_zygote_is_killed_its_runs_end_and_the_next_has_a_new_one(jailed: Jail) -> None:
    base = set(descendants(jailed.launcher_pid))
    made = shelve(jailed.shelf, GREETING)
    begun = asyncio.Event()
    sleeps = "import time\ndef run(payload, context): time.sleep(60)"
    busy = asyncio.ensure_future(jailed.run(sleeps, environment=made.digest, on_started=begun.set))
    await begun.wait()
    found = descendants(jailed.launcher_pid)
    (zygote,) = [pid for pid, name in found.items() if pid not in base and name == "plugind-zygote"]
    os.kill(zygote, signal.SIGKILL)
    assert (await busy).outcome is Outcome.FAULT
    assert await jailed.value(USES, "x", environment=made.digest) == "hello x"
    assert len(jailed.imported) == 2


async def test_many_runs_that_come_at_once_wait_for_one_import(jailed: Jail) -> None:
    made = shelve(jailed.shelf, {"greeting.py": "import time\ntime.sleep(0.5)\ndef of(name): return name"})
    runs = [jailed.value(USES, number, environment=made.digest) for number in range(20)]
    assert await asyncio.gather(*runs) == list(range(20))
    assert len(jailed.imported) == 1


async def test_a_run_that_is_killed_while_it_waits_for_an_import_never_starts(jailed: Jail) -> None:
    made = shelve(jailed.shelf, {"greeting.py": "import time\ntime.sleep(1)\nof = str"})
    waiting = asyncio.ensure_future(jailed.run(USES, environment=made.digest, name="waits"))
    await asyncio.sleep(0.3)
    jailed.client.kill("waits", "killed")
    result = await waiting
    assert result.outcome is Outcome.KILLED
    assert result.usage.wall_ms == 0
