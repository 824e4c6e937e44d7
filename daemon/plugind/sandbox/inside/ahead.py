"""An instance that imports its plugin ahead, says so, waits for the one run that it is for, and serves it.

The run comes as one message with four descriptors (input, result, stdout, stderr) over a socket that takes nothing
from here: nonce and result pipe arrive together with the input, so nothing written before could be a result.
"""

from __future__ import annotations

import array
import os
import socket
import sys
from typing import NoReturn

from plugind.linux import syscalls
from plugind.sandbox.inside import runner
from plugind.sandbox.inside.functions import Plugin, describe

IMPORTED, DONE = b"i", b"d"
"""Words of an instance to the launcher. Plugin code can say them too, and gains nothing: it is frozen, or killed."""
IMPORT_FAILED = 1
_RUN = ("input", "result", "stdout", "stderr")


def serve(call_descriptor: int, orders: int, word: int) -> NoReturn:
    """Never returns: ends the process, with 0 after a frame."""
    syscalls.set_name("plugind-parked")
    _, call, _ = runner.read_input(call_descriptor)
    runner.fresh_streams()
    try:
        plugin = Plugin(call)
    except BaseException as error:
        sys.stderr.write(describe(error)["traceback"])
        runner.flush()
        os._exit(IMPORT_FAILED)
    runner.flush()
    os.write(word, IMPORTED)
    nonce, call, content = _take_run(orders)
    syscalls.set_name("plugind-plugin")
    plugin.begin(call)
    runner.answer_once(lambda: plugin, call, content, nonce, orders)
    os.write(word, DONE)  # the launcher ends it now, and need not wait until the kernel has taken it apart
    os._exit(0)


def _take_run(orders: int) -> tuple[bytes, dict[str, str], bytes]:
    """Nonce, call and content; result, stdout and stderr take the places of the socket and of what was there."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=orders)
    _, control, _, _ = sock.recvmsg(16, socket.CMSG_SPACE(len(_RUN) * 4), socket.MSG_CMSG_CLOEXEC)
    sock.detach()
    descriptors = array.array("i")
    for _level, _kind, content in control:
        descriptors.frombytes(content)
    if len(descriptors) != len(_RUN):
        os._exit(0)  # the launcher is gone
    given, result, stdout, stderr = descriptors
    for descriptor, place, inheritable in ((result, orders, False), (stdout, 1, True), (stderr, 2, True)):
        os.dup2(descriptor, place, inheritable=inheritable)
        os.close(descriptor)
    return runner.read_input(given)
