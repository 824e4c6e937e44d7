"""Validates a document against a schema, natively.

[corpus]
habit = "jsonschema-rs, native code that makes threads of its own, and packaging for versions"
inputs = [{document = {days = 3}, versions = ["1.10", "1.9"]}]
outputs = [{valid = true, newest = "1.10"}]
runs = 3

[manifest]
environment = "tools"
"""

import jsonschema_rs
from packaging.version import Version


def run(payload, context):
    schema = {"type": "object", "properties": {"days": {"type": "integer"}}}
    return {
        "valid": jsonschema_rs.is_valid(schema, payload["document"]),
        "newest": str(max(map(Version, payload["versions"]))),
    }
