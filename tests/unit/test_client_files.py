"""Files of a plan on the client's side: what is sent, what comes back, and what an answer may not be."""

import asyncio
import hashlib
import os
import threading
import time
from pathlib import Path

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugind import planfiles as daemons
from plugind_client import AsyncClient, Client, Fault, InvalidRequest, Opening, PlanFile, Unavailable, planfiles
from plugind_client.planfiles import CHUNK_BYTES
from plugind_proto.v1 import runtime_pb2
from tests.support.fake_daemon import FakeDaemon, allowed, denied
from tests.support.fake_files import written
from tests.unit.test_client_calls import Awaited

RESPONSE, CHUNK = runtime_pb2.RunFilesResponse, runtime_pb2.FileChunk


@pytest.fixture
def daemon(tmp_path):
    with FakeDaemon(str(tmp_path / "d.sock")) as daemon:
        yield daemon


@pytest.fixture(params=[Client, Awaited], ids=["sync", "async"])
def client(daemon, request):
    with request.param(daemon.socket) as client:
        yield client


def sha256(content):
    return hashlib.sha256(content).hexdigest()


# --- plan_dir ------------------------------------------------------------------------------------------------------


def test_folder_is_made_absolute_here_and_no_link_is_resolved(daemon, client, tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    for given_, sent in [
        ("link/./x/..", tmp_path / "link"),
        (Path("real"), tmp_path / "real"),
        ("//srv//p/", "/srv/p"),
    ]:
        client.run("echo", {}, plan_dir=given_)
        assert daemon.last("RunRequest").plan_dir == str(sent)
        client.execute("echo", {}, plan_dir=given_)
        assert daemon.last("RunRequest").plan_dir == str(sent)
    client.execute("echo", {}, plan_dir="real", learn=True)
    assert daemon.last("RunRequest").learn


def test_map_session_and_modules_take_the_folder(daemon, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Client(daemon.socket) as client:
        daemon.maps["echo"] = lambda request, _: runtime_pb2.MapResponse(
            run=allowed(b"", files=written({"x": b"1"})), results=[runtime_pb2.MapResult(output_json=b"1")]
        )
        assert client.map("echo", [1], plan_dir="plan").files == (PlanFile("x", sha256(b"1"), 1),)
        assert daemon.last("MapRequest").run.plan_dir == str(tmp_path / "plan")
        with client.session("echo", plan_dir="plan"):
            pass
        opened = next(
            each for each in daemon.requests if isinstance(each, runtime_pb2.SessionOpen | runtime_pb2.SessionRequest)
        )
        run = opened.open.run if isinstance(opened, runtime_pb2.SessionRequest) else opened.run
        assert run.plan_dir == str(tmp_path / "plan")
        module = client.load_source("def f(): return 1\n", plan_dir="plan")
        monkeypatch.chdir("/")
        daemon.maps[module.__name__] = daemon.maps["echo"]
        client.map(module, [{"function": "f"}])
        assert daemon.last("MapRequest").run.plan_dir == str(tmp_path / "plan")


@pytest.mark.parametrize("wrong", ["", 5, b"/x", "a\0b"])
def test_what_is_no_folder_is_told_and_not_sent(daemon, client, wrong):
    with pytest.raises(InvalidRequest) as caught:
        client.run("echo", {}, plan_dir=wrong)
    assert caught.value.detail.startswith("plan_dir: expected the plan's folder, a str or path object, got ")
    assert daemon.requests == []


def test_answer_tells_what_was_written_and_opened(daemon, client):
    answer = allowed(
        b"1",
        files=[runtime_pb2.WrittenFile(path="a", sha256="ab", bytes=3, replaced_sha256="cd", replaced_bytes=4)],
        opened=[runtime_pb2.Opening(path="a", mode="read", place="plan", found=True)],
    )
    daemon.answers["p"] = answer
    result = client.run("p", {}, plan_dir="/srv/p")
    assert result.files == (PlanFile("a", "ab", 3, "cd", 4, None),)
    assert result.opened == (Opening("a", "read", "plan", True),)
    assert client.run("echo", {}).files == ()


# --- files ---------------------------------------------------------------------------------------------------------


def test_files_go_along_in_chunks_and_come_back_whole(daemon, client, tmp_path):
    large = os.urandom(2 * CHUNK_BYTES + 5)
    (tmp_path / "large.bin").write_bytes(large)
    back = {"out/a.json": b"{}", "empty": b"", "large": large}
    daemon.answers["p"], daemon.sends["p"] = allowed(b"5", files=written(back)), back
    files = {"wbs/a.json": b"[1]", "large.bin": tmp_path / "large.bin", "none": b"", "exact": bytes(CHUNK_BYTES)}
    result = client.run("p@1.0.0", {"x": 1}, stage="wbs", files=files, idempotency_key="k")
    assert daemon.received == [files | {"large.bin": large}]
    assert daemon.chunk_sizes == [
        *((3, True), (CHUNK_BYTES, False), (CHUNK_BYTES, False), (5, True), (0, True), (CHUNK_BYTES, True))
    ]
    sent = daemon.last("RunRequest")
    assert (sent.plugin, sent.version, sent.input_json, sent.stage, sent.plan_dir) == (
        "p",
        "1.0.0",
        b'{"x":1}',
        "wbs",
        "",
    )
    assert result.output == 5
    assert result.files == tuple(PlanFile(path, sha256(each), len(each), content=each) for path, each in back.items())


def test_no_files_are_files_too_and_a_denial_is_as_ever(daemon, client):
    daemon.answers["p"] = denied("BUSY")
    assert client.execute("p", {}, files={}).reasons[0].code == "BUSY"
    assert daemon.received == [{}]


def test_both_are_a_mistake_of_the_program(daemon, client):
    with pytest.raises(TypeError, match="plan_dir, files: expected one of them, got both"):
        client.run("echo", {}, plan_dir="/srv/p", files={})
    assert daemon.requests == []


@pytest.mark.parametrize(
    "files,said",
    [
        ([], "files: expected a mapping of path to bytes or path object, got list"),
        ({"../a": b""}, "files: expected a path relative to the plan's folder"),
        ({"/a": b""}, "files: expected a path relative"),
        ({5: b""}, "files: expected a path relative"),
        ({".plugind-x/a": b""}, "files: expected a path relative"),
        ({"a": "text"}, "files: a: expected bytes, or a path object to read them from, got str"),
    ],
)
def test_what_are_no_files_is_told_and_not_sent(daemon, client, files, said):
    with pytest.raises(InvalidRequest) as caught:
        client.run("echo", {}, files=files)
    assert caught.value.detail.startswith(said)
    assert daemon.requests == []


def test_file_that_cannot_be_read_is_an_oserror_before_anything_is_sent(daemon, client, tmp_path):
    with pytest.raises(FileNotFoundError):
        client.run("echo", {}, files={"a": tmp_path / "none"})
    assert daemon.requests == []


GOOD = RESPONSE(file=CHUNK(path="a", data=b"x", last=True))
RUN = RESPONSE(run=allowed(b"1", files=written({"a": b"x"})))


@pytest.mark.parametrize(
    "messages,said",
    [
        ([], "an end before it"),
        ([GOOD], "an end before it"),
        ([RESPONSE(file=CHUNK(path="a", data=b"x")), RUN], "an end before it"),
        ([RUN], "'a' differs"),
        ([RESPONSE(file=CHUNK(path="a", data=b"y", last=True)), RUN], "'a' differs"),
        ([GOOD, RESPONSE(file=CHUNK(path="b", last=True)), RUN], "'b' differs"),
        ([GOOD, GOOD, RUN], "a file that has not come yet, got 'a'"),
        ([RESPONSE(file=CHUNK(path="a")), RESPONSE(file=CHUNK(path="b", last=True)), RUN], "more of a, got 'b'"),
        ([RESPONSE(file=CHUNK(path="../a", last=True)), RUN], "got '../a'"),
        ([GOOD, RUN, RUN], "the response last"),
    ],
)
def test_answer_that_does_not_fit_together_is_a_fault_and_gives_no_file(daemon, client, messages, said):
    daemon.sends["echo"] = messages
    with pytest.raises(Fault) as caught:
        client.run("echo", {}, files={})
    assert (caught.value.code, said in caught.value.detail) == ("BAD_ANSWER", True), caught.value.detail


def test_refusal_of_the_call_is_the_typed_error(daemon, client):
    daemon.refusal = (grpc.StatusCode.RESOURCE_EXHAUSTED, "files: too large", [])
    with pytest.raises(InvalidRequest) as caught:
        client.run("echo", {}, files={"a": bytes(5 * CHUNK_BYTES)})
    assert (caught.value.code, caught.value.detail) == ("REQUEST_TOO_LARGE", "files: too large")


def test_daemon_may_answer_before_it_has_all_files(daemon, client):
    daemon.answers |= {"p": "early", "denial": denied("BUSY")}
    assert client.execute("p", {}, files={"a": bytes(64 * CHUNK_BYTES)}).reasons[0].code == "BUSY"


def test_nobody_there_is_unavailable(tmp_path):
    with Client(tmp_path / "nobody.sock") as client, pytest.raises(Unavailable):
        client.run("echo", {}, files={})


def test_closing_the_client_ends_the_run(daemon):
    daemon.answers["slow"] = daemon.slow
    client = Client(daemon.socket)
    caught = []

    def run():
        try:
            client.run("slow", {}, files={"a": b""})
        except Exception as error:  # noqa: BLE001
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while not daemon.received:
        time.sleep(0.01)
    client.close()
    thread.join(20)
    assert [each.code for each in caught] == ["canceled"]
    assert daemon.call_ended.wait(10)


async def test_canceling_the_task_ends_the_run(daemon):
    daemon.answers["slow"] = daemon.slow
    async with AsyncClient(daemon.socket) as client:
        task = asyncio.create_task(client.run("slow", {}, files={"a": b""}))
        while not daemon.received:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(daemon.call_ended.wait, 10)


# --- the daemon's words --------------------------------------------------------------------------------------------


@given(st.text(st.sampled_from("a.b/*?[]-\\\0é"), max_size=12), st.text(st.sampled_from("a.b/*?[!]-é"), max_size=12))
def test_paths_and_patterns_mean_what_they_mean_to_the_daemon(path, pattern):
    assert planfiles.is_path(path) == (daemons.path_problem(path) == "")
    assert planfiles.matches(path, [pattern]) == daemons.matches(path, [pattern])
    assert planfiles.RESERVED == daemons.RESERVED
