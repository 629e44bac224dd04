"""A remote worker as the gateway knows it: what it said of itself, what it can, what it costs, how far it is trusted.

    registration ─▶ body ◀─ heartbeats (last writer wins, per top-level key) ◀─ skills named by polls

    live ──silent for a TTL──▶ expired ──any sign of life──▶ live        expired for KNOWN_S: forgotten

Spans and instants `_s` are seconds of a monotonic clock. **Reputation** is a share in (0, 1], 1 at first: a success
takes away a tenth of what is missing to 1, a failure takes a tenth of what is there, a lapsed lease three tenths.
Source: jobs contract, sections 1 (Worker), 4 (register, heartbeat), 7 (Dispatch), 9a (expired worker).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

#: an expired worker's registration is kept for so long
KNOWN_S = 86_400.0
#: tasks at once of a worker that does not say
CAPACITY = 10
_CAPABILITY_KEYS = ("supported_tasks", "supported_skills", "available_skills")
#: never kept, never shown; likewise every key that ends with `_token`
_HIDDEN = frozenset({"security", "token"})
#: of the moment: not worth a durable write
_VOLATILE = frozenset({"load", "current_tasks", "hot_cache", "hot_skills", "timestamp"})
_SUCCESS, _FAILURE, _LAPSE, _LEAST = 0.1, 0.9, 0.7, 0.001


class Requirements(msgspec.Struct, frozen=True):
    """What a task asks of a worker, read from its `resource_requirements`; what we do not know is not asked for."""

    gpu_model: str | None = None
    vram_gb: float | None = None
    models: frozenset[str] = frozenset()
    max_cost: float | None = None


NO_REQUIREMENTS = Requirements()


def requirements_of(wanted: Mapping[str, Any] | None, max_cost: float | None) -> Requirements:
    """`wanted`: a task's `resource_requirements`, {"gpu_info": {"model", "vram_gb"}, "installed_models": […]}."""
    given = wanted or {}
    gpu = _object(given.get("gpu_info"))
    model, vram_gb = gpu.get("model"), gpu.get("vram_gb")
    return Requirements(
        gpu_model=model if isinstance(model, str) and model else None,
        vram_gb=_number(vram_gb),
        models=frozenset(_names(given.get("installed_models"))),
        max_cost=max_cost,
    )


class WorkerRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A worker as the journal keeps it."""

    tenant: str
    worker_id: str
    body: dict[str, Any]
    reputation: float = 1.0
    #: it had expired then; epoch milliseconds, 0 = it had not
    gone_ms: int = 0


@dataclass(slots=True)
class RemoteWorker:
    """One remote worker. The fields below `body` follow from it."""

    tenant: str
    worker_id: str
    #: registration and heartbeats, merged
    body: dict[str, Any] = field(default_factory=dict)
    reputation: float = 1.0
    seen_s: float = 0.0
    #: the same, as wall time
    seen_at: datetime | None = None
    #: it said "no more for now" and has not asked for a task since
    sated: bool = False
    skills: frozenset[str] = field(init=False)
    hot: frozenset[str] = field(init=False)
    #: tasks at once
    capacity: int = field(init=False)
    #: as it says, 0 = idle
    load: float = field(init=False)
    draining: bool = field(init=False)

    def __post_init__(self) -> None:
        self.body = {name: value for name, value in self.body.items() if not _hidden(name)}
        self._derive()

    def register(self, body: Mapping[str, Any]) -> None:
        """What it says of itself from now on."""
        self.body = {name: value for name, value in body.items() if not _hidden(name)}
        self.sated = False
        self._derive()

    def merge(self, body: Mapping[str, Any]) -> None:
        """A heartbeat. A busy worker that lists no capability has not lost those it has."""
        busy = body.get("status") == "busy"
        kept = {name for name in _CAPABILITY_KEYS if busy and name in body and not body[name]}
        self.body.update({name: value for name, value in body.items() if name not in kept and not _hidden(name)})
        self.sated = bool(kept)
        self._derive()

    def polled(self, available_skills: Iterable[str], hot_skills: Iterable[str]) -> None:
        """It asks for a task, and may name skills."""
        self.sated = False
        if named := list(available_skills):
            self.body["available_skills"] = named
        if hot := list(hot_skills):
            self.body["hot_skills"] = hot
        self._derive()

    def seen(self, now_s: float, now: datetime) -> None:
        """A sign of life."""
        self.seen_s, self.seen_at = now_s, now

    def settled(self, status: str) -> None:
        """It reported a result."""
        if status == "failure":
            self.reputation = max(_LEAST, self.reputation * _FAILURE)
        elif status != "cancelled":
            self.reputation += (1.0 - self.reputation) * _SUCCESS

    def lapsed(self) -> None:
        """It was silent while it had a task."""
        self.reputation = max(_LEAST, self.reputation * _LAPSE)

    def serves(self, tenant: str) -> bool:
        """Workers serve their own tenant, those of `default` everybody."""
        return self.tenant in ("default", tenant)

    def cost(self, task_type: str) -> float:
        """Of a task of that type; infinite when it names no price."""
        per_skill = _number(_object(self.body.get("cost_per_skill")).get(task_type))
        price = _number(self.body.get("cost_per_second")) if per_skill is None else per_skill
        return math.inf if price is None else price

    def fits(self, task_type: str, wanted: Requirements) -> bool:
        """Can it do such a task, whether it is free now or not?"""
        if task_type not in self.skills or (wanted.max_cost is not None and self.cost(task_type) > wanted.max_cost):
            return False
        return self._has_gpu(wanted) and wanted.models <= set(_names(self._said("installed_models")))

    def _has_gpu(self, wanted: Requirements) -> bool:
        gpu = _object(self._said("gpu_info"))
        if wanted.gpu_model is not None and gpu.get("model") != wanted.gpu_model:
            return False
        return wanted.vram_gb is None or (_number(gpu.get("vram_gb")) or 0.0) >= wanted.vram_gb

    def _said(self, name: str) -> Any:
        """At the top, or among its resources: generations differ."""
        return self.body.get(name) or _object(self.body.get("resources")).get(name)

    def view(self) -> dict[str, Any]:
        """As clients and the worker itself see it; no token, no `security`."""
        last_seen = self.seen_at.isoformat() if self.seen_at else None
        reputation = round(self.reputation, 4)
        return {**self.body, "worker_id": self.worker_id, "reputation": reputation, "last_seen": last_seen}

    def lasting(self) -> dict[str, Any]:
        """What of its body is worth keeping over a restart."""
        body = {name: value for name, value in self.body.items() if name not in _VOLATILE}
        if not self.draining:
            body.pop("status", None)
        return body

    def _derive(self) -> None:
        self.skills = frozenset(name for key in _CAPABILITY_KEYS for name in _names(self.body.get(key)))
        self.hot = frozenset((*_names(self.body.get("hot_cache")), *_names(self.body.get("hot_skills"))))
        self.capacity = _capacity(self.body)
        self.load = _number(self.body.get("load")) or 0.0
        self.draining = self.body.get("status") == "draining"


def _capacity(body: Mapping[str, Any]) -> int:
    for said in (body.get("max_concurrent_tasks"), _object(body.get("resources")).get("max_concurrent_tasks")):
        number = _number(said)
        if number is not None and number >= 0:
            return int(number)
    return CAPACITY


def _hidden(name: str) -> bool:
    return name in _HIDDEN or name.endswith("_token")


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _names(value: Any) -> list[str]:
    """Of a list of texts, or of objects with a `name`."""
    entries = value if isinstance(value, list | tuple) else []
    named = [entry.get("name") if isinstance(entry, dict) else entry for entry in entries]
    return [name for name in named if isinstance(name, str)]


def _number(value: Any) -> float | None:
    """A finite number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
