"""Names of the actors, in one place: they are how actors find each other."""

from __future__ import annotations

NAMESPACE = "orchestrator"
SUPERVISOR = "supervisor"
SCHEDULER = "scheduler"


def run_actor_name(number: int) -> str:
    """Name of the n-th RunActor."""
    return f"run-actor-{number}"


def worker_name(pool: str, number: int) -> str:
    """Name of the n-th worker of a pool."""
    return f"worker-{pool}-{number}"


def own_actor_name(run_id: str) -> str:
    """Name of the RunActor that hosts this run alone (`isolation: dedicated`)."""
    return f"run:{run_id.removeprefix('run_')}"
