"""Flags before environment before file before defaults; mistakes are named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from plugind.config import Flags, Loopback, load
from plugind.errors import ConfigError


def test_defaults(tmp_path):
    empty = tmp_path / "plugind.toml"
    empty.write_text("")
    found = load(Flags(config=empty), {})
    assert (found.state, found.socket) == (Path("/var/lib/plugind"), Path("/run/plugind/run/plugind.sock"))
    assert (found.profiles, found.connections_per_uid, found.dev) == (None, 128, False)
    assert load(Flags(config=empty, dev=True), {}).state == Path("/var/lib/plugind-dev")


def test_flags_win_over_environment_over_file(tmp_path):
    file = tmp_path / "plugind.toml"
    file.write_text(
        'state = "/from/file"\nsocket = "/from/file.sock"\nprofiles = "/profiles"\nconnections_per_uid = 7\n'
    )
    environment = {"PLUGIND_CONFIG": str(file), "PLUGIND_STATE": "/from/environment"}
    found = load(Flags(), environment)
    assert (found.state, found.socket) == (Path("/from/environment"), Path("/from/file.sock"))
    assert (found.profiles, found.connections_per_uid) == (Path("/profiles"), 7)
    assert load(Flags(state=Path("/from/flag")), environment).state == Path("/from/flag")


def test_paths_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load(Flags(state=Path("here")), {}).state == tmp_path / "here"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("soket = '/x'", "soket: unknown key; did you mean socket"),
        ("zzz = 1", "zzz: unknown key; expected one of"),
        ("state = 5", "state: expected a text, got 5"),
        ("state = ''", "state: expected a path, got an empty text"),
        ("connections_per_uid = true", "connections_per_uid: expected a whole number, got True"),
        ("connections_per_uid = 0", "connections_per_uid: expected 1 to 4096, got 0"),
        ("nameservers = '192.0.2.53 example'", "nameservers: expected addresses with spaces between, got 'example'"),
        ("network_range = '198.19.0.1/16'", "network_range: expected an IPv4 range such as 198.19.0.0/16"),
        ("network_range = '198.19.0.0/24'", "network_range: expected /20 or wider, got 198.19.0.0/24"),
        *(
            (
                f"metrics = {text!r}",
                f"metrics: expected an absolute path, 127.0.0.1:PORT, [::1]:PORT, or nothing for none, got {text!r}",
            )
            for text in (
                "0.0.0.0:9464",
                "[::]:9464",
                "localhost:9464",
                "192.0.2.1:9464",
                "127.0.0.1",
                "127.0.0.1:0",
                "127.0.0.1:65536",
                "127.0.0.1:x",
                "127.0.0.2:9464",
                "::1:9464",
                "relative.sock",
                ":9464",
                " ",
            )
        ),
        ("metrics = false", "metrics: expected a text, got False"),
        ("state =", "expected TOML"),
        ("[state]", "state: expected a text"),
        (b"\xff", "expected TOML"),
    ],
)
def test_mistakes_in_the_file(tmp_path, text, expected):
    file = tmp_path / "plugind.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        load(Flags(config=file), {})
    assert expected in str(caught.value)


def test_a_file_that_was_named_has_to_be_there(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load(Flags(config=tmp_path / "none.toml"), {})
    with pytest.raises(ConfigError, match="cannot be read"):
        load(Flags(), {"PLUGIND_CONFIG": os.fspath(tmp_path)})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Path("/run/plugind/metrics.sock")),
        ("admin_socket = '/else/admin.sock'", Path("/else/metrics.sock")),
        ("metrics = ''", None),
        ("metrics = '/run/m.sock'", Path("/run/m.sock")),
        ("metrics = '127.0.0.1:9464'", Loopback("127.0.0.1", 9464)),
        ("metrics = '[::1]:9464'", Loopback("::1", 9464)),
    ],
)
def test_where_metrics_are_read(tmp_path, text, expected):
    file = tmp_path / "plugind.toml"
    file.write_text(text)
    assert load(Flags(config=file), {}).metrics == expected


def test_a_development_daemon_has_none_unless_it_is_told(tmp_path):
    file = tmp_path / "plugind.toml"
    file.write_text("")
    assert load(Flags(config=file, dev=True), {}).metrics is None
    file.write_text("metrics = '/run/m.sock'")
    assert load(Flags(config=file, dev=True), {}).metrics == Path("/run/m.sock")
