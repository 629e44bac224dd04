"""What actors say to each other about runs, as JSON: one `bytes` argument of one Ray call, and its answer.

    run actor  ◀──▶ worker                   exchanges, reports, notes
    scheduler  ◀──▶ run actors, supervisor   who hosts what, what waits, pools, limits
    gateway    ──▶  control actors           commands and their replies, many requests in one call

What a message means is said in `messages.py`, `control.py` and `command.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from orchestrator import control as c
from orchestrator import messages as m
from orchestrator.cluster_views import PoolView, RunWaiting, WorkerView
from orchestrator.codec import JSON, MSGPACK, both_ways, both_ways_in_lists, reader
from orchestrator.command import Command, CommandReply
from orchestrator.limits import Limit
from orchestrator.pools import PoolSpec

# RunActor <-> worker

encode_exchange: Callable[[m.Exchange], bytes] = JSON.encode
#: a plain one is the same without the last field
decode_exchange: Callable[[bytes], m.Exchange] = reader(msgspec.json.Decoder(m.BoundExchange))
encode_fenced, decode_fenced = both_ways(m.Fenced)
encode_job_order, decode_job_order = both_ways(m.JobOrder)
encode_settled, decode_settled = both_ways(m.Settled)
encode_holding, decode_holding = both_ways(m.Holding)
encode_note, decode_note = both_ways(m.Note)

# many requests in one call

encode_requests: Callable[[Sequence[bytes]], bytes] = MSGPACK.encode
decode_requests = reader(msgspec.msgpack.Decoder(list[bytes]))
#: of each request its answer and "", or nothing, why, and whether that is a bug
encode_answers: Callable[[Sequence[tuple[bytes, str, bool]]], bytes] = MSGPACK.encode
decode_answers = reader(msgspec.msgpack.Decoder(list[tuple[bytes, str, bool]]))

# scheduler <-> run actors, supervisor

encode_control: Callable[[c.Hosting | c.Standing | c.Roster | c.Claims | c.Binding], bytes] = JSON.encode
decode_hosting = reader(msgspec.json.Decoder(c.Hosting))
decode_standing = reader(msgspec.json.Decoder(c.Standing))
decode_roster = reader(msgspec.json.Decoder(c.Roster))
decode_claims = reader(msgspec.json.Decoder(c.Claims))
decode_binding = reader(msgspec.json.Decoder(c.Binding))
encode_epoch, decode_epoch = both_ways(int)
encode_usage, decode_usage = both_ways_in_lists(c.LimitUsage)
encode_waiting, decode_waiting = both_ways(RunWaiting)
encode_pool_loads, decode_pool_loads = both_ways_in_lists(c.PoolLoad)
encode_pool_views, decode_pool_views = both_ways_in_lists(PoolView)
encode_states: Callable[[Mapping[str, str]], bytes] = JSON.encode
decode_states = reader(msgspec.json.Decoder(dict[str, str]))
encode_load: Callable[[Mapping[str, int]], bytes] = JSON.encode
decode_load = reader(msgspec.json.Decoder(dict[str, int]))
decode_limit_change = reader(msgspec.json.Decoder(tuple[str, Limit | None]))
decode_pool_change = reader(msgspec.json.Decoder(tuple[str, PoolSpec | None]))
decode_scale = reader(msgspec.json.Decoder(tuple[str, int]))
decode_supervision = reader(msgspec.json.Decoder(tuple[int, str]))


def encode_limit_change(key: str, limit: Limit | None) -> bytes:
    """What the scheduler is asked to define; None = to forget."""
    return JSON.encode((key, limit))


def encode_pool_change(name: str, spec: PoolSpec | None) -> bytes:
    """What the supervisor is asked to define; None = to forget."""
    return JSON.encode((name, spec))


def encode_scale(pool: str, n: int) -> bytes:
    """How many workers the supervisor is asked to let a pool have."""
    return JSON.encode((pool, n))


def encode_supervision(order: int, actor: str) -> bytes:
    """What a scheduler wants of the supervisor, about an actor (or ""); orders are numbered above its epoch << 32."""
    return JSON.encode((order, actor))


# gateway <-> control actors

encode_command, decode_command = both_ways(Command)
encode_command_reply, decode_command_reply = both_ways(CommandReply)
encode_workers, decode_workers = both_ways_in_lists(WorkerView)
