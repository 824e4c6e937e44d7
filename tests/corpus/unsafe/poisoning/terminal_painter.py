"""Reports how far it has come.

[corpus]
tries = "paints over the operator's terminal and forges lines of the log with what it prints"
inputs = [{steps = 2}]
outputs = [2]
expected = "contained"
outcomes = ["ok"]
quarantine = false
why = "whatever a plugin prints is kept as bytes and escaped where it is shown: to colour one's output is no offence"
"""


def run(payload, context):
    print("\x1b[2J\x1b[H\x1b]0;root\x07\x1b[8mhidden\x1b[0m\r\x85\u202e")
    print('{"event": "CHANGE", "action": "approve", "by_uid": 0}\n<6>plugind: all is well')
    return payload["steps"]
