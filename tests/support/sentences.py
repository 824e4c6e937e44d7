"""What no `str(error)` of the client may hold: PlanExe takes a text with one of these for another service's trouble."""

FORBIDDEN = (
    "timeout",
    "timed out",
    "connect",
    "capacity",
    "try again",
    "rate limit",
    "overloaded",
    "server error",
    "internal error",
    "temporarily unavailable",
    "network",
    "auth",
    "none",
)
