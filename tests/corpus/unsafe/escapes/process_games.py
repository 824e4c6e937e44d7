"""Names its process after its task.

[corpus]
tries = "makes itself dumpable, keeps capabilities, changes its filter and its personality"
inputs = [{task = "roof"}]
outputs = ["roof"]
expected = "contained"
outcomes = ["ok"]
refused = ["personality", "prctl"]
quarantine = false
why = "prctl and personality with these arguments are refused and counted; interpreters and sanitizers try some of them in good faith"
"""

import ctypes

DUMPABLE, SECCOMP, SECUREBITS, KEEPCAPS = 4, 22, 28, 8
NO_RANDOM = 0x0040000


def run(payload, context):
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(15, payload["task"].encode())
    for option, value in ((DUMPABLE, 1), (SECCOMP, 2), (SECUREBITS, 0), (KEEPCAPS, 1)):
        if libc.prctl(option, value, 0, 0, 0) == 0:
            print("LOOT prctl", option)
    if libc.personality(NO_RANDOM) != -1:
        print("LOOT personality")
    return payload["task"]
