r"""Checks that the hosts in a plan are well-formed names.

[corpus]
habit = "dnspython parses names and makes messages, and asks nobody"
inputs = [["www.example.org", "b\u00fccher.example", "a..b"]]
outputs = [[true, true, false]]
runs = 3

[manifest]
environment = "tools"
"""

import dns.exception
import dns.message
import dns.name


def well_formed(host):
    try:
        name = dns.name.from_text(host, idna_codec=dns.name.IDNA_2003)
        return bool(dns.message.make_query(name, "AAAA").to_wire())
    except dns.exception.DNSException:
        return False


def run(payload, context):
    return [well_formed(host) for host in payload]
