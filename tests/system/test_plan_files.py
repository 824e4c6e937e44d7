"""Files of a plan in real jails: what an instance sees, what it can write, what comes of that, and what is left."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import io
import json
import os
import shutil
import tarfile
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from plugind import planfiles
from plugind.errors import IsolationUnavailableError
from plugind.linux import mounts
from plugind.model import Outcome
from plugind.planfiles import OUTPUT_DIR, PLAN_DIR, Entry
from plugind.profiles import profiles_dir
from plugind.sandbox.running import InstanceRequest, InstanceResult
from tests.support.jail import Jail, bundle_of, descendants, groups_of_runs, jail, living_instances
from tests.support.pace import stretched
from tests.support.weakened import weakened

MIB = 1 << 20
PLAN = {
    "wbs.json": b'{"tasks": []}',
    "empty": b"",
    "deep/er/and/deeper/still/x/y": b"7 folders",
    "deep/er/über uns.md": "größer".encode(),
    "large.bin": os.urandom(3 * MIB + 17),
}
SEE = """
import hashlib, os
def caught(function, *arguments):
    try:
        return f"done: {function(*arguments)!r}"
    except OSError as error:
        return os.strerror(error.errno)
def run(payload, context):
    place = context.plan_dir
    files = [os.path.join(at, name) for at, _, names in os.walk(place) for name in names]
    first = sorted(files)[0] if files else place + "/x"
    mounts = [line.split()[1:4] for line in open("/proc/self/mounts") if line.split()[1].startswith("/grant/")]
    return {
        "plan_dir": place, "output_dir": context.output_dir, "scratch_dir": context.scratch_dir,
        "files": {os.path.relpath(name, place): hashlib.sha256(open(name, "rb").read()).hexdigest() for name in files},
        "mounts": {name: [kind, sorted(options.split(","))] for name, kind, options in mounts},
        "modes": sorted({oct(os.stat(name).st_mode) for name in [place, *files]}) if files else [],
        "attempts": {
            "new": caught(open, place + "/new", "w"), "append": caught(open, first, "a"), "remove": caught(os.unlink, first),
            "rename": caught(os.rename, first, first + "2"), "mode": caught(os.chmod, first, 0o777),
            "owner": caught(os.chown, first, 1000, 1000), "folder": caught(os.mkdir, place + "/d"),
            "link": caught(os.link, first, place + "/l"), "symlink": caught(os.symlink, "/etc", place + "/s"),
            "times": caught(os.utime, first), "elsewhere": caught(os.listdir, "/grant"),
        } if files else {},
        "descriptors": sorted(map(int, os.listdir("/proc/self/fd")))[:-1],
    }
"""
WRITE = """
import os
def run(payload, context):
    for path, text in payload.items():
        os.makedirs(os.path.dirname(f"{context.output_dir}/{path}"), exist_ok=True)
        with open(f"{context.output_dir}/{path}", "w") as stream:
            stream.write(text)
    return sorted(os.listdir(context.output_dir))
"""


@pytest.fixture(scope="module")
def profiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As shipped, and the bundles of these tests are built in, so that they run in Tier 0 as well."""
    folder = tmp_path_factory.mktemp("plugind-profiles") / "profiles"
    shutil.copytree(profiles_dir(), folder)
    digests = [hashlib.sha256(bundle_of(plugin=code)).hexdigest() for code in (SEE, WRITE)]
    (folder / "builtin.list").write_text("".join(f"{digest}\n" for digest in digests))
    return folder


@pytest.fixture
async def box(profiles: Path) -> AsyncIterator[Jail]:
    async with jail(profiles) as made:
        yield made


def value(result: InstanceResult) -> Any:
    assert result.output_json is not None, (result.outcome, result.detail, result.error, result.stderr)
    return json.loads(result.output_json)


def wrote(result: InstanceResult) -> dict[str, bytes | None]:
    assert [entry.problem for entry in result.wrote if entry.problem] == []
    return {entry.path: entry.content for entry in result.wrote}


def problems(result: InstanceResult) -> dict[str, str]:
    return {entry.path: entry.problem for entry in result.wrote}


# -- reading


@pytest.mark.parametrize("tier", [0, 1, 2])
async def test_it_sees_exactly_the_files_that_were_granted_and_changes_none(box: Jail, tier: int) -> None:
    seen = value(await box.run(SEE, tier=tier, plan=PLAN))
    assert seen["files"] == {path: hashlib.sha256(content).hexdigest() for path, content in PLAN.items()}
    assert (seen["plan_dir"], seen["output_dir"], seen["scratch_dir"]) == (PLAN_DIR, "", "/tmp")
    assert seen["modes"] == ["0o100444", "0o40555"]
    assert set(seen["attempts"].values()) <= {"Read-only file system", "Permission denied"}, seen["attempts"]
    assert seen["descriptors"] == [0, 1, 2, 3]
    ((at, (kind, options)),) = seen["mounts"].items()
    assert (at, kind) == (PLAN_DIR, "tmpfs")
    assert {"ro", "nosuid", "nodev", "noexec", "nosymfollow"} <= set(options)


async def test_it_changes_none_without_landlock_either(profiles: Path) -> None:
    async with jail(profiles, weakened(without=["landlock"])) as box:
        seen = value(await box.run(SEE, tier=1, plan=PLAN, write=(1, 4096)))
    attempts = seen["attempts"]
    assert attempts.pop("elsewhere") in ("done: ['read', 'write']", "done: ['write', 'read']")
    assert set(attempts.values()) == {"Read-only file system", "Permission denied"}, "by the mount, and by their modes"


async def test_without_files_there_is_nothing(box: Jail) -> None:
    seen = value(await box.run(SEE, tier=1))
    assert (seen["files"], seen["mounts"], seen["plan_dir"], seen["output_dir"]) == ({}, {}, "", "")
    assert (await box.run(SEE, tier=1)).wrote == ()
    empty = value(await box.run(SEE, tier=1, plan={}))
    assert (empty["files"], empty["plan_dir"], list(empty["mounts"])) == ({}, PLAN_DIR, [PLAN_DIR])


async def test_all_that_a_tier_may_read_is_read(box: Jail) -> None:
    files = box.profiles[1].files
    plan = {f"d{number % 7}/{number}": b"x" * 1000 for number in range(files.read_files - 1)}
    plan["rest"] = bytes(files.read_bytes - sum(map(len, plan.values())))
    seen = value(await box.run(SEE, tier=1, plan=plan))
    assert seen["files"] == {path: hashlib.sha256(content).hexdigest() for path, content in plan.items()}


async def test_siblings_have_their_own(box: Jail) -> None:
    code = "import os, time\ndef run(payload, context):\n    time.sleep(0.3)\n    return open(context.plan_dir + '/a').read()"
    results = await asyncio.gather(*(box.run(code, tier=2, plan={"a": str(number).encode()}) for number in range(6)))
    assert [value(each) for each in results] == [str(number) for number in range(6)]


# -- writing


@pytest.mark.parametrize("tier", [0, 1])
async def test_what_it_writes_comes_back(box: Jail, tier: int) -> None:
    files = {"a.json": "{}", "b/c/d/e/f/g/h/deepest": "8 parts", "b/über uns.md": "größer", planfiles.LEARNED: "{}\n"}
    result = await box.run(WRITE, files, tier=tier, write=(4, 1000))
    assert value(result) == [planfiles.LEARNED, "a.json", "b"]
    assert wrote(result) == {path: text.encode() for path, text in files.items()}


async def test_reading_and_writing_are_two_places(box: Jail) -> None:
    seen = value(await box.run(SEE, tier=1, plan=PLAN, write=(3, MIB)))
    assert (seen["plan_dir"], seen["output_dir"]) == (PLAN_DIR, OUTPUT_DIR)
    kind, options = seen["mounts"][OUTPUT_DIR]
    assert kind == "tmpfs"
    assert {"rw", "nosuid", "nodev", "noexec", "nosymfollow"} <= set(options)
    code = """
import os
def run(payload, context):
    here, out = context.scratch_dir, context.output_dir
    answers = {}
    for name, call in (("rename", os.rename), ("link", os.link)):
        for to, (source, target) in (("out", (here, out)), ("here", (out, here))):
            open(f"{source}/{name}", "w").close()
            try:
                answers[name, to] = call(f"{source}/{name}", f"{target}/{name}")
            except OSError as error:
                answers[name, to] = os.strerror(error.errno)
            os.unlink(f"{source}/{name}")
    os.mkdir(out + "/d")
    open(out + "/d/a", "w").write("moved")
    os.rename(out + "/d/a", out + "/b")
    os.rmdir(out + "/d")
    open(out + "/c", "w").write("long"); open(out + "/c", "w").write("x")
    os.symlink("b", out + "/s")
    try:
        open(out + "/s")
    except OSError as error:
        answers["follow", ""] = os.strerror(error.errno)
    os.unlink(out + "/s")
    return [[*key, answer] for key, answer in sorted(answers.items())]
"""
    result = await box.run(code, tier=1, write=(3, MIB))
    assert wrote(result) == {"b": b"moved", "c": b"x"}
    assert {answer for *_, answer in value(result)} <= {
        "Invalid cross-device link",
        "Too many levels of symbolic links",
    }


async def test_full_is_full_inside_only(box: Jail) -> None:
    code = """
import os
def run(payload, context):
    wrote = files = 0
    with open(context.output_dir + "/a", "wb", buffering=0) as stream:
        try:
            while True:
                wrote += stream.write(bytes(4096))
        except OSError as error:
            full = os.strerror(error.errno)
    try:
        while True:
            os.mkdir(f"{context.output_dir}/{files}"); files += 1
    except OSError as error:
        return [wrote, full, files, os.strerror(error.errno)]
"""
    result = await box.run(code, tier=1, write=(2, MIB))
    size, full, files, many = value(result)
    assert (full, many) == ("No space left on device",) * 2
    assert (size, files) == (MIB + 2 * 4096, 3 * 8 - 1)
    assert problems(result) == {"a": "too large"}


@pytest.mark.parametrize(
    "what,wanted",
    [
        ("os.symlink('/etc/passwd', out + '/a')", {"a": "symlink"}),
        ("os.symlink('..', out + '/a')", {"a": "symlink"}),
        ("open(out + '/a', 'w'); os.link(out + '/a', out + '/b')", {"a": "hard link", "b": "hard link"}),
        ("os.truncate(os.open(out + '/a', os.O_CREAT | os.O_WRONLY), 9999)", {"a": "sparse"}),
        ("os.posix_fallocate(os.open(out + '/a', os.O_CREAT | os.O_WRONLY), 0, 20001)", {"a": "too large"}),
        ("[open(f'{out}/{n}', 'w') for n in range(4)]", {"0": "", "1": "", "2": "", "3": "too many"}),
        ("open(out + '/back\\\\slash', 'w')", {"back%5Cslash": "no path"}),
        ("open(out + '/.plugind-x', 'w')", {"%2Eplugind-x": "no path"}),
        ("open(os.fsencode(out) + b'/\\xff', 'w')", {"%FF": "no path"}),
        ("os.makedirs(out + '/1/2/3/4/5/6/7/8/9/10')", {"1%2F2%2F3%2F4%2F5%2F6%2F7%2F8%2F9": "no path"}),
        ("os.makedirs(out + '/1/2/3/4/5/6/7/8')", {}),
        ("open(out + '/a', 'w').write('x'); os.chmod(out + '/a', 0); os.chmod(out, 0)", {"a": ""}),
    ],
)  # fmt: skip
async def test_what_is_no_file_of_a_plan_is_named(box: Jail, what: str, wanted: dict[str, str]) -> None:
    code = f"import os\ndef run(payload, context):\n    out = context.output_dir\n    {what}"
    result = await box.run(code, tier=1, write=(3, 20000))
    assert (result.outcome, problems(result)) == (Outcome.OK, wanted), result


WAYS = {
    "fails": "raise ValueError('no')",
    "exits": "os._exit(3)",
    "dies": "os.abort()",
    "takes too long": "time.sleep(60)",
    "takes memory": "b = bytearray(1 << 29)",
    "calls": "ctypes.CDLL(None).syscall(165, 0, 0, 0, 0, 0)",
}


@pytest.mark.parametrize("way", WAYS)
async def test_of_what_ends_otherwise_nothing_is_collected(box: Jail, way: str) -> None:
    code = f"""
import ctypes, os, time
def run(payload, context):
    open(context.output_dir + "/a", "w").write("x")
    {WAYS[way]}
"""
    result = await box.run(
        code, tier=1, write=(3, 20000), wall_ms=1500 if way == "takes too long" else 0, memory_bytes=1 << 27
    )
    assert result.outcome is not Outcome.OK, result
    # An exception is an answer too, and the process ends well: that this does not count the front knows.
    assert wrote(result) == ({"a": b"x"} if way == "fails" else {}), result


async def test_tier_2_writes_nothing(box: Jail) -> None:
    with pytest.raises(IsolationUnavailableError, match="write_files: expected 0 to 0 in tier 2, got 1"):
        await box.run(WRITE, {}, tier=2, write=(1, 1))
    for write, words in (((65, 1), "write_files: expected 0 to 64"), ((1, 16 * MIB + 1), "write_bytes: expected 0 to")):
        with pytest.raises(IsolationUnavailableError, match=words):
            await box.run(WRITE, {}, tier=1, write=write)


# -- maps, sessions, programs


def asked(box: Jail, request: InstanceRequest, **changes: Any) -> InstanceRequest:
    files = planfiles.pack([Entry(*each) for each in PLAN.items()])
    return dataclasses.replace(request, files=files, write_files=9, write_bytes=MIB, **changes)


COPY = """
import os
def run(payload, context):
    text = open(f"{context.plan_dir}/{payload}").read()
    open(f"{context.output_dir}/{payload}", "w").write(text.upper())
    return sorted(os.listdir(context.output_dir))
"""


async def test_a_map_and_a_session_have_one_folder(box: Jail) -> None:
    data = bundle_of(plugin=COPY)
    request = asked(box, box.request(data, tier=1))
    await box.client.load(request.digest, lambda: data)
    wanted = {"wbs.json": b'{"TASKS": []}', "empty": b""}
    texts = [json.dumps(name).encode() for name in wanted]
    batch = json.dumps({"items": [{"json": len(text)} for text in texts]}).encode() + b"\n" + b"".join(texts)
    mapped = await box.client.run(dataclasses.replace(request, input=batch, mode="map"))
    assert mapped.output_json is not None
    assert mapped.output_json.endswith(b'["wbs.json"]["empty","wbs.json"]')
    assert wrote(mapped) == wanted

    answers = []

    async def talk(frames: Any) -> None:
        answers.extend([await frames.ask(text) for text in texts])

    session = dataclasses.replace(request, run="session", input=b"", mode="session")
    talked = await box.client.run(session, talk=talk)
    assert [body for _, body in answers] == [b'["wbs.json"]', b'["empty","wbs.json"]']
    assert (talked.outcome, wrote(talked)) == (Outcome.OK, wanted)


PROGRAM = b"""#!/bin/sh
echo >&2 "$PLUGIND_PLAN_DIR $PLUGIND_OUTPUT_DIR"
cat "$PLUGIND_PLAN_DIR/wbs.json" > "$PLUGIND_OUTPUT_DIR/copy"
(sleep 60; echo late > "$PLUGIND_OUTPUT_DIR/copy") &
exec cat "$PLUGIND_OUTPUT_DIR/copy"
"""


async def test_a_program_finds_them_by_its_variables(box: Jail) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        info = tarfile.TarInfo("bin/tool")
        info.size, info.mode = len(PROGRAM), 0o755
        archive.addfile(info, io.BytesIO(PROGRAM))
    data = stream.getvalue()
    request = asked(box, box.request(data, tier=1), runtime="exec", entrypoint="bin/tool")
    await box.client.load(request.digest, lambda: data)
    result = await box.client.run(request)
    assert (value(result), wrote(result)) == ({"tasks": []}, {"copy": PLAN["wbs.json"]})
    assert result.stderr.decode() == f"{PLAN_DIR} {OUTPUT_DIR}\n"
    without = await box.client.run(dataclasses.replace(request, run="w", files=None, write_files=0, write_bytes=0))
    assert without.stderr.decode().splitlines()[0] == " ", "they are there, and empty"


# -- what is left


def open_files(pid: int) -> list[str]:
    return sorted(str(path.readlink()).partition(":")[0] for path in Path(f"/proc/{pid}/fd").iterdir())


def file_systems(box: Jail) -> int:
    """How many the launcher and its templates have mounted, in all namespaces of theirs."""
    mounts = set()
    for pid in (box.launcher_pid, *descendants(box.launcher_pid)):
        mounts |= set(Path(f"/proc/{pid}/mountinfo").read_text().splitlines())
    return len(mounts)


def next_file_system() -> int:
    """The number that the kernel gives to the next one, the lowest that is free: one that is left keeps its own."""
    mount = mounts.detached_tmpfs({"size": "4096"})
    try:
        return os.minor(os.fstat(mount).st_dev)
    finally:
        os.close(mount)


def left(box: Jail) -> tuple[list[str], int, list[int], int, list[Path]]:
    """What there is of a launcher: descriptors (and the front's), mounts, processes, groups of runs."""
    below, ours = sorted(descendants(box.launcher_pid)), len(os.listdir("/proc/self/fd"))
    return open_files(box.launcher_pid), file_systems(box), below, ours, groups_of_runs(box.state)


@pytest.mark.alone  # the kernel's numbers of file systems are all daemons'
async def test_nothing_is_left_of_200_runs(box: Jail) -> None:
    """Some end well, some are killed with what they wrote, some never start."""
    code = """
import os, time
def run(payload, context):
    open(context.output_dir + "/a", "wb").write(bytes(1 << 20))
    os.symlink("a", context.output_dir + "/b")
    if payload == 1:
        os.abort()
    if payload == 2:
        time.sleep(60)
"""
    plan = {"a": bytes(MIB)}

    async def one(number: int) -> Outcome | None:
        kind = number % 4
        write, wall_ms = (65 if kind == 3 else 2, 2 * MIB), 200 if kind == 2 else 0
        try:
            result = await box.run(code, kind, tier=1, plan=plan, write=write, wall_ms=wall_ms)
        except IsolationUnavailableError:
            return None
        return result.outcome

    for kind in range(4):
        await one(kind)
    before = left(box)
    number = next_file_system()
    outcomes = []
    for first in range(0, 200, 4):
        outcomes += await asyncio.gather(*(one(number) for number in range(first, first + 4)))
    assert {outcome: outcomes.count(outcome) for outcome in set(outcomes)} == {
        Outcome.OK: 50,
        Outcome.FAILED: 50,
        Outcome.TIMEOUT: 50,
        None: 50,
    }
    for _ in range(int(stretched(100))):  # what is dead is taken apart by the kernel in its own time
        after = left(box)
        more = Counter(after[0]) - Counter(
            before[0]
        )  # what was being closed when one looked first may be closed by now
        if (more, after[1:]) == (Counter(), before[1:]) and next_file_system() - number < 20:
            break
        await asyncio.sleep(0.02)
    assert (more, after[1:]) == (Counter(), before[1:])
    assert living_instances(descendants(box.launcher_pid)) == []
    assert next_file_system() - number < 20, "150 runs had two each"
