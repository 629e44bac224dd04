"""Names of the actors, in one place: they are how actors find each other."""

from __future__ import annotations

from orchestrator.ids import INSTANCE_PREFIX

NAMESPACE = "orchestrator"
SUPERVISOR = "supervisor"
#: before the id of the instance in the name of its actor
ORCHESTRATOR = "orchestrator:"
SCHEDULER = "scheduler"
#: runs attempts as Kubernetes Jobs; also the incarnation it always has: its Jobs outlive it
KUBERNETES = "kubernetes"
#: jobs, CI jobs, remote workers and runners: each is an actor with a state machine of its own, hosted here many to one
GATEWAY = "gateway-0"
#: owners of the runs it holds: parts of it, each with its own inbox and turns
JOBS, PIPELINES, WEBHOOKS = f"{GATEWAY}.jobs", f"{GATEWAY}.pipelines", f"{GATEWAY}.webhooks"
GATEWAY_PARTS = (JOBS, PIPELINES, WEBHOOKS)
#: runs handlers of blueprints, which are user code
HANDLERS = "handlers-0"
#: before the number of an in-cluster runner
RUNNER = "ray-"
#: before pool and number of a worker
WORKER = "worker-"


def run_actor_name(number: int) -> str:
    """Name of the n-th RunActor."""
    return f"run-actor-{number}"


def worker_name(pool: str, number: int) -> str:
    """Name of the n-th worker of a pool."""
    return f"{WORKER}{pool}-{number}"


def pool_of(worker: str) -> str:
    """The pool of the worker of that name."""
    return worker.removeprefix(WORKER).rsplit("-", 1)[0]


def own_actor_name(run_id: str) -> str:
    """Name of the RunActor that hosts this run alone (`isolation: dedicated`, or an orchestrator instance)."""
    if run_id.startswith(INSTANCE_PREFIX):
        return f"{ORCHESTRATOR}{run_id}"
    return f"run:{run_id.removeprefix('run_')}"


def run_ids_of(own_actor: str) -> tuple[str, ...]:
    """The run that the RunActor of that name hosts alone has one of these ids; none = it hosts an instance."""
    bare = own_actor.removeprefix("run:")
    return () if bare == own_actor else (f"run_{bare}", bare)


def is_own_actor(name: str) -> bool:
    """Does it host one run alone?"""
    return name.startswith((ORCHESTRATOR, "run:"))


def instance_of(actor: str) -> str:
    """The instance that the actor of that name hosts; "" = none."""
    return actor.removeprefix(ORCHESTRATOR) if actor.startswith(ORCHESTRATOR) else ""
