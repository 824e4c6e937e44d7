"""Encrypts an estimate for a bidder and reads it back.

[corpus]
habit = "cryptography: native code, the generator of the kernel, keys made at run time that never leave it"
inputs = [{bid = 1200}]
outputs = [1200]
runs = 3

[manifest]
environment = "tools"
"""

import json
import os

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM


def run(payload, context):
    key, nonce = AESGCM.generate_key(256), os.urandom(12)
    sealed = AESGCM(key).encrypt(nonce, json.dumps(payload).encode(), None)
    signer = Ed25519PrivateKey.generate()
    signer.public_key().verify(signer.sign(sealed), sealed)
    return json.loads(AESGCM(key).decrypt(nonce, sealed, None))["bid"]
