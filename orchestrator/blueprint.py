"""A blueprint as the core sees it: a state machine whose states act, one action each.

    Blueprint ─▶ State: `when` (condition ─▶ action)*, else `action`; or a handler in Python (`code`)
    Outcome   what one visit of a state came to; the job's machine (`job.py`) takes it from there

Made by `blueprints.py` (Python) and `blueprint_file.py` (YAML and JSON). Both give the same plain document, which the
journal keeps per version: whoever holds, serves or draws a blueprint needs no code of its author's.

An end state is visited as well when it has something to do, a handler or a `set`. The outcome of such a visit has no
action: the job has ended then. Source: jobs contract, section 7.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

#: end states that every blueprint has, and the job status each gives; any other end state gives `finished`
END_STATES = ("finished", "failed", "cancelled", "quarantined")


class Transition(msgspec.Struct, frozen=True, tag_field="do", tag="transition_to"):
    """On to another state at once."""

    state: str


class Dispatch(msgspec.Struct, frozen=True, tag_field="do", tag="dispatch_task", omit_defaults=True):
    """A task for whoever advertises `type`. In a declared state `params` may hold `${path}`."""

    type: str
    params: dict[str, Any] = {}
    #: result status -> state; empty in branches of a Parallel
    transitions: dict[str, str] = {}
    dispatch_strategy: str = "default"
    resource_requirements: dict[str, Any] | None = None
    timeout_seconds: float | None = None
    max_cost: float | None = None
    priority: float = 0.0


class Parallel(msgspec.Struct, frozen=True, tag_field="do", tag="dispatch_parallel"):
    """Several tasks; the last result leads to `aggregate_into`."""

    tasks: tuple[Dispatch, ...]
    aggregate_into: str


class Approval(msgspec.Struct, frozen=True, tag_field="do", tag="await_human_approval"):
    """Somebody decides; the decision is a key of `transitions`."""

    integration: str
    message: str
    transitions: dict[str, str]


class SubBlueprint(msgspec.Struct, frozen=True, tag_field="do", tag="run_blueprint", omit_defaults=True):
    """A job of another blueprint; `success` and `failure` lead on."""

    name: str
    initial_data: dict[str, Any] = {}
    transitions: dict[str, str] = {}


Action = Transition | Dispatch | Parallel | Approval | SubBlueprint


class Guarded(msgspec.Struct, frozen=True):
    """An entry of `when`: the first whose condition holds acts."""

    #: `context.<area>.<field> <op> <value>`
    condition: str
    #: None in a blueprint of code: the handler decides
    action: Action | None = None


class Lead(msgspec.Struct, frozen=True, omit_defaults=True):
    """A way out of a state, as a graph shows it."""

    #: name of the state it leads to
    state: str
    #: when it is taken: a result status, a decision, a condition; "" = at once
    label: str = ""


class State(msgspec.Struct, frozen=True, omit_defaults=True):
    """One state. A declared one has an action or is an end; one of code has a handler."""

    name: str
    start: bool = False
    end: bool = False
    #: the visit is a call of Python code
    code: bool = False
    #: written to `state_history` first; values may be `${path}`
    set: dict[str, Any] = {}
    when: tuple[Guarded, ...] = ()
    action: Action | None = None
    #: of a state of code: where its handlers are seen to lead
    leads: tuple[Lead, ...] = ()
    #: of a state of code: its handlers may lead elsewhere as well, which only running them can tell
    dynamic: bool = False


class Blueprint(msgspec.Struct, frozen=True, omit_defaults=True):
    """A validated blueprint: one start, no dangling and no unreachable state."""

    name: str
    states: dict[str, State]
    #: path below `/api/<api_version>`, from its slash on; None = only run by other blueprints
    api_endpoint: str | None = None
    #: None = mounted at `/api<api_endpoint>`
    api_version: str | None = None
    #: of its content, sha256 hex
    content_hash: str = ""

    @property
    def start(self) -> str:
        """Name of the start state."""
        return next(name for name, state in self.states.items() if state.start)

    @property
    def path(self) -> str | None:
        """Where jobs of it are created, as in `/api/v1/jobs/simple_flow`; None when clients cannot create any."""
        if self.api_endpoint is None:
            return None
        return f"/api/{self.api_version}{self.api_endpoint}" if self.api_version else f"/api{self.api_endpoint}"

    def status_at(self, state: str) -> str | None:
        """Job status when `state` is an end; None when the job goes on there."""
        if state in self.states and not self.states[state].end:
            return None
        if state in END_STATES:
            return state
        return "finished" if state in self.states else None


class Published(msgspec.Struct, frozen=True):
    """A blueprint as new jobs get it."""

    #: 1, 2, 3…
    version: int
    #: False = its file is gone: jobs that began with it go on, new ones cannot begin
    deployed: bool
    blueprint: Blueprint


_canonical = msgspec.json.Encoder(order="deterministic")


def sealed(blueprint: Blueprint, *more: Any) -> Blueprint:
    """The blueprint with the hash of its content, and of `more` that makes it what it is (JSON)."""
    content = _canonical.encode([msgspec.structs.replace(blueprint, content_hash=""), *more])
    return msgspec.structs.replace(blueprint, content_hash=hashlib.sha256(content).hexdigest())


class Visit(msgspec.Struct, frozen=True):
    """A visit of a state that is to be made: all that a handler or a declared state can read."""

    job_id: str
    blueprint: str
    version: int
    state: str
    #: counts the visits and their retries of this job, from 1
    serial: int
    initial_data: dict[str, Any]
    state_history: dict[str, Any]
    #: {"name", "plan"}
    client: dict[str, Any]
    aggregation_results: dict[str, Any]
    webhook_url: str | None = None


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a visit came to: an action, or why there is none."""

    action: Action | None = None
    #: the whole of it afterwards
    state_history: dict[str, Any] = {}
    error: str | None = None
    #: the handler raised: worth another try. Otherwise (no action, two, an argument that is nowhere) the job fails
    again: bool = False


def refused(error: str) -> Outcome:
    """The visit can come to nothing else, however often it is made."""
    return Outcome(error=error)
