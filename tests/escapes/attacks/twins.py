"""Instances come from one zygote: whatever it had drawn, all of them would draw."""

import _ssl  # ssl.RAND_bytes, without the tenth of a second that importing all of ssl takes
import hashlib
import os
import random
import tempfile
import uuid


def draw():
    """Everything that should differ from instance to instance."""
    return [
        random.random(),
        random.SystemRandom().random(),
        os.urandom(16).hex(),
        _ssl.RAND_bytes(16).hex(),
        str(uuid.uuid4()),
        tempfile.mktemp(),
        next(tempfile._get_candidate_names()),
        hashlib.sha256(os.getrandom(16)).hexdigest(),
    ]
