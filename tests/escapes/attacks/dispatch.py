"""The plugin's entry: run({"attack": "MODULE.FUNCTION", "arguments": {…}}) makes one attack and says what came of it."""

import importlib


def run(payload, context):
    module, _, function = payload["attack"].partition(".")
    return getattr(importlib.import_module(module), function)(**payload.get("arguments", {}))
