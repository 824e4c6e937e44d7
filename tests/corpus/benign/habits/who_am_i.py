"""Signs a note with the name of its user.

[corpus]
habit = "getpass, pwd, the host's name and the locale: libc asks nscd by a Unix socket and goes on without"
inputs = ["done"]
check = "output.startswith('done, ')"
runs = 5
"""

import getpass
import grp
import locale
import platform
import pwd


def run(payload, context):
    locale.setlocale(locale.LC_ALL, "")
    for lookup in (lambda: pwd.getpwnam("nobody"), lambda: grp.getgrall(), lambda: pwd.getpwuid(12345)):
        try:
            lookup()
        except KeyError:
            continue
    try:
        name = getpass.getuser()
    except (OSError, KeyError):
        name = "somebody"
    return f"{payload}, {name} on {platform.system()}"
