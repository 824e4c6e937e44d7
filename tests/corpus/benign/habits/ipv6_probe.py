"""Builds a list of addresses of suppliers.

[corpus]
habit = "asks once, when it is imported, whether this machine has IPv6, as urllib3 does, and opens no connection"
inputs = [["a.example", "b.example"]]
outputs = [["https://a.example/", "https://b.example/"]]
runs = 5
"""

import socket


def has_ipv6(host="::1"):
    if not socket.has_ipv6:
        return False
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind((host, 0))
            return True
    except OSError:
        return False


HAS_IPV6 = has_ipv6()


def run(payload, context):
    return [f"https://{host}/" for host in payload]
