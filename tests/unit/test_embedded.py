"""The embedded journal server, on the real binary."""

from __future__ import annotations

import os
import signal
import socket
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from actors import embedded
from actors.embedded import ServerAddress
from orchestrator.errors import JournalUnavailable


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    embedded.stop(tmp_path)


def connect(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, decode_responses=True)


def kill(home: Path) -> None:
    """SIGKILL to the server, and it is gone."""
    pid = embedded.server_pid(home)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    while embedded.is_running(home):
        time.sleep(0.002)


def test_it_answers_on_socket_and_port_and_only_with_the_password(home: Path) -> None:
    address = embedded.ensure_running(home)
    for url in (address.url, address.tcp_url):
        with connect(url) as client:
            assert client.ping()
    with connect(f"redis://127.0.0.1:{address.port}") as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()
    assert address.password not in repr(address)


def test_every_write_is_fsynced_and_nothing_is_evicted(home: Path) -> None:
    with connect(embedded.ensure_running(home).url) as client:
        for name, value in {
            "appendonly": "yes",
            "appendfsync": "always",
            "no-appendfsync-on-rewrite": "no",
            "aof-load-truncated": "yes",
            "save": "",
            "maxmemory-policy": "noeviction",
            "bind": "127.0.0.1",
        }.items():
            assert client.config_get(name) == {name: value}


def test_scripts_have_the_codecs_that_the_journal_uses(home: Path) -> None:
    script = "return cjson.encode(cmsgpack.unpack(cmsgpack.pack({a = {1, 2}})))"
    with connect(embedded.ensure_running(home).url) as client:
        assert client.eval(script, 0) == '{"a":[1,2]}'


def test_secrets_are_readable_by_their_owner_alone(home: Path) -> None:
    address = embedded.ensure_running(home)
    for path in (home / "valkey" / "server.json", home / "valkey" / "valkey.conf", Path(address.socket)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((home / "valkey").stat().st_mode) == 0o700


def test_a_killed_server_comes_back_with_its_address_and_its_data(home: Path) -> None:
    before = embedded.ensure_running(home)
    with connect(before.url) as client:
        for number in range(100):
            client.set(f"k{number}", number)
    kill(home)
    after = embedded.ensure_running(home)
    assert after == before
    with connect(after.tcp_url) as client:
        assert client.dbsize() == 100
        assert client.get("k99") == "99"


def test_a_torn_last_write_is_dropped_and_the_rest_is_there(home: Path) -> None:
    with connect(embedded.ensure_running(home).url) as client:
        client.set("kept", "yes")
    kill(home)
    (log,) = (home / "valkey" / "appendonlydir").glob("*.incr.aof")
    with log.open("ab") as file:
        file.write(b"*3\r\n$3\r\nSET\r\n$4\r\ntorn\r\n$100\r\nhalf")
    with connect(embedded.ensure_running(home).url) as client:
        assert client.keys() == ["kept"]


def test_callers_at_the_same_time_get_one_server(home: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        addresses = list(pool.map(lambda _: embedded.ensure_running(home), range(8)))
    assert len(set(addresses)) == 1
    with connect(addresses[0].url) as client:
        assert client.info("server")["process_id"] == embedded.server_pid(home)


def test_it_is_nobodys_child(home: Path) -> None:
    embedded.ensure_running(home)
    parent = int(Path(f"/proc/{embedded.server_pid(home)}/stat").read_text().rpartition(")")[2].split()[1])
    assert parent != os.getpid()


def test_stop_ends_it_keeps_the_data_and_may_be_repeated(home: Path) -> None:
    before = embedded.ensure_running(home)
    with connect(before.url) as client:
        client.set("a", "b")
    assert embedded.stop(home)
    assert not embedded.is_running(home)
    assert embedded.server_pid(home) is None
    assert not embedded.stop(home)
    with connect(embedded.ensure_running(home).url) as client:
        assert client.get("a") == "b"


def test_a_port_taken_in_the_meantime_is_replaced_and_the_socket_stays(home: Path) -> None:
    before = embedded.ensure_running(home)
    embedded.stop(home)
    blocker = _listen_on(before.port)
    try:
        after = embedded.ensure_running(home)
    finally:
        blocker.close()
    assert after.port != before.port
    assert (after.socket, after.password) == (before.socket, before.password)


def test_a_home_too_deep_for_a_socket_path_gets_one_elsewhere(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    try:
        address = embedded.ensure_running(deep)
        assert len(address.socket) < 100
        assert stat.S_IMODE(Path(address.socket).parent.stat().st_mode) == 0o700
        kill(deep)
        assert embedded.ensure_running(deep) == address
    finally:
        embedded.stop(deep)
    Path(address.socket).parent.rmdir()


def test_a_server_that_cannot_start_says_why(home: Path) -> None:
    embedded.ensure_running(home)
    embedded.stop(home)
    (home / "valkey" / "appendonlydir" / "appendonly.aof.manifest").write_text("nonsense\n")
    with pytest.raises(JournalUnavailable, match="manifest"):
        embedded.ensure_running(home)


def test_nothing_runs_where_nothing_was_started(tmp_path: Path) -> None:
    assert not embedded.is_running(tmp_path)
    assert not embedded.stop(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_both_urls_carry_the_password() -> None:
    address = ServerAddress(port=1, socket="/s", password="p")
    assert (address.url, address.tcp_url) == ("unix://:p@/s", "redis://:p@127.0.0.1:1/0")


def _listen_on(port: int) -> socket.socket:
    blocker = socket.socket()
    blocker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    blocker.bind(("127.0.0.1", port))
    blocker.listen()
    return blocker
