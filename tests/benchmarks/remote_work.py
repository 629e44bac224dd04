"""Work outside the cluster: how soon a polling worker has a job, how many jobs a second, what 10,000 workers cost.

    python -m tests.benchmarks.remote_work [--jobs 3000] [--workers 10000]

The blueprint dispatches one task and finishes. Workers are plain sockets in this process, so client and server share
the machine's cores; a job is done when its result was accepted, which is after it is durable.
"""

from __future__ import annotations

import argparse
import json
import resource
import selectors
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from tests import live
from tests.benchmarks import footprint
from tests.benchmarks.records import OURS, Record, record, save, show, single

BLUEPRINT = """
apiVersion: orchestrator/v1
kind: Blueprint
name: bench
api_endpoint: /bench
api_version: v1
states:
  start:
    start: true
    dispatch_task: {type: bench, params: {n: "${initial_data.n}"}, transitions: {success: finished}}
"""
SAMPLES = 300
#: connections that create jobs, and worker connections, of the throughput figure
CLIENTS, WORKERS = 8, 16
PATIENCE_S = 300.0


def main() -> None:
    """Measures and adds to `latest.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=3000)
    parser.add_argument("--workers", type=int, default=10_000)
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        Path(folder, "bench.yaml").write_text(BLUEPRINT)
        with live.serving(environ={"BLUEPRINTS_DIR": folder}) as server:
            found = [*latency(server), throughput(server, options.jobs), many(server, options.workers)]
    save(found)
    show(found)


class Line:
    """One keep-alive connection of one principal."""

    def __init__(self, server: live.Server, header: str, who: str) -> None:
        parts = urlsplit(server.url)
        self._host = parts.netloc
        self._credentials = f"{header}: {server.tokens[who]}"
        self.socket = socket.create_connection((parts.hostname or "", parts.port or 80), timeout=PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.got = b""

    def send(self, method: str, path: str, body: object = None) -> None:
        """One request."""
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: {self._host}\r\n{self._credentials}\r\n"
        if data:
            head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n"
        self.socket.sendall(head.encode() + b"\r\n" + data)

    def take(self) -> tuple[int, bytes] | None:
        """Status and body, once what has come holds both."""
        head, blank, rest = self.got.partition(b"\r\n\r\n")
        if not blank:
            return None
        status = int(head.split(b" ", 2)[1])
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        length = int(lengths[0].partition(b":")[2]) if lengths else 0
        assert lengths or status == 204, head
        if len(rest) < length:
            return None
        self.got = rest[length:]
        return status, rest[:length]

    def receive(self) -> tuple[int, bytes]:
        """The answer, waited for."""
        while (answer := self.take()) is None:
            more = self.socket.recv(1 << 16)
            assert more, "the server closed the connection"
            self.got += more
        return answer

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        """A request and its answer."""
        self.send(method, path, body)
        return self.receive()


class Worker:
    """Polls, and answers each task at once; `step` is one event of its socket."""

    def __init__(self, server: live.Server, worker_id: str) -> None:
        self.line = Line(server, "X-Worker-Token", "worker")
        self._id = worker_id
        status, body = self.line.ask(
            "POST", "/_worker/workers/register", {"worker_id": worker_id, "supported_tasks": ["bench"]}
        )
        assert status == 200, body

    def poll(self) -> None:
        """Ask for a task."""
        self.line.send("GET", f"/_worker/workers/{self._id}/tasks/next?timeout=30")

    def take(self, task: bytes) -> None:
        """Report success."""
        given = json.loads(task)
        result = {"job_id": given["job_id"], "task_id": given["task_id"], "worker_id": self._id, "status": "success"}
        self.line.send("POST", "/_worker/tasks/result", result)


def latency(server: live.Server) -> Iterator[Record]:
    """From the POST of a job to its task at a worker that polls."""
    worker, client = Worker(server, "w-latency"), Line(server, "X-Client-Token", "client")
    received: list[float] = []

    def work() -> None:
        while len(received) < SAMPLES:
            worker.poll()
            status, task = worker.line.receive()
            if status == 204:
                continue
            received.append(time.perf_counter())
            worker.take(task)
            assert worker.line.receive()[0] == 200

    thread = threading.Thread(target=work)
    thread.start()
    sent = []
    for n in range(SAMPLES):
        sent.append(time.perf_counter())
        status, body = client.ask("POST", "/api/v1/bench", {"initial_data": {"n": n}})
        assert status == 202, body
        deadline = time.monotonic() + PATIENCE_S
        while len(received) <= n:
            assert time.monotonic() < deadline, "the task never came"
            time.sleep(0.001)
        time.sleep(0.01)
    thread.join()
    took = sorted(after - before for before, after in zip(sent, received, strict=True))
    yield single(OURS, "job to polling worker p50", SAMPLES, statistics.median(took), "from the POST of the job")
    yield single(OURS, "job to polling worker p99", SAMPLES, took[int(SAMPLES * 0.99)])


def throughput(server: live.Server, jobs: int) -> Record:
    """Jobs created, polled, done: from the first POST to the last accepted result. Median of three."""
    spans = [_span(server, jobs, attempt) for attempt in range(3)]
    return record(OURS, "jobs through HTTP workers", jobs, spans, f"{CLIENTS} clients, {WORKERS} workers")


def _span(server: live.Server, jobs: int, attempt: int) -> float:
    clients = [Line(server, "X-Client-Token", "client") for _ in range(CLIENTS)]
    workers = [Worker(server, f"w-{attempt}-{n}") for n in range(WORKERS)]
    created, done = 0, 0
    start = time.perf_counter()
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client.socket, selectors.EVENT_READ, client)
            client.send("POST", "/api/v1/bench", {"initial_data": {"n": created}})
            created += 1
        for worker in workers:
            selector.register(worker.line.socket, selectors.EVENT_READ, worker)
            worker.poll()
        while done < jobs:
            assert time.perf_counter() - start < PATIENCE_S, f"{done} of {jobs}"
            for key, _ in selector.select(1.0):
                line = key.data.line if isinstance(key.data, Worker) else key.data
                line.got += line.socket.recv(1 << 16)
                answer = line.take()
                if answer is None:
                    continue
                status, body = answer
                if isinstance(key.data, Line):
                    assert status == 202, body
                    if created < jobs:
                        line.send("POST", "/api/v1/bench", {"initial_data": {"n": created}})
                        created += 1
                elif status == 204:
                    key.data.poll()
                elif b'"task_id"' in body:
                    key.data.take(body)
                else:
                    assert b"result_accepted_success" in body, body
                    done += 1
                    key.data.poll()
    took = time.perf_counter() - start
    for each in (*clients, *(worker.line for worker in workers)):
        each.socket.close()
    return took


def many(server: live.Server, count: int) -> Record:
    """Workers that are registered and poll: what the server's processes hold then, and what each worker added."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, count + 1000)), hard))
    before = sum(footprint.memory(server.processes()).values())
    workers = []
    for n in range(count):
        workers.append(Worker(server, f"many-{n}"))
        workers[-1].poll()
    time.sleep(5)
    client = Line(server, "X-Client-Token", "client")
    status, body = client.ask("GET", "/api/v1/dashboard")
    assert status == 200, body
    listed = json.loads(body)["workers"]["total"]
    after = footprint.memory(server.processes())
    total = sum(after.values())
    for worker in workers:
        worker.line.socket.close()
    notes = f"{listed:,} listed; whole server {total / 1e6:,.0f} MB, {(total - before) / 1e6:,.0f} MB more than without"
    notes += f"; {footprint.in_words({k: v / 1e6 for k, v in after.items()}, ',.0f')}"
    return Record(OURS, "long-polling workers", count, 0.0, 0.0, 0.0, notes)


if __name__ == "__main__":
    main()
