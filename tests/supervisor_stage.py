"""A supervisor without Ray: who is there, who answers, and what the journal knows, as a test wants it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from actors.peers import WorkerGone
from actors.pools import Request
from actors.settings import Settings
from actors.supervisor import Supervisor
from orchestrator import actor_codec
from orchestrator.control import PoolLoad, Roster
from orchestrator.errors import ActorUnreachable, JournalUnavailable
from orchestrator.pools import PoolSpec
from orchestrator.rows import OwnerRow, RunRow

OWN = "orchestrator:orch-1"


class FakeStage:
    """Actors by name."""

    def __init__(self, *names: str) -> None:
        self.names = set(names)
        self.specs: dict[str, PoolSpec | None] = {}
        #: actors on nodes that drain, and what Ray's autoscaler was told
        self.departing: set[str] = set()
        self.requests: list[Request] = []

    def present(self) -> set[str]:
        return set(self.names)

    def start(self, name: str, pool: str | None, spec: PoolSpec | None = None) -> None:
        self.names.add(name)
        self.specs[name] = spec

    def end(self, name: str) -> None:
        self.names.discard(name)

    def revive_journal(self) -> None:
        raise AssertionError("it is not ours")

    def leaving(self) -> set[str]:
        return self.departing

    def request(self, room: Request) -> None:
        self.requests.append(room)


class NoPeers:
    """Nobody answers."""

    async def tell(self, actor: str, method: str, blob: bytes) -> None:
        raise ActorUnreachable(actor, "told to fail")

    async def ask(self, actor: str, method: str, blob: bytes) -> bytes:
        raise ActorUnreachable(actor, "asked to fail")

    async def control(self, worker: str, method: str, *args: Any) -> Any:
        raise WorkerGone(worker, "it was never there")


class FakeFacts:
    """The journal: who had which name, and where its inbox is."""

    def __init__(self, epochs: dict[str, int] | None = None, newest: dict[str, str] | None = None) -> None:
        self.epochs, self.newest, self.down = epochs or {}, newest or {}, False
        self.kept: dict[str, bytes] = {}
        self.counts: list[tuple[str, int]] = []
        #: run -> version and state
        self.runs: dict[str, tuple[int, str]] = {}

    async def summary(self, run_id: str) -> RunRow | None:
        self._check()
        if run_id not in self.runs:
            return None
        version, state = self.runs[run_id]
        return RunRow(run_id, version, "", state, "t", "d", 1, *("",) * 3, 0, 0, *(None,) * 3, "", None, False, "", ())

    async def ping(self) -> bool:
        return not self.down

    async def owner(self, owner: str) -> OwnerRow:
        if self.down:
            raise JournalUnavailable("told to fail")
        return OwnerRow(self.epochs.get(owner, 0), 0, "0-0")

    async def position(self, stream: str) -> str:
        return self.newest.get(stream, "0-0")

    async def put_records(self, kind: str, records: Mapping[str, bytes | None]) -> None:
        self._check()
        for key, record in records.items():
            if record is None:
                self.kept.pop(key, None)
            else:
                self.kept[key] = record

    async def record(self, kind: str, key: str) -> bytes | None:
        self._check()
        return self.kept.get(key)

    async def records(self, kind: str) -> dict[str, bytes]:
        self._check()
        return dict(self.kept)

    async def count(self, counts: Sequence[tuple[str, int]]) -> None:
        self._check()
        self.counts += counts

    def _check(self) -> None:
        if self.down:
            raise JournalUnavailable("told to fail")


def supervisor(
    stage: FakeStage, journal: FakeFacts | None = None, peers: NoPeers | None = None, **settings: Any
) -> Supervisor:
    known: Any = peers or NoPeers()
    made = Settings(redis_url="redis://x", run_actors_max=2, workers=1, **settings)
    return Supervisor(stage, known, journal or FakeFacts(), made)


def asked(epoch: int, name: str = OWN, number: int = 0) -> bytes:
    return actor_codec.encode_supervision(epoch << 32 | number, name)


class Scheduler(NoPeers):
    """The scheduler alone answers: how pools are, and what each slot is at."""

    def __init__(self) -> None:
        self.loads: list[PoolLoad] = []
        self.states: dict[str, str] = {}
        self.asked: list[str] = []
        self.roster: Roster | None = None

    async def tell(self, actor: str, method: str, blob: bytes) -> None:
        self.roster = actor_codec.decode_roster(blob)

    async def ask(self, actor: str, method: str, blob: bytes) -> bytes:
        self.asked.append(method)
        if method == "pool_loads":
            return actor_codec.encode_pool_loads(self.loads)
        return actor_codec.encode_states({name: self._word(name, state) for name, state in self.states.items()})

    def _word(self, worker: str, state: str) -> str:
        told = self.roster is not None and worker in self.roster.draining
        return {"idle": "draining", "busy": "draining_busy"}[state] if told else state


ELASTIC = actor_codec.encode_pool_change("gpu", PoolSpec(max=4, num_gpus=1.0, idle_timeout_s=0.0))


async def rounds(made: Supervisor, count: int = 1) -> None:
    """What the loop does, at once."""
    for _ in range(count):
        for phase in (
            made._leave_nodes,
            made._follow_load,
            made._fill_gaps,
            made._shed,
            made._tell_scheduler,
            made._retire,
            made._tell_scheduler,
            made._request_room,
        ):
            await made._phase(phase)


class HeldStage(FakeStage):
    """Ray cannot be asked while its GCS is away: nobody is found, and so nobody ended."""

    away = True

    def end(self, name: str) -> None:
        if self.away:
            raise RuntimeError("GCS is away")
        super().end(name)
