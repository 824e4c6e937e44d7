"""Counts the letters of a text, and logs it.

[corpus]
habit = "a handler for syslog that finds none, as many services set one up, and logging to standard error"
inputs = ["roof"]
outputs = [4]
runs = 3
"""

import logging
import logging.handlers

log = logging.getLogger("letters")


def run(payload, context):
    logging.basicConfig(level=logging.DEBUG)
    try:
        log.addHandler(logging.handlers.SysLogHandler("/dev/log"))
    except OSError as error:
        log.warning("no syslog: %s", error)
    log.info("counting %d letters", len(payload))
    return len(payload)
