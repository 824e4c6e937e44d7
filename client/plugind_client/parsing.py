"""The parser on a stranger's text, which says nothing to whoever loads it."""

from __future__ import annotations

import ast
import os
import threading
import warnings
from typing import Any, Final

_one_at_a_time: Final = threading.Lock()
# A child that is forked while another thread parses must find it free, and the filters as they were.
os.register_at_fork(
    before=_one_at_a_time.acquire, after_in_parent=_one_at_a_time.release, after_in_child=_one_at_a_time.release
)


def parse(text: str, where: str = "<source>", mode: str = "exec") -> Any:
    """As ast.parse, but without warnings, such as of a dubious escape: its author is not there to hear them.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError, SystemError: whichever the interpreter has for it;
            SystemError is 3.11.2's for nesting (gh-106905).
    """
    # The filters are the whole process's: of two threads that set them aside at a time, one would leave them so.
    with _one_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(text, where, mode)
