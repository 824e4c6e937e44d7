"""JSON text, as payloads and outputs are. Standard library only."""

from __future__ import annotations

import json
from typing import Any, Final

from plugind_client.errors import Fault, InvalidRequest

# Made once: json.dumps makes an encoder for each call that asks for other separators.
_ENCODED: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def payload_json(payload: object) -> bytes:
    """The payload as JSON text. Integers stay exact; whether NaN is allowed is the daemon's decision.

    Raises:
        InvalidRequest: it holds something that JSON cannot say, refers to itself or is too deep.
    """
    try:
        return _ENCODED(payload).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest("PAYLOAD_NOT_JSON", detail=str(error)) from None


def output(text: bytes) -> Any:
    """The value of an output. NaN passes: the daemon lets it through only for the interface `functions`.

    Raises:
        Fault: it is no JSON.
    """
    try:
        return json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise Fault("BAD_ANSWER", detail=f"the output is no JSON: {error}") from None
