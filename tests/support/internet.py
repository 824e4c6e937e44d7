"""An internet of our own: a `host` namespace where a keeper starts, and an `outside` one with addresses and servers.

Nothing of it touches the machine's own network. `Template` is a user namespace as a zygote has one, and inside() runs a
function where an instance would be.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from pyroute2 import IPRoute

from plugind.linux import constants as c
from plugind.linux import syscalls
from plugind.sandbox.network import namespaces
from tests.support.servers import HTTP_PORT, PAGE, PORTS

__all__ = ["HOST4", "HOST6", "HTTP_PORT", "OUTSIDE4", "OUTSIDE6", "PAGE", "PORTS", "Internet"]

# Public ones: those for documentation are refused, whatever was approved.
HOST4, HOST6 = "9.9.9.1", "2620:fe::1"
OUTSIDE4 = ("9.9.9.10", "9.9.9.11", "8.8.4.80")
OUTSIDE6 = ("2620:fe::10", "2620:fe::11")
METADATA = "169.254.169.254"
"""Somebody outside who answers there, as clouds do."""


class Internet:
    """Close it, and everything is gone."""

    def __init__(self, *, forwards6: bool = True, also: tuple[str, ...] = ()) -> None:
        """`also`: more addresses outside."""
        self._outside4 = (*OUTSIDE4, METADATA, *also)
        self.host, self.outside = namespaces.fresh(), namespaces.fresh()
        self._servers: list[subprocess.Popen[bytes]] = []
        with namespaces.entered(self.host), IPRoute() as ip:
            ip.link("set", index=1, state="up")
            peer = {"ifname": "lan", "net_ns_fd": self.outside}
            ip.link("add", ifname="wan", kind="veth", peer=peer)
            wan = ip.link_lookup(ifname="wan")[0]
            ip.link("set", index=wan, state="up")
            ip.addr("add", index=wan, address=HOST4, prefixlen=24)
            ip.addr("add", index=wan, address=HOST6, prefixlen=64, flags=2)
            namespaces.set_sysctl("net/ipv4/ip_forward", "0")
            namespaces.set_sysctl("net/ipv6/conf/all/forwarding", "1" if forwards6 else "0")
        with namespaces.entered(self.outside), IPRoute() as ip:
            ip.link("set", index=1, state="up")
            lan = ip.link_lookup(ifname="lan")[0]
            ip.link("set", index=lan, state="up")
            for address in self._outside4:
                ip.addr("add", index=lan, address=address, prefixlen=24)
            for address in OUTSIDE6:
                ip.addr("add", index=lan, address=address, prefixlen=64, flags=2)
        with namespaces.entered(self.host), IPRoute() as ip:
            ip.route("add", dst="default", gateway=OUTSIDE4[0])
            ip.route("add", family=10, dst="default", gateway=OUTSIDE6[0])

    def serve(self) -> None:
        """Echo servers outside and on the host, and a web server outside, in processes of their own."""
        for namespace, addresses in ((self.outside, (*self._outside4, *OUTSIDE6)), (self.host, ("0.0.0.0", "::"))):
            self._servers.append(started("tests.support.servers", namespace, *addresses))
        deadline = time.monotonic() + 10
        for address, port in ((OUTSIDE4[0], PORTS[0]), (OUTSIDE4[0], HTTP_PORT), (HOST4, PORTS[0])):
            with namespaces.entered(self.outside):
                while True:
                    with socket.socket() as sock:
                        if sock.connect_ex((address, port)) == 0:
                            break
                    assert time.monotonic() < deadline
                    time.sleep(0.01)

    def listen(self, address: str, port: int) -> socket.socket:
        """A listening socket outside."""
        with namespaces.entered(self.outside):
            sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        sock.listen()
        sock.settimeout(10)
        return sock

    def close(self) -> None:
        for process in self._servers:
            process.kill()
            process.wait()
        os.close(self.host)
        os.close(self.outside)


class Template:
    """A user namespace with a root of its own, held by a process that waits."""

    def __init__(self, first_uid: int = 1_900_000_000) -> None:
        ours, theirs = socket.socketpair()

        def wait() -> None:
            ours.close()
            syscalls.unshare(c.CLONE_NEWUSER)
            theirs.send(b"x")
            signal.pause()

        self._pid = forked(wait)
        theirs.close()
        with ours:
            assert ours.recv(1) == b"x"
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{self._pid}/{name}").write_text(f"0 {first_uid} 65536")
        self.namespace = os.open(f"/proc/{self._pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)

    def enter_and_allow_no_network(self) -> None:
        """For a child that ends afterwards."""
        syscalls.setns(self.namespace, c.CLONE_NEWUSER)
        Path("/proc/sys/user/max_net_namespaces").write_text("0")

    def close(self) -> None:
        os.close(self.namespace)
        end(self._pid)


def started(module: str, namespace: int, *arguments: str) -> subprocess.Popen[bytes]:
    """A module's main program in a namespace. Not a fork: this process may have gRPC's threads."""
    command = [sys.executable, "-m", module, str(namespace), *arguments]
    return subprocess.Popen(command, pass_fds=[namespace])


def forked(work) -> int:
    """A child that does it and ends."""
    pid = os.fork()
    if pid == 0:
        try:
            syscalls.prctl(c.PR_SET_PDEATHSIG, signal.SIGKILL)
            work()
        except BaseException as error:  # noqa: BLE001 - the child of a test must not go on as the test
            os.write(2, f"child: {type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(0)
    return pid


def end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def instance(template: Template, namespace: int, work) -> int:
    """A process with the rights of the template's root only, in this network namespace, that does `work`."""

    def enter() -> None:
        syscalls.setns(template.namespace, c.CLONE_NEWUSER)
        syscalls.setns(namespace, c.CLONE_NEWNET)
        work()

    return forked(enter)


def inside(template: Template, namespace: int, work, timeout_s: float = 30.0):
    """What `work` returns there, through JSON."""
    reads, writes = os.pipe()
    pid = instance(template, namespace, lambda: os.write(writes, json.dumps(work()).encode()))
    os.close(writes)
    try:
        with os.fdopen(reads, "rb") as pipe:
            assert select.select([pipe], [], [], timeout_s)[0], "it takes too long"
            said = pipe.read()
        assert said, "it failed"
        return json.loads(said)
    finally:
        end(pid)


def speak(address: str, protocol: str, port: int, timeout_s: float = 2.0) -> str:
    """`ok` where an echo comes back, else the name of the error."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM) as sock:
        sock.settimeout(timeout_s)
        try:
            sock.connect((address, port))
            sock.send(b"hello")
            return "ok" if sock.recv(64) == b"hello" else "other"
        except TimeoutError:
            return "timeout"
        except OSError as error:
            return errno.errorcode.get(error.errno or 0, str(error))
