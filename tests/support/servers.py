"""Servers of an internet of our own: `python -m tests.support.servers NAMESPACE ADDRESS...`, a descriptor and where."""

from __future__ import annotations

import contextlib
import http.server
import itertools
import select
import socket
import sys
import threading

from plugind.sandbox.network import namespaces

PORTS = (8001, 8002)
"""Of the echo servers, of TCP and UDP, on every address outside and on the host."""
HTTP_PORT = 8080
PAGE = b"a page of the internet\n"


def serve(addresses: list[str]) -> None:
    """Without end."""
    poll = select.epoll()
    socks: dict[int, socket.socket] = {}
    listening = set()
    for port, kind, address in itertools.product(PORTS, (socket.SOCK_STREAM, socket.SOCK_DGRAM), addresses):
        # Each address has a socket of its own: what comes to one is answered from the same.
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.socket(family, kind)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address, port))
        if kind == socket.SOCK_STREAM:
            sock.listen(128)
            listening.add(sock.fileno())
        socks[sock.fileno()] = sock
        poll.register(sock, select.EPOLLIN)
    threading.Thread(target=_serve_pages, daemon=True).start()
    while True:
        for descriptor, _ in poll.poll():
            sock = socks[descriptor]
            if descriptor in listening:
                connection, _ = sock.accept()
                socks[connection.fileno()] = connection
                poll.register(connection, select.EPOLLIN)
            elif sock.type == socket.SOCK_DGRAM:
                data, peer = sock.recvfrom(65536)
                with contextlib.suppress(OSError):
                    sock.sendto(data, peer)
            else:
                try:
                    data = sock.recv(65536)
                    sock.sendall(data)
                except OSError:
                    data = b""
                if not data:
                    poll.unregister(descriptor)
                    socks.pop(descriptor).close()


class _Pages(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(PAGE)))
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, *_: object) -> None:
        pass


def _serve_pages() -> None:
    http.server.ThreadingHTTPServer(("0.0.0.0", HTTP_PORT), _Pages).serve_forever()


if __name__ == "__main__":
    namespaces.enter(int(sys.argv[1]))
    serve(sys.argv[2:])
