"""Gives each task a random name.

[corpus]
habit = "a different result in each run: random, secrets, uuid and a shuffled order"
inputs = [["roof", "wall"]]
check = "sorted(output['order']) == ['roof', 'wall'] and len(output['names']) == 2"
runs = 6
"""

import random
import secrets
import uuid


def run(payload, context):
    random.seed()
    order = random.sample(payload, k=len(payload))
    return {"order": order, "names": [f"{secrets.token_hex(3)}-{uuid.uuid4().hex[:6]}" for _ in order]}
