"""One call of a handler: what it is given by name, what it may do, and what its visit came to.

    Visit ─▶ HandlerCall(arguments, actions) ─▶ [the handler runs, elsewhere] ─▶ outcome() | failure(error)

An argument is looked for among the names below, then in `state_history`, then in `initial_data`; one that is nowhere
takes its Python default. Actions only take down what the handler wants: it must be exactly one, except in end states.
`state_history` is kept as the handler leaves it, also when it was replaced in `context`. Nothing here runs the handler:
that needs threads and a loop (`actors/handler_runs.py`). Source: jobs contract, sections 7 and 9a.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from orchestrator.action_form import plain, read_action
from orchestrator.blueprint import Action, Outcome, Visit, refused
from orchestrator.declared_state import kept
from orchestrator.errors import Invalid, PermanentFailure, Refused
from orchestrator.faults import Fault, refusal

Function = Callable[..., Any]

_NUMBER = {0: "no action", 2: "two actions", 3: "three actions"}


class Actions:
    """What a handler can do. Each call is checked, taken down, and done once the handler has returned."""

    def __init__(self) -> None:
        #: (name, action)
        self.taken: list[tuple[str, Action]] = []

    def transition_to(self, state: str) -> None:
        """On to another state."""
        self._take("transition_to", state)

    def dispatch_task(
        self,
        task_type: str,
        params: Mapping[str, Any] | None = None,
        transitions: Mapping[str, str] | None = None,
        dispatch_strategy: str = "default",
        resource_requirements: Mapping[str, Any] | None = None,
        timeout_seconds: float | None = None,
        max_cost: float | None = None,
        priority: float = 0.0,
    ) -> None:
        """A task for a worker; its result's status leads on by `transitions`. Raises Invalid."""
        self._take(
            "dispatch_task",
            {
                "type": task_type,
                "params": {} if params is None else params,
                "transitions": {} if transitions is None else transitions,
                "dispatch_strategy": dispatch_strategy,
                "resource_requirements": resource_requirements,
                "timeout_seconds": timeout_seconds,
                "max_cost": max_cost,
                "priority": priority,
            },
        )

    def dispatch_parallel(self, tasks: Iterable[Mapping[str, Any]], aggregate_into: str) -> None:
        """Several tasks at once, each with `type`, `params` and the options of a task. Raises Invalid."""
        self._take("dispatch_parallel", {"tasks": list(tasks), "aggregate_into": aggregate_into})

    def await_human_approval(self, integration: str, message: str, transitions: Mapping[str, str]) -> None:
        """Wait for somebody's decision, a key of `transitions`. Raises Invalid."""
        self._take("await_human_approval", {"integration": integration, "message": message, "transitions": transitions})

    def run_blueprint(
        self, name: str, initial_data: Mapping[str, Any] | None = None, transitions: Mapping[str, str] | None = None
    ) -> None:
        """A job of another blueprint; `success` and `failure` lead on. Raises Invalid."""
        data = {} if initial_data is None else initial_data
        self._take("run_blueprint", {"name": name, "initial_data": data, "transitions": transitions or {}})

    def _take(self, kind: str, written: Any) -> None:
        faults: list[Fault] = []
        action = read_action(kind, plain(written), kind, faults)
        if action is None:
            raise refusal(faults)
        self.taken.append((kind, action))


@dataclass(slots=True)
class HandlerContext:
    """All that a handler can ask for, as argument `context`; each field is an argument by its own name as well."""

    job_id: str
    current_state: str
    initial_data: dict[str, Any]
    #: changes are kept
    state_history: dict[str, Any]
    #: {"name", "plan"}
    client: dict[str, Any]
    actions: Actions
    #: store by name, as attribute or item
    data_stores: Any
    tracing_context: dict[str, Any]
    aggregation_results: dict[str, Any]
    webhook_url: str | None
    #: read(name), write(name, bytes)
    task_files: Any


NAMES = tuple(field.name for field in fields(HandlerContext))


class HandlerCall:
    """A handler with its arguments. Raises Invalid when one of them is nowhere."""

    def __init__(self, function: Function, visit: Visit, *, is_end: bool, data_stores: Any, task_files: Any) -> None:
        self._function = function
        self._is_end = is_end
        self.name = getattr(function, "__name__", visit.state)
        self.context = HandlerContext(
            job_id=visit.job_id,
            current_state=visit.state,
            initial_data=visit.initial_data,
            state_history=visit.state_history,
            client=visit.client,
            actions=Actions(),
            data_stores=data_stores,
            tracing_context={},
            aggregation_results=visit.aggregation_results,
            webhook_url=visit.webhook_url,
            task_files=task_files,
        )
        self._args, self._kwargs = self._bound()

    @property
    def is_async(self) -> bool:
        """Is it known to return at once, with something to await? Other handlers may as well, but may also block."""
        called = getattr(self._function, "__call__", None)  # noqa: B004 # of an object, which may be async
        return inspect.iscoroutinefunction(self._function) or inspect.iscoroutinefunction(called)

    def run(self) -> Any:
        """Call the handler: what it returns, which of an async one is to be awaited. Raises what it raises."""
        return self._function(*self._args, **self._kwargs)

    def outcome(self) -> Outcome:
        """What the visit came to, now that the handler has returned."""
        taken = self.context.actions.taken
        if taken and self._is_end:
            return refused(f"Handler {self.name!r} made {taken[0][0]} in the end state {self.context.current_state!r}")
        if len(taken) > 1 or (not taken and not self._is_end):
            names = f": {' and '.join(kind for kind, _ in taken)}" if taken else ""
            return refused(
                f"Handler {self.name!r} made {_NUMBER.get(len(taken), f'{len(taken)} actions')} instead of one{names}"
            )
        return kept(taken[0][1] if taken else None, plain(self.context.state_history))

    def failure(self, error: BaseException, told: str) -> Outcome:
        """What the visit came to when the handler raised. What it asked for on purpose is not tried again."""
        return Outcome(error=told, again=not isinstance(error, Refused | PermanentFailure))

    def _bound(self) -> tuple[list[Any], dict[str, Any]]:
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for name, parameter in inspect.signature(self._function).parameters.items():
            if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
                continue
            value = self._argument(name, parameter)
            if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
                args.append(value)
            else:
                kwargs[name] = value
        return args, kwargs

    def _argument(self, name: str, parameter: inspect.Parameter) -> Any:
        if name == "context":
            return self.context
        if name in NAMES:
            return getattr(self.context, name)
        for area in (self.context.state_history, self.context.initial_data):
            if name in area:
                return area[name]
        if parameter.default is inspect.Parameter.empty:
            raise Invalid(f"Handler {self.name!r} needs {name!r}")
        return parameter.default
