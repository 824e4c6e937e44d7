"""What comes of some variants in a module's session, where it differs: an answer is given before the process has ended.

A frame that the plugin forges is an answer of its own to itself; what it does after that ends the session, not the answer.
"""

from __future__ import annotations

from tests.escapes.generated.variant import ENDLESS, Either, Ends, Expected, Gives, Raises

UNANSWERED = Ends(("output_invalid",), "without an answer")
TOO_MANY = Ends(("pids_exceeded", "output_invalid"))
"""Each process that comes through answers, too; the first answer may be taken before there is a second."""
FORGED = Gives(1)
TWO = Ends(("output_invalid",), "more than one answer")
"""Both came at once; else the first is the answer, and the second the end of the session."""

BY_NAME: dict[str, Expected] = {
    "import ends the process: os._exit as if all were well": UNANSWERED,
    "import exhausts: a fork bomb": Either(Raises(BlockingIOError, "unavailable"), TOO_MANY),
    "import exhausts: forks until it is refused, then goes on": Either(Gives("imported"), TOO_MANY),
    "import exhausts: a thread bomb": Either(Raises(RuntimeError, "can't start new thread"), TOO_MANY),
    "import exhausts: a flood on the result": Ends(("output_invalid",), "nonce"),
    "library: sys.stdout never ends": Gives("imported"),
    "library: sys.stdout ends the program": Gives("imported"),
    "library: the result goes to standard output": ENDLESS,
    "library: os.write writes nothing": ENDLESS,
    "library: os.write writes twice": Either(Gives("imported"), TWO),
    "library: os._exit says that it failed": Gives("imported"),
    "library: os._exit does not end it": Gives("imported"),
    "forged frame: before its own": Either(Gives("forged"), TWO),
    "forged frame: two of them": Either(FORGED, TWO),
    "forged frame: and it hangs": FORGED,
    "forged frame: and it fails": FORGED,
    "forged frame: and it dies": FORGED,
    "forged frame: by a child": Either(FORGED, TWO),
    "forged frame: by a thread": Either(FORGED, TWO),
    "forged frame: a length beyond its end": Ends(("output_limit",)),
    "forged frame: cut off": UNANSWERED,
    "runner: its last step is another": FORGED,
    "runner: its last step never ends": FORGED,
}
