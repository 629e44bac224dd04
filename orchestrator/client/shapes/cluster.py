"""What the dags surface says of what runs are done with: pools, limits, bundles, the archive, control planes."""

from __future__ import annotations

from typing import Literal, TypedDict

from orchestrator.client.shapes.dags import DagsDagDefined


class DagsRateView(TypedDict):
    """So many starts in any span of so many seconds."""

    count: int
    per_s: float


class DagsLimitView(TypedDict):
    """A limit, and what is so now."""

    name: str
    #: `dag`: all tasks of a DAG with `max_active_tasks`
    kind: Literal["limit", "dag"]
    #: False: tasks name it, and nobody has defined it
    defined: bool
    max_running: int | None
    rate: DagsRateView | None
    running: int
    waiting: int


class DagsPoolView(TypedDict):
    """A pool of workers: what is defined, and what is so now."""

    name: str
    #: False: of `default` the server's settings say how many
    defined: bool
    num_cpus: float
    num_gpus: float
    memory_bytes: int
    resources: dict[str, float]
    labels: dict[str, str]
    min: int
    max: int
    idle_timeout_s: float
    tasks_per_worker: int
    scale_up_wait_s: float
    step: int
    wanted: int
    workers: int
    starting: int
    busy: int
    draining: int
    #: ready tasks that wait for a worker, and for how long some have
    waiting: int
    waiting_s: float


class DagsPoolDeleted(TypedDict):
    """It is not defined any more."""

    name: str
    deleted: bool


class DagsBundleStored(TypedDict):
    """A bundle that is kept."""

    bundle: str
    #: packed
    size_bytes: int
    files: int
    #: false: it was there already
    created: bool


class DagsBundleDeployed(TypedDict):
    """The DAGs of a bundle, which are the current ones now."""

    bundle: str
    items: list[DagsDagDefined]


class DagsBundleView(TypedDict):
    """A bundle that is kept, and who needs it."""

    bundle: str
    #: packed
    size_bytes: int
    files: int
    #: when it was sent or deployed last
    touched_at: str
    #: deployed from it
    dags: list[str]
    #: those among them whose current version names it
    current: list[str]


class DagsSweepView(TypedDict):
    """Runs on their way to the archive."""

    sweep_id: str
    state: Literal["wanted", "running", "done", "failed"]
    #: what ended before then leaves
    before: str
    #: empty: beside the index, in the data directory
    to: str
    #: that left so far
    runs: int
    backfills: int
    #: written so far
    size_bytes: int
    #: that have to stay: a fire may still be about them, or a backfill counts them
    left: int
    error: str | None
    asked_at: str
    updated_at: str | None


class DagsPlane(TypedDict):
    """A control plane, and who is in charge of the journal."""

    #: that answers: its Ray cluster's session; empty when there can be no other
    plane: str
    #: false: it stands by, and the holder does what it accepts
    in_charge: bool
    #: the plane in charge
    holder: str | None
    #: where that one answers
    holder_url: str | None
    #: by the clock of the journal's server
    since: str | None
    #: grows whenever somebody comes to be in charge, or is not any more
    term: int
    #: the plane that asked to take over
    wanted: str | None
    #: since the plane in charge renewed its lease, or since nobody is; above 10 nobody may be; null: for ever
    lease_age_s: float | None


class DagsLimitDeleted(TypedDict):
    """It is not defined any more."""

    name: str
    deleted: bool


class HealthResponse(TypedDict):
    """How the server is."""

    ok: bool
    service: str
    status: Literal["healthy", "degraded", "unhealthy"]
    version: str
    timestamp: str
    orchestrators_running: int
