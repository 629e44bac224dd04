"""What actors say to each other about runs, as JSON: one `bytes` argument of one Ray call, and its answer.

    run actor  ◀──▶ worker                   exchanges, reports, notes
    scheduler  ◀──▶ run actors, supervisor   who hosts what, what waits, pools, limits
    gateway    ──▶  control actors           commands and their replies, many requests in one call

What a message means is said in `messages.py`, `control.py` and `command.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from orchestrator import control as c
from orchestrator import messages as m
from orchestrator.cluster_views import PoolView, RunWaiting, WorkerView
from orchestrator.codec import JSON, MSGPACK, read
from orchestrator.command import Command, CommandReply
from orchestrator.limits import Limit
from orchestrator.pools import PoolSpec

# RunActor <-> worker

#: a plain one is the same without the last field
_exchange = msgspec.json.Decoder(m.BoundExchange)
_fenced = msgspec.json.Decoder(m.Fenced)
_job_order = msgspec.json.Decoder(m.JobOrder)
_settled = msgspec.json.Decoder(m.Settled)
_holding = msgspec.json.Decoder(m.Holding)
_note = msgspec.json.Decoder(m.Note)


def encode_fenced(fenced: m.Fenced) -> bytes:
    return JSON.encode(fenced)


def decode_fenced(data: bytes) -> m.Fenced:
    return read(_fenced, data)


def encode_exchange(exchange: m.Exchange) -> bytes:
    return JSON.encode(exchange)


def decode_exchange(data: bytes) -> m.Exchange:
    return read(_exchange, data)


def encode_job_order(order: m.JobOrder) -> bytes:
    return JSON.encode(order)


def decode_job_order(data: bytes) -> m.JobOrder:
    return read(_job_order, data)


def encode_settled(settled: m.Settled) -> bytes:
    return JSON.encode(settled)


def decode_settled(data: bytes) -> m.Settled:
    return read(_settled, data)


def encode_holding(holding: m.Holding) -> bytes:
    return JSON.encode(holding)


def decode_holding(data: bytes) -> m.Holding:
    return read(_holding, data)


def encode_note(note: m.Note) -> bytes:
    return JSON.encode(note)


def decode_note(data: bytes) -> m.Note:
    return read(_note, data)


# many requests in one call

_requests = msgspec.msgpack.Decoder(list[bytes])
_answers = msgspec.msgpack.Decoder(list[tuple[bytes, str, bool]])


def encode_requests(requests: Sequence[bytes]) -> bytes:
    return MSGPACK.encode(requests)


def decode_requests(data: bytes) -> list[bytes]:
    return read(_requests, data)


def encode_answers(answers: Sequence[tuple[bytes, str, bool]]) -> bytes:
    """Of each request its answer and "", or nothing, why, and whether that is a bug."""
    return MSGPACK.encode(answers)


def decode_answers(data: bytes) -> list[tuple[bytes, str, bool]]:
    return read(_answers, data)


# scheduler <-> run actors

_hosting = msgspec.json.Decoder(c.Hosting)
_standing = msgspec.json.Decoder(c.Standing)
_roster = msgspec.json.Decoder(c.Roster)
_claims = msgspec.json.Decoder(c.Claims)
_binding = msgspec.json.Decoder(c.Binding)
_epoch = msgspec.json.Decoder(int)
_usage = msgspec.json.Decoder(list[c.LimitUsage])

_limit_change = msgspec.json.Decoder(tuple[str, Limit | None])


def encode_control(message: c.Hosting | c.Standing | c.Roster | c.Claims | c.Binding) -> bytes:
    return JSON.encode(message)


def decode_hosting(data: bytes) -> c.Hosting:
    return read(_hosting, data)


def decode_claims(data: bytes) -> c.Claims:
    return read(_claims, data)


def decode_binding(data: bytes) -> c.Binding:
    return read(_binding, data)


def encode_epoch(epoch: int) -> bytes:
    return JSON.encode(epoch)


def decode_epoch(data: bytes) -> int:
    return read(_epoch, data)


def encode_usage(usage: Sequence[c.LimitUsage]) -> bytes:
    return JSON.encode(usage)


def decode_usage(data: bytes) -> list[c.LimitUsage]:
    return read(_usage, data)


def encode_limit_change(key: str, limit: Limit | None) -> bytes:
    """What the scheduler is asked to define; None = to forget."""
    return JSON.encode((key, limit))


def decode_limit_change(data: bytes) -> tuple[str, Limit | None]:
    return read(_limit_change, data)


def decode_standing(data: bytes) -> c.Standing:
    return read(_standing, data)


def decode_roster(data: bytes) -> c.Roster:
    return read(_roster, data)


_states = msgspec.json.Decoder(dict[str, str])
_waiting = msgspec.json.Decoder(RunWaiting)

_load = msgspec.json.Decoder(dict[str, int])
_scale = msgspec.json.Decoder(tuple[str, int])


def encode_scale(pool: str, n: int) -> bytes:
    return JSON.encode((pool, n))


def decode_scale(data: bytes) -> tuple[str, int]:
    return read(_scale, data)


_pool_change = msgspec.json.Decoder(tuple[str, PoolSpec | None])
_pool_loads = msgspec.json.Decoder(list[c.PoolLoad])
_pool_views = msgspec.json.Decoder(list[PoolView])


def encode_pool_change(name: str, spec: PoolSpec | None) -> bytes:
    """What the supervisor is asked to define; None = to forget."""
    return JSON.encode((name, spec))


def decode_pool_change(data: bytes) -> tuple[str, PoolSpec | None]:
    return read(_pool_change, data)


def encode_pool_loads(loads: Sequence[c.PoolLoad]) -> bytes:
    return JSON.encode(loads)


def decode_pool_loads(data: bytes) -> list[c.PoolLoad]:
    return read(_pool_loads, data)


def encode_pool_views(views: Sequence[PoolView]) -> bytes:
    return JSON.encode(views)


def decode_pool_views(data: bytes) -> list[PoolView]:
    return read(_pool_views, data)


_supervision = msgspec.json.Decoder(tuple[int, str])


def encode_supervision(order: int, actor: str) -> bytes:
    """What a scheduler wants of the supervisor, about an actor (or ""); orders are numbered above its epoch << 32."""
    return JSON.encode((order, actor))


def decode_supervision(data: bytes) -> tuple[int, str]:
    return read(_supervision, data)


def encode_states(states: Mapping[str, str]) -> bytes:
    return JSON.encode(states)


def encode_waiting(waiting: RunWaiting) -> bytes:
    return JSON.encode(waiting)


def decode_waiting(data: bytes) -> RunWaiting:
    return read(_waiting, data)


def encode_load(load: Mapping[str, int]) -> bytes:
    return JSON.encode(load)


def decode_load(data: bytes) -> dict[str, int]:
    return read(_load, data)


def decode_states(data: bytes) -> dict[str, str]:
    return read(_states, data)


# gateway <-> control actors

_command = msgspec.json.Decoder(Command)
_command_reply = msgspec.json.Decoder(CommandReply)
_workers = msgspec.json.Decoder(list[WorkerView])


def encode_command(command: Command) -> bytes:
    return JSON.encode(command)


def decode_command(data: bytes) -> Command:
    return read(_command, data)


def encode_command_reply(reply: CommandReply) -> bytes:
    return JSON.encode(reply)


def decode_command_reply(data: bytes) -> CommandReply:
    return read(_command_reply, data)


def encode_workers(workers: Sequence[WorkerView]) -> bytes:
    return JSON.encode(workers)


def decode_workers(data: bytes) -> list[WorkerView]:
    return read(_workers, data)
