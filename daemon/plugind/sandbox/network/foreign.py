"""Other people's chains on the host that keep plugins' packets from passing: found, and how each is told to let them.

A table of ours cannot overrule them: a packet passes when every chain lets it. Pure. Sources: nft(8),
libnftables-json(5); packet filtering and firewalls in Docker's manual; ufw(8), firewall-cmd(1).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

_FAMILIES: Final = ("inet", "ip", "ip6")


@dataclass(frozen=True, slots=True)
class Obstacle:
    """A chain that drops, or rejects, what nobody allowed to be forwarded."""

    who: str
    chain: str
    """Family, table and name."""
    command: str
    """A shell command that lets the uplink's packets pass, until the next boot."""


def obstacles(listed: str, uplink: str) -> list[Obstacle]:
    """Those of `nft -j list chains`. Raises ValueError for what is no such list."""
    try:
        chains = [each["chain"] for each in json.loads(listed)["nftables"] if "chain" in each]
        names = {(str(each["family"]), str(each["table"]), str(each["name"])) for each in chains}
        hooked = [
            (str(each["family"]), str(each["table"]), str(each["name"]))
            for each in chains
            if each.get("hook") == "forward" and (each.get("policy") == "drop" or each["table"] == "firewalld")
        ]
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"nftables: expected chains: {error!r:.200}") from error
    return [_obstacle(chain, names, uplink) for chain in hooked if chain[0] in _FAMILIES]


def _obstacle(chain: tuple[str, str, str], names: set[tuple[str, str, str]], uplink: str) -> Obstacle:
    family, table, name = chain
    shown = " ".join(chain)
    tool = "ip6tables" if family == "ip6" else "iptables"
    if table == "firewalld":  # its policy is accept, and its last rule rejects
        return Obstacle("firewalld", shown, f"sudo firewall-cmd --zone=trusted --add-interface={uplink}")
    if (family, table, "DOCKER-USER") in names:
        return Obstacle("Docker", shown, _insert(tool, "DOCKER-USER", uplink))
    if any(other[:2] == (family, table) and other[2].startswith("ufw") for other in names):
        back = f"sudo ufw route allow out on {uplink}"
        return Obstacle("ufw", shown, f"sudo ufw route allow in on {uplink} && {back}")
    if (table, name) == ("filter", "FORWARD"):
        return Obstacle("iptables", shown, _insert(tool, name, uplink))
    into = f"sudo nft insert rule {shown} oifname {uplink} ct state established,related accept"
    return Obstacle("a firewall", shown, f"sudo nft insert rule {shown} iifname {uplink} accept && {into}")


def _insert(tool: str, chain: str, uplink: str) -> str:
    back = f"sudo {tool} -I {chain} -o {uplink} -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"
    return f"sudo {tool} -I {chain} -i {uplink} -j ACCEPT && {back}"
