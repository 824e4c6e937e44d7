"""Prepares a request that somebody else will send.

[corpus]
habit = "httpx is imported and makes a client with its pool and certificates, but has its answers from a transport of its own"
inputs = [{query = "steel"}]
outputs = [{status = 200, cost = 7}]
runs = 3

[manifest]
environment = "tools"
"""

import httpx


def answer(request):
    return httpx.Response(200, json={"asked": request.url.params["q"], "cost": 7})


def run(payload, context):
    with httpx.Client(transport=httpx.MockTransport(answer)) as client:
        got = client.get("https://rates.example.org/", params={"q": payload["query"]})
    return {"status": got.status_code, "cost": got.json()["cost"]}
