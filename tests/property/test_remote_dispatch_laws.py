"""Dispatch to remote workers, against an oracle that looks at every pair of a task and a worker."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.remote_dispatch import STRATEGIES, RemoteDispatch, Waiting, WorkerKey
from orchestrator.remote_worker import RemoteWorker, Requirements, requirements_of

TENANTS = ("default", "acme", "other")
TYPES = ("video", "audio", "text")
WANTED = (
    requirements_of(None, None),
    requirements_of({"gpu_info": {"vram_gb": 8}}, None),
    requirements_of({"installed_models": ["sd"]}, 1.0),
    requirements_of(None, 0.5),
)
Op = tuple[str, int, int]
_ops = st.lists(
    st.tuples(
        st.sampled_from(
            ["offer"] * 6 + ["poll"] * 6 + ["say", "close", "drop", "hold", "return", "forget", "assign", "assign"]
        ),
        st.integers(0, 39),
        st.integers(0, 59),
    ),
    max_size=120,
)


def a_task(number: int, kind: int) -> Waiting:
    return Waiting(
        task_id=f"t{number:02d}",
        job_id="j",
        tenant=TENANTS[kind % 3],
        type=TYPES[kind // 3 % 3],
        since=float(number % 5),
        priority=float(kind % 2),
        strategy=[*STRATEGIES, "unheard-of"][kind % 6],
        wanted=WANTED[kind // 7 % 4],
    )


def key_of(number: int) -> WorkerKey:
    return TENANTS[number % 2], f"w{number % 6}"


def what_it_says(kind: int) -> dict[str, object]:
    return {
        "supported_tasks": list(TYPES[: 1 + kind % 3]),
        "max_concurrent_tasks": 1 + kind % 4,
        "load": kind % 5 / 5,
        "hot_skills": [TYPES[kind % 3]] if kind % 2 else [],
        "cost_per_second": None if kind % 7 == 0 else kind % 4 / 2,
        "cost_per_skill": {"video": 0.1} if kind % 5 == 0 else {},
        "gpu_info": {"vram_gb": kind % 20},
        "installed_models": ["sd"] if kind % 3 else [],
        "status": ["idle", "idle", "idle", "draining"][kind // 3 % 4],
    }


@dataclass
class Oracle:
    """The same in plain dictionaries."""

    workers: dict[WorkerKey, RemoteWorker] = field(default_factory=dict)
    polls: dict[int, WorkerKey] = field(default_factory=dict)
    waiting: dict[str, tuple[int, Waiting]] = field(default_factory=dict)
    held: dict[str, WorkerKey] = field(default_factory=dict)
    served: dict[WorkerKey, int] = field(default_factory=dict)
    count: int = 0

    def next(self) -> int:
        self.count += 1
        return self.count

    def tasks_of(self, key: WorkerKey) -> int:
        return sum(holder == key for holder in self.held.values())

    def able(self, task: Waiting) -> list[WorkerKey]:
        return [key for key in sorted(set(self.polls.values())) if self._can(self.workers[key], task)]

    def _can(self, worker: RemoteWorker, task: Waiting) -> bool:
        room = self.tasks_of((worker.tenant, worker.worker_id)) < worker.capacity
        tenant = worker.tenant in ("default", task.tenant)
        return room and tenant and not worker.draining and _meets(worker, task.type, task.wanted)

    def rank(self, task: Waiting, key: WorkerKey) -> tuple[float, ...]:
        worker = self.workers[key]
        cost = _price(worker, task.type)
        waits = min(self.number_of[poll] for poll, who in self.polls.items() if who == key)
        said: dict[str, tuple[float, ...]] = {
            "round_robin": (self.served.get(key, 0),),
            "least_connections": (worker.body["load"], self.tasks_of(key)),
            "cheapest": (cost,),
            "best_value": (cost / worker.reputation,),
        }
        return (*said.get(task.strategy, (task.type not in worker.body["hot_skills"], cost)), waits)

    number_of: dict[int, int] = field(default_factory=dict)

    def assign(self) -> list[tuple[str, WorkerKey, int]]:
        out = []
        while True:
            ready = [(-t.priority, t.since, n, t) for n, t in self.waiting.values() if self.able(t)]
            if not ready:
                return out
            task = min(ready, key=lambda entry: entry[:3])[3]
            key = min(self.able(task), key=lambda k: self.rank(task, k))
            poll = min((p for p, who in self.polls.items() if who == key), key=lambda p: self.number_of[p])
            del self.waiting[task.task_id], self.polls[poll]
            self.held[task.task_id] = key
            self.served[key] = self.next()
            out.append((task.task_id, key, poll))


def _price(worker: RemoteWorker, task_type: str) -> float:
    price = worker.body["cost_per_skill"].get(task_type, worker.body["cost_per_second"])
    return math.inf if price is None else price


def _meets(worker: RemoteWorker, task_type: str, wanted: Requirements) -> bool:
    body = worker.body
    return (
        task_type in body["supported_tasks"]
        and (wanted.max_cost is None or _price(worker, task_type) <= wanted.max_cost)
        and (wanted.vram_gb is None or body["gpu_info"]["vram_gb"] >= wanted.vram_gb)
        and wanted.models <= set(body["installed_models"])
    )


@settings(max_examples=400, deadline=None)
@given(_ops)
def test_every_task_goes_to_whom_a_look_at_all_pairs_would_give_it(ops: list[Op]) -> None:
    made, oracle = RemoteDispatch(), Oracle()
    for kind, number, share in ops:
        if kind == "assign":
            _agree(made, oracle)
        else:
            _do(made, oracle, kind, number, share)
    _agree(made, oracle)


def _agree(made: RemoteDispatch, oracle: Oracle) -> None:
    given_out = [(a.waiting.task_id, a.worker, a.poll[1]) for a in made.assign()]
    assert given_out == oracle.assign()
    for key, worker in oracle.workers.items():
        assert len(made.tasks_of(key)) == oracle.tasks_of(key)
        assert not given_out or oracle.tasks_of(key) <= worker.capacity or key not in {who for _, who, _ in given_out}
    assert (made.waiting, made.polling, made.held) == (len(oracle.waiting), len(oracle.polls), len(oracle.held))


def _do(made: RemoteDispatch, oracle: Oracle, kind: str, number: int, share: int) -> None:
    task_id, key = f"t{number:02d}", key_of(number)
    match kind:
        case "offer" if task_id not in oracle.held:
            task = a_task(number, share)
            made.offer(task)
            if oracle.waiting.get(task_id, (0, None))[1] != task:
                oracle.waiting[task_id] = oracle.next(), task
        case "drop" | "return":
            task_known = oracle.held.pop(task_id, None)
            made.drop(task_id)
            oracle.waiting.pop(task_id, None)
            if kind == "return" and task_known:
                made.offer(a_task(number, share))
                oracle.waiting[task_id] = oracle.next(), a_task(number, share)
        case "hold":
            made.hold(task_id, key)
            oracle.waiting.pop(task_id, None)
            oracle.held[task_id] = key
        case "say":
            _say(made, oracle, key, share)
        case "poll":
            if key not in oracle.workers:
                _say(made, oracle, key, share)
            made.open(key, ("r", share))
            if share not in oracle.polls:
                oracle.polls[share], oracle.number_of[share] = key, oracle.next()
        case "close":
            assert made.close(("r", share)) == oracle.polls.pop(share, None)
        case "forget":
            made.forget(key)
            oracle.workers.pop(key, None)
            oracle.served.pop(key, None)
            oracle.polls = {poll: who for poll, who in oracle.polls.items() if who != key}


def _say(made: RemoteDispatch, oracle: Oracle, key: WorkerKey, share: int) -> None:
    worker = RemoteWorker(*key, what_it_says(share), reputation=1 / (1 + share % 3))
    oracle.workers[key] = worker
    made.know(worker)
