"""In the container: runs commands for the tests, as any user. One JSON object a connection, each way."""

import grp
import json
import os
import pwd
import socket
import socketserver
import subprocess
import sys


class Command(socketserver.StreamRequestHandler):
    def handle(self):
        order = json.loads(self.rfile.readline())
        answer = run(order["argv"], order["user"], order["text"], order["timeout_s"])
        self.wfile.write(json.dumps(answer).encode())


def run(argv, user, text, timeout_s):
    entry = pwd.getpwnam(user)
    groups = [group.gr_gid for group in grp.getgrall() if user in group.gr_mem]
    try:
        done = subprocess.run(
            argv,
            input=text,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            cwd="/",
            env={"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": entry.pw_dir, "LC_ALL": "C.UTF-8"},
            user=entry.pw_uid,
            group=entry.pw_gid,
            extra_groups=[entry.pw_gid, *groups],
        )
    except subprocess.TimeoutExpired as late:
        return {"code": -1, "out": str(late.stdout), "err": f"not done after {timeout_s} s: {late.stderr}"}
    except OSError as error:
        return {"code": -1, "out": "", "err": str(error)}
    return {"code": done.returncode, "out": done.stdout, "err": done.stderr}


class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 64


def main():
    with Server(sys.argv[1], Command) as server:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
        server.serve_forever()


if __name__ == "__main__":
    main()
