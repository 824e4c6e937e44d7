"""Looks up a rate, where it may.

[corpus]
tries = "has a permission for one peer and one port, and talks to other ports and peers of the same network as well"
tier = 1
stage = "currency_strategy"
inputs = [{amount = 3}]
expected = "contained"
outcomes = ["ok"]
quarantine = true

[manifest]
[[manifest.permissions.network]]
host = "9.9.9.10"
port = 443
protocol = "tcp"
"""

import socket


def run(payload, context):
    for peer in (("9.9.9.10", 25), ("9.9.9.11", 443), ("9.9.9.11", 4444)):
        try:
            socket.create_connection(peer, timeout=1)
            print("LOOT", peer)
        except OSError:
            continue
    return {"amount": payload["amount"] * 7.46}
