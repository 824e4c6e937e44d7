r"""Parses what it is given, whatever it is.

[corpus]
habit = "imports a module only when it is needed, some that are not there, and one by its name"
inputs = [{kind = "toml", text = "a = 1"}, {kind = "json", text = "{\"a\": 1}"}, {kind = "yaml", text = "a: 1"}]
outputs = [{a = 1}, {a = 1}, {a = "1"}]
runs = 6
"""

import importlib


def run(payload, context):
    if payload["kind"] == "yaml":
        try:
            import yaml

            return yaml.safe_load(payload["text"])
        except ImportError:
            return dict([payload["text"].split(": ")])
    name = {"toml": "tomllib"}.get(payload["kind"], payload["kind"])
    return importlib.import_module(name).loads(payload["text"])
