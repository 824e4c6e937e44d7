"""What an approver names in a request: stored as a manifest writes it, or refused."""

from __future__ import annotations

import pytest

from plugind.api.messages import permissions_of
from plugind.errors import InvalidRequestError
from plugind.model import Permission
from plugind_proto.v1.registry_pb2 import Permission as Message


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ('{"path": "*.json"}', '{"path": "*.json"}'),
        ('{"b":1,"a":"\\u00e9"}', '{"a": "é", "b": 1}'),
    ],
)
def test_an_entry_is_stored_as_a_manifest_writes_it(text, entry):
    assert permissions_of([Message(kind="file_read", entry_json=text)]) == (Permission("file_read", entry),)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expecting value"),
        ("[]", "expected an object"),
        ('{"path": "\\ud800"}', "lone surrogate"),
        ('{"\\udfff": 1}', "lone surrogate"),
        ('{"path": NaN}', "NaN is not JSON"),
        ('{"path": 1e999}', "64-bit float"),
        ('{"path": "a", "path": "b"}', "duplicate key"),
        ('{"path": ' + "[" * 1000 + "]" * 1000 + "}", "levels of nesting"),
        ('"' + "x" * (64 * 1024) + '"', "at most 65536 bytes"),
    ],
)
def test_an_entry_that_could_not_be_stored_or_told_again_is_refused(text, words):
    with pytest.raises(InvalidRequestError, match=words):
        permissions_of([Message(kind="file_read", entry_json=text)])


def test_a_kind_that_nobody_knows_is_refused():
    with pytest.raises(InvalidRequestError, match="expected one of"):
        permissions_of([Message(kind="root", entry_json="{}")])
