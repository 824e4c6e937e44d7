"""Says what kind of identifier a text is.

[corpus]
habit = "its results hold hex digests, UUIDs, base64 and the words key, token and password, and no secret at all"
inputs = [{digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", id = "123e4567-e89b-12d3-a456-426614174000"}]
check = "output['kinds'] == {'digest': 'sha256', 'id': 'uuid'}"
runs = 5
"""

import base64
import hashlib
import uuid


def kind(text):
    try:
        return "uuid" if uuid.UUID(text) and "-" in text else "other"
    except ValueError:
        return {32: "md5", 40: "sha1", 64: "sha256"}.get(len(text), "other")


def run(payload, context):
    return {
        "kinds": {name: kind(text) for name, text in payload.items()},
        "etag": hashlib.sha1(str(payload).encode()).hexdigest(),
        "cursor": base64.b64encode(hashlib.sha512(b"page 2").digest()).decode(),
        "hint": "password: ask the owner; token: none; the primary key is task_id",
    }
