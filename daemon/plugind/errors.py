"""Every error plugind raises on purpose; api.errors maps each to a gRPC status, __main__ to an exit code.

Two kinds of failure are never mixed: these are faults and refusals of plugind itself. What a plugin did is an
Outcome (plugind.model), which is returned and never raised.
"""


class PlugindError(Exception):
    """Base of all. The message says what was expected, what came, and what to do."""


class ConfigError(PlugindError):
    """A flag, configuration file or profile is wrong; nothing was started."""


class AlreadyRunningError(PlugindError):
    """Another daemon holds the state or the socket."""


class InvalidRequestError(PlugindError):
    """A request that cannot be understood: a missing field, a bad name, an impossible number."""


class InvalidBundleError(PlugindError):
    """A folder or tar that is no valid plugin bundle. `problems` lists every finding, one sentence each."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class InvalidJsonError(PlugindError):
    """Text that is not strict JSON within the limits."""


class InvalidSchemaError(PlugindError):
    """A document that is no JSON Schema 2020-12, or refers outside itself."""


class InvalidEnvironmentError(PlugindError):
    """A lock, a tree of packages or a record of one that is not as it should be. `lines` are what pip said of it."""

    def __init__(self, message: str, *lines: str) -> None:
        super().__init__(message)
        self.lines = lines


class NotFoundError(PlugindError):
    """No such plugin, version or run."""


class ConflictError(PlugindError):
    """The request contradicts what is stored: other bytes under the same name and version, a wrong state."""


class NotAllowedError(PlugindError):
    """The caller's role does not allow this call."""


class IsolationUnavailableError(PlugindError):
    """A step of the jail failed, so nothing ran. `step` names it."""

    def __init__(self, step: str, detail: str) -> None:
        super().__init__(f"{step}: {detail}")
        self.step = step


class PlanError(PlugindError):
    """Files of a plan cannot be had, or put there, and nothing was changed. `code`: one of planfiles.PLAN_CODES."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class LauncherGoneError(PlugindError):
    """The launcher ended or does not answer."""


class AuditUnavailableError(PlugindError):
    """The ledger cannot be written, so nothing may run."""


class StateError(PlugindError):
    """Stored state is damaged or belongs to another kind of daemon."""
