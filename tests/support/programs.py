"""Programs for tests of runtime "exec": compiled here and now, as an author would."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path


def compiled(source: str | Path, *options: str) -> bytes:
    """The program that gcc makes of C source; fails the test where it makes none."""
    text = source.read_text() if isinstance(source, Path) else source
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "program")
        done = subprocess.run(
            ["gcc", "-x", "c", "-O1", "-Wall", "-Werror", *options, "-o", target, "-"],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return target.read_bytes()


ECHO = """
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int main(int count, char **arguments) {
    char text[65536], place[256];
    size_t length = fread(text, 1, sizeof text - 1, stdin);
    text[length] = 0;
    fprintf(stderr, "read %zu bytes\\n", length);
    printf("{\\"input\\": %s, \\"stage\\": \\"%s\\", \\"plan_id\\": \\"%s\\", \\"place\\": \\"%s\\", \\"arguments\\": %d, "
           "\\"name\\": \\"%s\\", \\"home\\": \\"%s\\"}\\n", text, getenv("PLUGIND_STAGE"), getenv("PLUGIND_PLAN_ID"),
           getcwd(place, sizeof place), count, arguments[0], getenv("HOME"));
    return 0;
}
"""
"""Its input, and what it knows of its run; how much it read goes to standard error."""
