"""Gives a plan a fingerprint.

[corpus]
habit = "hashlib with all that it offers, scrypt, zlib, lzma, base64, uuid and secrets"
inputs = [{title = "Bridge"}]
check = "len(output['print']) == 64 and output['same']"
runs = 3
"""

import base64
import bz2
import hashlib
import json
import lzma
import secrets
import uuid
import zlib


def run(payload, context):
    text = json.dumps(payload, sort_keys=True).encode()
    for name in hashlib.algorithms_guaranteed:
        hashlib.new(name, text, usedforsecurity=False)
    hashlib.scrypt(text, salt=secrets.token_bytes(16), n=2**10, r=8, p=1)
    packed = base64.b85encode(lzma.compress(bz2.compress(zlib.compress(text))))
    uuid.uuid4()
    back = zlib.decompress(bz2.decompress(lzma.decompress(base64.b85decode(packed))))
    return {"print": hashlib.sha256(text).hexdigest(), "same": back == text}
