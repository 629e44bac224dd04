"""The acceptance examples of the runs and instances contracts once more, with somebody dying in the middle of each.

The examples are those of tests/conformance. Before the second request of an example (the third, where it begins with an
instance that was paused already) every process of one kind is killed: the API replica that would answer, the RunActors
that own the run, or the OrchestratorActors that own the instance. The client is as patient as a client has to be: what
found nobody at home it asks again.

    example -> httpx.Client -> Patient (kills before one request, asks again) -> server
"""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidHandshake
from websockets.sync.client import ClientConnection

from tests.chaos.monkey import KINDS, titled
from tests.conformance import test_instances_contract as instances
from tests.conformance import test_runs_contract as runs
from tests.instances_api import Board
from tests.live import Server, serving
from tests.runs_api import Runs

pytestmark = [pytest.mark.ray, pytest.mark.chaos, pytest.mark.slow]
PATIENCE_S = 45.0
VICTIMS = {**KINDS, "orchestrator actor": titled("ray::OrchestratorProcess")}
Example = Callable[..., None]


def examples_of(module: Any, *parameters: str) -> list[Any]:
    """Tests of a module that ask for exactly these fixtures, named as they are."""
    return [
        pytest.param(test, id=name.removeprefix("test_"))
        for name, test in vars(module).items()
        if name.startswith("test_") and tuple(inspect.signature(test).parameters) == parameters
    ]


#: example -> before which of its requests somebody dies, where it is not the second
MOMENTS: dict[Example, int] = {
    # of two who start one plan, neither may be cut off: asked again, the winner would be told of itself
    instances.test_of_two_starters_of_one_plan_exactly_one_wins: 1,
    # a pause that waits for a new replica comes when there is nothing left to pause; the second pause may wait
    instances.test_a_paused_instance_starts_nothing_until_it_is_resumed: 3,
}


class Patient(httpx.HTTPTransport):
    """Kills before its `at`th request, and asks again what was not answered by the product itself."""

    def __init__(self, kill: Callable[[], None], at: int) -> None:
        super().__init__()
        self._kill, self._left, self._lock = kill, at, threading.Lock()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.count()
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with suppress(httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError):
                response = super().handle_request(request)
                if response.status_code < 500 or not _is_transient(response) or time.monotonic() > deadline:
                    return response
                response.close()
            if time.monotonic() > deadline:
                raise httpx.ConnectTimeout("nobody came back", request=request)
            time.sleep(0.1)

    def count(self) -> None:
        """One more request is about to be made."""
        with self._lock:
            self._left -= 1
            if self._left == 0:
                self._kill()


def _is_transient(response: httpx.Response) -> bool:
    """The proxy answered for a replica that is gone, or the product says: later. Want of a cluster does not pass."""
    if "json" not in response.headers.get("content-type", ""):
        return True
    return "retry-after" in response.headers and b"k8s" not in response.read()


class PatientBoard(Board):
    """Sockets are as patient as requests."""

    def __init__(self, server: Server, patient: Patient) -> None:
        super().__init__(server.url, server.home / "project")
        self.patient = patient
        self.http = httpx.Client(base_url=server.url, transport=patient, timeout=self.timeout_s)

    def socket(self, instance_id: str, kind: str) -> ClientConnection:
        self.patient.count()
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            with suppress(OSError, EOFError, InvalidHandshake):
                return super().socket(instance_id, kind)
            time.sleep(0.1)
        raise TimeoutError("no socket")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server of our own: it is shot at."""
    with serving() as started:
        yield started


def killing(server: Server, kind: str, at: int) -> Patient:
    """Kills every process of that kind at the `at`th request; returns only once they are gone."""

    def kill() -> None:
        victims = VICTIMS[kind](server)
        assert victims or kind != "API replica", "there is always a replica"
        for each in victims:
            each.kill()
        deadline = time.monotonic() + 5
        while {each.pid for each in victims} & {each.pid for each in server.processes()}:
            assert time.monotonic() < deadline, "who is killed is gone"
            time.sleep(0.005)
        print(f"killed {len(victims)} of {kind}")

    return Patient(kill, at)


@pytest.mark.parametrize("kind", ["API replica", "run actor"])
@pytest.mark.parametrize("example", examples_of(runs, "runs"))
def test_a_run_keeps_to_its_contract_whoever_dies(server: Server, example: Example, kind: str) -> None:
    example(caller(server, {}, killing(server, kind, 2)))


def test_a_key_is_needed_whoever_dies() -> None:
    with serving(environ={"ORCHESTRATOR_API_KEY": runs.KEY}) as server:
        patient = killing(server, "API replica", 2)
        runs.everybody_needs_the_key(*(caller(server, headers, patient) for headers in runs.KEY_HEADERS))


@pytest.mark.parametrize("at", [2, 4])
def test_the_fourth_request_of_three_is_refused_whoever_dies(at: int) -> None:
    with serving(environ={"RATE_LIMIT_MAX": "3"}) as server:
        runs.only_three_pass(caller(server, {}, killing(server, "API replica", at)))


def caller(server: Server, headers: dict[str, str], patient: Patient) -> Runs:
    found = Runs(server.url, headers, prompt_s=PATIENCE_S)
    found.http = httpx.Client(base_url=server.url, headers=headers, transport=patient, timeout=found.timeout_s)
    return found


@pytest.mark.parametrize("kind", ["API replica", "orchestrator actor"])
@pytest.mark.parametrize("example", examples_of(instances, "board"))
def test_an_instance_keeps_to_its_contract_whoever_dies(server: Server, example: Example, kind: str) -> None:
    example(PatientBoard(server, killing(server, kind, MOMENTS.get(example, 2))))


@pytest.mark.parametrize("kind", ["API replica", "orchestrator actor"])
@pytest.mark.parametrize("example", examples_of(instances, "board", "paused"))
def test_a_paused_instance_keeps_to_its_contract_whoever_dies(server: Server, example: Example, kind: str) -> None:
    board = PatientBoard(server, killing(server, kind, 3))
    with instances.pausing(board) as instance_id:
        example(board, instance_id)
