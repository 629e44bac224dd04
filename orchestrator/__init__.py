"""Durable workflows inside a Ray cluster: what a workflow's author needs, and how the core is built.

    from orchestrator import dag, task

Decide, apply, owed
-------------------
Everything here is pure: no Ray, no I/O, no clock, no chance. Time and ids come in as arguments. Each
machine (a run, a task, a backfill) is three functions:

    decide(state, command, now) -> events    what follows from a command. May refuse; changes nothing.
    apply(state, event)                      what is true after a fact. Never refuses; never asks the time.
    owed(state) -> effects                   what the world still has to do about this state.

A shell (`actors/`) turns them into something that survives: it recovers its state from the journal,
decides, appends the events, and only when they are durable applies and performs.

    command ──▶ decide ──▶ events ──▶ journal ──▶ apply ──▶ owed ──▶ perform
       ▲          │refused                                            │
       └──────────┘         ◀── reports, timers, acknowledgements ────┘

From this split follows what the product promises. A run is its events: reading them again gives the same
state, byte for byte, so any process may die at any instant. An event is a fact that was durable before
anyone acted on it, so nothing acknowledged is lost. What was owed and not done when a process died is
owed by the state that is read back, so nothing stays undone. Everything is performed at least once, and
reports carry the attempt they speak of, so what arrives twice or late has no effect. And all of it can be
tested on virtual time, in one thread, by generating histories.

Modules are nouns; `run.py` and `task.py` are the machines to read first.
"""

# The machine's module must be loaded before `task`, the decorator, takes its name: the import system sets
# the attribute `orchestrator.task` once, when it loads the module. Hence: `from orchestrator.task import …`.
import orchestrator.task  # noqa: F401 # for its effect on the name, see above
from orchestrator.authoring import Dag, dag, dags_in, group
from orchestrator.context import TaskContext, current
from orchestrator.definition import Definition, TaskSpec, Window
from orchestrator.errors import Invalid, OrchestratorError, PermanentFailure, Refused, Skip, TaskCancelled, Unavailable
from orchestrator.task_functions import task

__version__ = "1.0.0"

__all__ = [
    "dag",
    "task",
    "group",
    "current",
    "TaskContext",
    "PermanentFailure",
    "Skip",
    "TaskCancelled",
    "Dag",
    "dags_in",
    "Definition",
    "TaskSpec",
    "Window",
    "OrchestratorError",
    "Refused",
    "Invalid",
    "Unavailable",
]
