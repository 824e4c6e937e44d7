"""Says how many containers a deployment needs.

[corpus]
tries = "speaks to the container daemon and to the desktop by Unix sockets, also abstract ones"
inputs = [{load = 950, each = 200}]
outputs = [5]
expected = "contained"
outcomes = ["ok"]
refused = ["socket"]
quarantine = false
why = "libc itself asks for Unix sockets (nscd, syslog) and goes on without: one that is refused is counted, and no sign of ill will"
"""

import socket

SOCKETS = [
    "/var/run/docker.sock",
    "/run/containerd/containerd.sock",
    "\0/tmp/.X11-unix/X0",
    "/run/dbus/system_bus_socket",
]


def run(payload, context):
    for path in SOCKETS:
        try:
            with socket.socket(socket.AF_UNIX) as link:
                link.connect(path)
                print("LOOT", path)
        except OSError:
            continue
    return -(-payload["load"] // payload["each"])
