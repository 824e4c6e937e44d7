"""client/examples/planexe, whose files import each other as scripts do, for tests; and a client without a daemon that maps."""

import sys
import types
import warnings
from array import array
from math import nan
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "client/examples/planexe"
DATA = EXAMPLE / "data"

sys.path.append(str(EXAMPLE))
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Luigi tells about an option of its own
    import luigi  # noqa: F401

import napkin  # noqa: E402
import pipeline  # noqa: E402
import prepare  # noqa: E402
import sampling  # noqa: E402
import service  # noqa: E402
import summary  # noqa: E402

from plugind_client import ColumnResult, PluginException, PluginFailed  # noqa: E402
from plugind_client.testing import FakeClient  # noqa: E402

__all__ = ["DATA", "EXAMPLE", "Here", "module_of", "napkin", "pipeline", "prepare", "sampling", "service", "summary"]


def module_of(source):
    """A module that runs in this process."""
    module = types.ModuleType("calculations")
    exec(source, vars(module))
    return module


class Here(FakeClient):
    """Loads generated code into this process, and maps over it there; all else is FakeClient's."""

    def load_source(self, path_or_text, **use):
        return module_of(Path(path_or_text).read_text())

    def map(self, module, payloads, **use):
        self.mapped = [*getattr(self, "mapped", ()), [payload.function for payload in payloads]]
        return [_column_result(getattr(module, payload.function), payload) for payload in payloads]


def _column_result(function, payload):
    columns = {name: list(values) for name, values in payload.values().items()}
    values, errors = [], {}
    for row in range(payload.rows):
        arguments = {**payload.arguments, **{name: column[row] for name, column in columns.items()}}
        try:
            values.append(function(**arguments))
        except Exception as error:  # noqa: BLE001 - as the jail tells whatever is raised
            values.append(None)
            errors[row] = PluginFailed("failed")
            errors[row].exception = PluginException(type(error).__name__, str(error), "")
    if all(type(value) is float or row in errors for row, value in enumerate(values)):
        values = array("d", [nan if value is None else value for value in values])
    return ColumnResult(values, errors)
