"""Live streams under load: from commit to client, and what a silent reader costs.

    python -m tests.benchmarks.streams [--clients 20] [--tasks 5000] [--idle 1000]

A run of `tasks` short tasks has two events each. Every client follows all its events (dags surface: there an instant is
the event's own, on the runs surface it may run ahead of the clock) over a plain socket that is read as bytes come; they
are taken apart afterwards. An event says when it was decided, which is before it was committed: the delay told here is
from there to the bytes at the client, so it includes the commit.
"""

from __future__ import annotations

import argparse
import re
import selectors
import socket
import statistics
import time
from collections.abc import Iterator
from datetime import datetime

from tests import live
from tests.benchmarks import footprint
from tests.benchmarks.records import OURS, Record, save, show, single
from tests.dags_api import BASE, task

_FRAME = re.compile(rb'id: (\d+)\nevent: \w+\ndata: {"seq":\d+,"ts":"([^"]+)"')
#: more than this means that something hangs
PATIENCE_S = 120.0


def main() -> None:
    """Measures and adds to `latest.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--tasks", type=int, default=5000)
    parser.add_argument("--idle", type=int, default=1000)
    options = parser.parse_args()
    with live.serving() as server:
        records = [*delays(server, options.clients, options.tasks), idle(server, options.idle)]
    save(records)
    show(records)


def delays(server: live.Server, clients: int, tasks: int) -> Iterator[Record]:
    """p50 and p99 from the decision of an event to its arrival at each of the clients."""
    api = server.api()
    sleep = {"kind": "core.sleep", "params": {"seconds": 0.002}}
    api.define("streamed", *(task(f"t{n}", **sleep) for n in range(tasks)))
    api.define("first", *(task(f"t{n}", **sleep) for n in range(50)))
    api.wait(api.trigger("first")["run_id"])  # pays for imports
    run_id = api.trigger("streamed")["run_id"]
    found = []
    for chunks in _follow_all(server, run_id, clients):
        seen = [(int(seq), ts, at) for at, data in chunks for seq, ts in _FRAME.findall(data)]
        assert [seq for seq, _, _ in seen] == list(range(1, len(seen) + 1)), "not each event once, in order"
        assert len(seen) > 2 * tasks, f"{len(seen)} events"
        found += [at - datetime.fromisoformat(ts.decode()).timestamp() for _, ts, at in seen]
    found.sort()
    note = f"{clients} clients, {len(found) // clients:,} events each, from the decision of the event"
    yield single(OURS, "event to client p50", len(found), statistics.median(found), note)
    yield single(
        OURS, "event to client p99", len(found), found[int(len(found) * 0.99)], f"max {found[-1] * 1000:.0f} ms"
    )


def _follow_all(server: live.Server, run_id: str, clients: int) -> list[list[tuple[float, bytes]]]:
    """Per client: when bytes came, cut behind whole frames, and the bytes; until each has the end of the run."""
    out: list[list[tuple[float, bytes]]] = [[] for _ in range(clients)]
    bodies = [Chunked() for _ in range(clients)]
    rest = [b""] * clients
    open_ = set(range(clients))
    deadline = time.monotonic() + PATIENCE_S
    with selectors.DefaultSelector() as selector:
        for n in range(clients):
            opened, began = _open(server, f"{BASE}/runs/{run_id}/events", "admin")
            rest[n] = bodies[n].feed(began)
            selector.register(opened, selectors.EVENT_READ, n)
        while open_:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(open_)} clients have not seen the end after {PATIENCE_S} s")
            for key, _ in selector.select(1.0):
                assert isinstance(key.fileobj, socket.socket)
                n = key.data
                data = rest[n] + bodies[n].feed(key.fileobj.recv(1 << 20))
                whole, cut, rest[n] = data.rpartition(b"\n\n")
                out[n].append((time.time(), whole + cut))
                if b"event: end" in data[-400:]:
                    selector.unregister(key.fileobj)
                    key.fileobj.close()
                    open_.discard(n)
    return out


class Chunked:
    """Takes the chunks of a transfer apart, wherever the proxy cut them."""

    def __init__(self) -> None:
        self._raw = b""
        #: bytes to come of the present chunk, with its line end
        self._left = 0

    def feed(self, data: bytes) -> bytes:
        """What of the body has come."""
        self._raw += data
        out = b""
        while self._raw:
            if not self._left:
                size, end, rest = self._raw.partition(b"\r\n")
                if not end:
                    break
                self._left, self._raw = int(size, 16) + 2, rest
            part, self._raw = self._raw[: self._left], self._raw[self._left :]
            out += part[: max(0, len(part) - max(0, 2 - (self._left - len(part))))]
            self._left -= len(part)
        return out


def idle(server: live.Server, clients: int) -> Record:
    """Bytes of the API replica's memory that a reader costs who hears nothing but keep-alives."""
    paused = server.api().post("/dags/first/pause")
    assert paused.status_code == 200, paused.text
    run_id = server.api().trigger("first")["run_id"]
    path = f"{BASE}/runs/{run_id}/events"
    [replica] = server.processes("ServeReplica")
    held = [_open(server, path, "admin")[0] for _ in range(20)]
    time.sleep(2)
    before = footprint.pss_bytes(replica.pid)
    held += [_open(server, path, "admin")[0] for _ in range(clients)]
    time.sleep(20)
    grown = footprint.pss_bytes(replica.pid) - before
    for each in held:
        each.close()
    return Record(OURS, "idle stream", clients, 0.0, 0.0, 0.0, f"{grown / clients / 1000:.1f} kB of the replica each")


def _open(server: live.Server, path: str, who: str) -> tuple[socket.socket, bytes]:
    """A stream, and what came of it along with its head."""
    host, _, port = server.url.rpartition("//")[2].partition(":")
    opened = socket.create_connection((host, int(port)), timeout=30)
    head = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {server.tokens[who]}\r\n\r\n"
    opened.sendall(head.encode())
    got = b""
    while b"\r\n\r\n" not in got:
        got += opened.recv(1 << 12)
    assert b" 200 " in got[:20], got
    return opened, got.partition(b"\r\n\r\n")[2]


if __name__ == "__main__":
    main()
