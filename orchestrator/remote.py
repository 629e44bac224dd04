"""What an API replica and the gateway say to each other about jobs and remote workers.

    request  one struct of `Request`, tagged `ask`;   answer  an `Answer`

Polls do not hold a call each: a replica opens polls (`Poll`), and holds one `Listen` at a time, whose answer brings the
`Push`es for all of its polls and sockets. A poll ends by `Assigned` or `Expired`, or because its replica withdraws it.

    replica                                    gateway
    Poll 7, w1 ──────────────────────────────▶ open
    Listen after=0 session=0 ────────────────▶ waits …             a task for w1: TaskDelivered (journal), then pushed
               ◀─ Pushes session=41 last=1 [Assigned 7]
    Listen after=1 session=41 ───────────────▶ push 1 has arrived, it is forgotten

**Sessions.** What the gateway knows of a replica's polls and sockets is memory, and is one session. A replica that was
silent for REPLICA_SILENT_S, or that has fallen behind by PUSHES_MAX, has lost its session, and so has every replica
when the gateway was restarted. `Pushes.session` then is another number than before: the replica opens every poll that
has had no answer again, under the same `poll_id`, with the time that is left, and tells its sockets again. Opening a
poll that is open changes nothing; a task that was leased for it by the former gateway is pushed once more, the same.
Source: jobs contract, sections 2 to 5.
"""

from __future__ import annotations

from typing import Any

import msgspec

#: seconds without a `Listen` after which a replica is gone; one that waits in a Listen is there
REPLICA_SILENT_S = 10.0
#: longest wait of a `Listen`, seconds
LISTEN_MAX_S = 5.0
#: pushes that a replica may leave unacknowledged
PUSHES_MAX = 50_000


class Ask(msgspec.Struct, frozen=True, tag_field="ask", omit_defaults=True):
    """A request to the gateway."""


class Register(Ask, frozen=True, tag="register"):
    """Upsert of a worker; `body` is the whole JSON object it sent."""

    tenant: str
    worker_id: str
    body: dict[str, Any]


class Heartbeat(Ask, frozen=True, tag="heartbeat"):
    """`body` None: there was none, or no JSON object. Answer.body: what is answered to the worker."""

    tenant: str
    worker_id: str
    body: dict[str, Any] | None = None


class Poll(Ask, frozen=True, tag="poll"):
    """A worker waits for a task; answered at once (empty), the outcome comes as a Push."""

    tenant: str
    replica: str
    #: unique within the replica
    poll_id: int
    worker_id: str
    timeout_s: float
    available_skills: tuple[str, ...] = ()
    hot_skills: tuple[str, ...] = ()


class Polls(Ask, frozen=True, tag="polls"):
    """Polls that came while another request was under way: one call for all."""

    polls: tuple[Poll, ...]


class Withdraw(Ask, frozen=True, tag="withdraw"):
    """The client of the poll is gone. What was assigned to it meanwhile goes back to the queue, uncounted."""

    replica: str
    poll_ids: tuple[int, ...]


class Listen(Ask, frozen=True, tag="listen"):
    """Pushes for this replica: at once when there are any, else after at most `timeout_s` (LISTEN_MAX_S).

    A replica that does not listen for 10 s is gone, and its polls and sockets with it. `after` acknowledges pushes. Of
    two that wait at once the later one gets the pushes, and the earlier one is answered without.
    """

    replica: str
    timeout_s: float
    #: number of the last push that arrived; unacknowledged ones are sent again
    after: int = 0
    #: the session in which it had that number; 0 = none yet
    session: int = 0


class Sockets(Ask, frozen=True, tag="sockets"):
    """Worker sockets that the replica opened or lost; "" = an anonymous one. A serial names a socket of the replica.

    A new socket of a worker id closes the old one (Push `Close`).
    """

    tenant: str
    replica: str
    opened: tuple[tuple[int, str], ...] = ()
    closed: tuple[int, ...] = ()


class Result(Ask, frozen=True, tag="result"):
    """A worker's result, either shape reduced to one. Answer.body: {"status": …} or {"status", "reason"}.

    `worker_id` "" = it does not say: whoever has the task. Refused: not_found.
    """

    tenant: str
    worker_id: str
    job_id: str
    task_id: str
    status: str
    data: Any = None
    error: Any = None
    data_metadata: Any = None


class Progress(Ask, frozen=True, tag="progress"):
    """By event, or by socket; of a task that is not current it is dropped. `worker_id` as in Result."""

    tenant: str
    worker_id: str
    job_id: str
    task_id: str
    progress: float
    message: str


class Alive(Ask, frozen=True, tag="alive"):
    """Any other sign of life of these workers (pongs)."""

    tenant: str
    worker_ids: tuple[str, ...]


class Approve(Ask, frozen=True, tag="approve"):
    """A human's decision on a job. Refused: not_found | invalid_decision | conflict."""

    job_id: str
    decision: str


class Cancel(Ask, frozen=True, tag="cancel"):
    """Answer.body: {"status": "cancellation_request_sent" | "cancellation_request_accepted"}.

    Refused: not_found | conflict (message: the job's status).
    """

    tenant: str
    job_id: str


class Release(Ask, frozen=True, tag="release"):
    """A quarantined job goes on where it stopped. Refused: not_found | conflict (message: its status)."""

    tenant: str
    job_id: str


class Workers(Ask, frozen=True, tag="workers"):
    """Answer.body: array of the tenant's live workers, as `GET /api/v1/workers` lists them, by id."""

    tenant: str


class Why(Ask, frozen=True, tag="why"):
    """Answer.body: {"reason": text or None}: why a job that waits for a worker does. Refused: not_found."""

    tenant: str
    job_id: str


class Figures(Ask, frozen=True, tag="figures"):
    """Answer.body: {"task_queue_length", "active_workers", "leased_tasks", "open_polls", "jobs"}: whole numbers."""


class Flush(Ask, frozen=True, tag="flush"):
    """Every job, remote worker, queue and history is erased."""


Request = (
    Register
    | Heartbeat
    | Poll
    | Polls
    | Withdraw
    | Listen
    | Sockets
    | Result
    | Progress
    | Alive
    | Approve
    | Cancel
    | Release
    | Workers
    | Why
    | Figures
    | Flush
)


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """`refused` is a word of the request's docstring, or None when it was done."""

    body: Any = None
    refused: str | None = None
    message: str = ""


class Assigned(msgspec.Struct, frozen=True, tag_field="push", tag="assigned"):
    """A task, leased durably, for the poll. `task` as the worker gets it (section 1, Task)."""

    poll_id: int
    task: dict[str, Any]


class Expired(msgspec.Struct, frozen=True, tag_field="push", tag="expired"):
    """Nothing came in time: 204."""

    poll_id: int


class Say(msgspec.Struct, frozen=True, tag_field="push", tag="say"):
    """JSON for a socket."""

    serial: int
    body: dict[str, Any]


class Close(msgspec.Struct, frozen=True, tag_field="push", tag="close"):
    """The socket is replaced: 1008."""

    serial: int


Push = Assigned | Expired | Say | Close


class Pushes(msgspec.Struct, frozen=True):
    """Answer.body of a Listen: pushes in order, the last of which has number `last`."""

    last: int
    pushes: tuple[Push, ...]
    #: not the one of the Listen: polls and sockets are to be opened again, and numbers begin anew
    session: int
