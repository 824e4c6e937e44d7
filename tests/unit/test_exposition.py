"""GET /metrics: what is answered to whom, and that nobody can hold or break it."""

import asyncio
import contextlib
import http.client
import io
import shutil
import socket
import subprocess
import threading
from http import HTTPStatus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from plugind.api.exposition import HEAD_BYTES, MOST_CONNECTIONS, Exposition, answer, judged
from plugind.metrics.counts import Metrics

GOOD = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
TEXT = b"# HELP one One\n# TYPE one gauge\none 1.0\n"


class Served:
    """An exposition in a loop and a thread of its own, so that real, blocking clients can ask it."""

    def __init__(self, listener, text=lambda: TEXT, **times):
        self._listener, self._text, self._times = listener, text, times

    def __enter__(self):
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        self.exposition = Exposition(self._listener, self._text, **self._times)
        self.wait(self.exposition.open())
        return self

    def __exit__(self, *_):
        self.wait(self.exposition.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()
        self._listener.close()

    def wait(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "m")


def listening(path):
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    sock.listen()
    return sock


@pytest.fixture
def served(path):
    with Served(listening(path)) as served:
        yield served


def connected(path):
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(10)
    sock.connect(path)
    return sock


def all_of(sock):
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while got := sock.recv(65536):
            found += got
    return found


def asked(path, request):
    with connected(path) as sock:
        with contextlib.suppress(BrokenPipeError):
            sock.sendall(request)
        return all_of(sock)


# --- the parser ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "head,status",
    [
        (GOOD, 200),
        (b"GET /metrics HTTP/1.0\r\n\r\n", 200),
        (b"GET /metrics?name=x HTTP/1.1\r\nhost: a\r\nAccept: */*\r\n\r\n", 200),
        (b"GET /metrics HTTP/1.1\r\nHost:\r\n\r\n", 200),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        (b"GET /metrics/ HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        (b"GET http://a/metrics HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        (b"POST /other HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        (b"HEAD /metrics HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        (b"get /metrics HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        (b"GET /metrics HTTP/1.1\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /metrics HTTP/2.0\r\nHost: a\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
        (b"GET  /metrics HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /metrics\r\n\r\n", 400),
        (b"\r\nGET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nHost: \0\r\n\r\n", 400),
        (b"GET /m\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
    ],
)
def test_what_a_request_gets(head, status):
    assert judged(head) == status


@given(st.binary(max_size=300))
@example(b"")
def test_any_bytes_get_an_answer(head):
    assert judged(head + b"\r\n\r\n") in {200, 400, 404, 405}


@given(st.data())
def test_a_good_request_with_bytes_changed_is_never_more_than_a_good_one(data):
    head = bytearray(GOOD[:-4])
    for _ in range(data.draw(st.integers(1, 4))):
        head[data.draw(st.integers(0, len(head) - 1))] = data.draw(st.integers(0, 255))
    status = judged(bytes(head) + b"\r\n\r\n")
    assert status in {200, 400, 404, 405}
    if status == 200:
        assert head.startswith((b"GET /metrics HTTP/1.", b"GET /metrics?"))


@given(st.binary(max_size=200))
def test_pythons_own_client_reads_every_answer(text):
    class Sock:
        def makefile(self, _):
            return io.BytesIO(answer(HTTPStatus.OK, text))

    response = http.client.HTTPResponse(Sock())
    response.begin()
    assert (response.status, response.read(), response.getheader("Connection")) == (200, text, "close")


# --- over sockets ----------------------------------------------------------------------------------------------------


def test_an_answer(served, path):
    head, _, body = asked(path, GOOD).partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 200 OK",
        b"Content-Type: text/plain; version=0.0.4; charset=utf-8",
        b"Content-Length: %d" % len(TEXT),
        b"Connection: close",
    ]
    assert body == TEXT


def test_a_request_may_come_byte_by_byte(served, path):
    with connected(path) as sock:
        for byte in GOOD:
            sock.sendall(bytes([byte]))
        assert all_of(sock).endswith(TEXT)


def test_a_wrong_method_is_told_the_right_one(served, path):
    got = asked(path, b"DELETE /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 405 Method Not Allowed\r\n")
    assert b"\r\nAllow: GET\r\n" in got
    assert got.endswith(b"\r\n\r\n")


def test_a_head_that_is_too_long_is_refused(served, path):
    long = b"GET /metrics HTTP/1.1\r\nHost: a\r\nX: " + b"x" * HEAD_BYTES
    assert asked(path, long + b"\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert asked(path, long + b"x" * 1_000_000).startswith((b"HTTP/1.1 400 ", b""))
    assert asked(path, GOOD).endswith(TEXT)


def test_one_that_ends_early_gets_nothing_and_harms_nobody(served, path):
    with connected(path) as sock:
        sock.sendall(GOOD[:-2])
        sock.shutdown(socket.SHUT_WR)
        assert all_of(sock) == b""
    assert asked(path, GOOD).endswith(TEXT)


def test_one_that_says_nothing_is_hung_up_on(path):
    with Served(listening(path), deadline_s=0.1), connected(path) as sock:
        sock.sendall(b"GET")
        assert all_of(sock) == b""


def test_one_that_does_not_read_is_hung_up_on(path):
    text = b"x" * 8_000_000
    with Served(listening(path), lambda: text, deadline_s=0.1) as served, connected(path) as sock:
        sock.sendall(GOOD)
        deadline = threading.Event()
        for _ in range(100):
            deadline.wait(0.05)
            if not served.exposition._connections:
                break
        assert not served.exposition._connections
        assert len(all_of(sock)) < len(text)


def test_more_connections_than_may_are_told_so(served, path):
    with contextlib.ExitStack() as stack:
        for _ in range(MOST_CONNECTIONS):
            stack.enter_context(connected(path)).sendall(b"G")
        assert asked(path, GOOD).startswith(b"HTTP/1.1 503 ")
    for _ in range(100):
        if asked(path, GOOD).endswith(TEXT):
            return
    raise AssertionError("those that went away still count")


def test_a_fault_of_ours_is_told_in_the_log_and_not_to_the_caller(path, capfd):
    def broken():
        raise ValueError("inside")

    with Served(listening(path), broken):
        assert asked(path, GOOD) == answer(HTTPStatus.INTERNAL_SERVER_ERROR)
        assert asked(path, GOOD).startswith(b"HTTP/1.1 500 ")
    assert "ValueError: inside" in capfd.readouterr().err


def test_the_text_is_made_at_most_so_often(path):
    made = []
    with Served(listening(path), lambda: made.append(1) or TEXT, kept_s=60.0):
        assert all(asked(path, GOOD).endswith(TEXT) for _ in range(20))
    assert len(made) == 1


def test_closing_ends_who_is_there(path):
    with Served(listening(path)) as served:
        sock = connected(path)
        sock.sendall(b"G")
        for _ in range(100):
            if served.exposition._connections:
                break
            threading.Event().wait(0.01)
    with sock:
        assert all_of(sock) == b""


@pytest.mark.skipif(shutil.which("curl") is None, reason="NOT TESTED: there is no curl")
def test_curl_and_prometheus_own_parser_read_it(path):
    metrics = Metrics()
    metrics.incident("low")
    with Served(listening(path), metrics.text):
        done = subprocess.run(
            ["curl", "-sS", "--fail", "--unix-socket", path, "http://localhost/metrics"],
            capture_output=True,
            check=True,
            timeout=20,
        )
    families = {family.name: family for family in text_string_to_metric_families(done.stdout.decode())}
    assert {sample.labels["severity"]: sample.value for sample in families["plugind_incidents"].samples}["low"] == 1


def test_over_loopback():
    sock = socket.create_server(("127.0.0.1", 0))
    host, port = sock.getsockname()
    with Served(sock):
        client = http.client.HTTPConnection(host, port, timeout=10)
        client.request("GET", "/metrics")
        assert client.getresponse().read() == TEXT
        client.close()
