"""Blueprints as Python: functions that handle the states of a machine, and decide what comes next.

    bp = StateMachineBlueprint(name="simple_flow", api_endpoint="/jobs/simple_flow", api_version="v1")

    @bp.handler_for("start", is_start=True)
    async def start(initial_data, actions):
        actions.dispatch_task("video_processing", params=initial_data, transitions={"success": "finished"})

    @bp.handler_for("review").when("context.initial_data.urgent == 'yes'")
    def urgent(actions): actions.transition_to("finished")

Decorating only takes down; `validate` and `compile` say whether it makes a blueprint. What `compile` gives is the plain
document (`blueprint.py`): states, conditions, and where the handlers are seen to lead (`handler_leads.py`). Its hash
covers the source of the handlers, so that a changed handler is another version. Handlers stay the functions they are:
tests may call them. Those with a condition are tried in the order of declaration, before the one without.

A state named like one of the implicit ends (`finished`, `failed`, `cancelled`, `quarantined`) is an end, whatever the
decorator says. Source: jobs contract, section 7.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, TypeVar

from orchestrator.action_form import plain
from orchestrator.blueprint import END_STATES, Blueprint, Guarded, State, Visit, sealed
from orchestrator.blueprint_checks import NAME, check
from orchestrator.blueprint_graph import under
from orchestrator.conditions import parse_condition
from orchestrator.declared_state import areas_of
from orchestrator.errors import Invalid
from orchestrator.faults import json_fault, refusal
from orchestrator.handler_leads import Leads, leads_in, text_of

Function = Callable[..., Any]
F = TypeVar("F", bound=Function)


@dataclass(slots=True)
class _Handled:
    """A state and its handlers so far."""

    is_start: bool = False
    is_end: bool = False
    #: (condition, handler), in the order of declaration
    guarded: list[tuple[str, Function]] = field(default_factory=list)
    default: Function | None = None

    def functions(self) -> list[Function]:
        functions = [function for _, function in self.guarded]
        return functions if self.default is None else [*functions, self.default]


class HandlerDecorator:
    """Makes a function the handler of a state; `when` makes it one that acts only if the condition holds."""

    def __init__(self, state: str, handled: _Handled) -> None:
        self._state = state
        self._handled = handled

    def __call__(self, function: F) -> F:
        _callable(self._state, function)
        if self._handled.default is not None:
            raise Invalid(f"state {self._state!r} has two handlers without a condition")
        self._handled.default = function
        return function

    def when(self, condition: str) -> Callable[[F], F]:
        """A decorator for the handler to take if `condition` holds. Raises Invalid."""
        parse_condition(condition)

        def decorate(function: F) -> F:
            _callable(self._state, function)
            self._handled.guarded.append((condition, function))
            return function

        return decorate


class StateMachineBlueprint:
    """A blueprint whose states are handled by Python functions.

    Without `api_endpoint` only other blueprints can run it; without `api_version` it is at `/api<api_endpoint>`.
    `data_stores`: store -> initial values.
    """

    def __init__(
        self,
        name: str,
        api_endpoint: str | None = None,
        api_version: str | None = None,
        data_stores: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.name = name
        self.api_endpoint = api_endpoint
        self.api_version = api_version
        #: store -> initial values
        self.data_stores: dict[str, dict[str, Any]] = {}
        self._handled: dict[str, _Handled] = {}
        for store, values in (data_stores or {}).items():
            self.add_data_store(store, values)

    def __repr__(self) -> str:
        return f"blueprint {self.name!r}"

    def handler_for(self, state: str, is_start: bool = False, is_end: bool = False) -> HandlerDecorator:
        """A decorator for the handler of a state. A state may be named several times, with conditions."""
        if not isinstance(state, str):
            raise Invalid(f"a state is named by text, not by {state!r}")
        handled = self._handled.setdefault(state, _Handled())
        handled.is_start |= is_start
        handled.is_end |= is_end or state in END_STATES
        return HandlerDecorator(state, handled)

    def aggregator_for(self, state: str) -> HandlerDecorator:
        """A decorator for the handler of a state that parallel tasks come together in."""
        return self.handler_for(state)

    def add_data_store(self, name: str, values: Mapping[str, Any]) -> None:
        """A store that the handlers share, with its initial values. Raises Invalid."""
        if not re.fullmatch(NAME, name) or name in self.data_stores:
            raise Invalid(f"data store {name!r} must have a name of its own that matches {NAME}")
        initial = plain(values)
        if found := json_fault(initial):
            raise refusal([("/".join(filter(None, ("data_stores", name, found[0]))), found[1])])
        if not isinstance(initial, dict):
            raise Invalid(f"data store {name!r} must have an object of initial values")
        self.data_stores[name] = initial

    def validate(self) -> tuple[str, ...]:
        """Warnings about what only running it can tell. Raises Invalid for what is wrong."""
        return check(self._blueprint())

    def compile(self) -> Blueprint:
        """The plain document of it. Raises Invalid for what is wrong."""
        blueprint = self._blueprint()
        check(blueprint)
        texts = {
            state: [text_of(function) for function in handled.functions()] for state, handled in self._handled.items()
        }
        return sealed(blueprint, texts, self.data_stores)

    def handler(self, visit: Visit) -> tuple[Function, bool]:
        """The handler that the visit is for, and whether its state is an end. Raises Invalid when there is none."""
        handled = self._handled.get(visit.state)
        if handled is None:
            raise Invalid(f"Blueprint {self.name!r} has no state {visit.state!r}")
        areas = areas_of(visit)
        for condition, function in handled.guarded:
            if parse_condition(condition).holds(areas):
                return function, handled.is_end
        if handled.default is None:
            raise Invalid(f"State {visit.state!r} has no handler without a condition, and no condition holds")
        return handled.default, handled.is_end

    def _blueprint(self) -> Blueprint:
        if not isinstance(self.name, str):
            raise Invalid("name: must be text")
        states = {name: _state(name, handled) for name, handled in self._handled.items()}
        return Blueprint(self.name, states, self.api_endpoint, self.api_version)


def blueprints_in(module: ModuleType) -> list[StateMachineBlueprint]:
    """The blueprints among the attributes of `module`, each once, in the order in which they were bound."""
    found = {id(value): value for value in vars(module).values() if isinstance(value, StateMachineBlueprint)}
    return list(found.values())


def _state(name: str, handled: _Handled) -> State:
    if not handled.functions():
        raise Invalid(f"states/{name}: has no handler: handler_for({name!r}) decorates nothing")
    guarded = [(condition, leads_in(function)) for condition, function in handled.guarded]
    default = leads_in(handled.default) if handled.default is not None else Leads()
    return State(
        name,
        start=handled.is_start,
        end=handled.is_end,
        code=True,
        when=tuple(Guarded(condition) for condition, _ in guarded),
        leads=(*(under(condition, lead) for condition, leads in guarded for lead in leads.known), *default.known),
        dynamic=any(leads.dynamic for leads in (*(leads for _, leads in guarded), default)),
    )


def _callable(state: str, function: Any) -> None:
    try:
        inspect.signature(function)
    except (TypeError, ValueError):
        raise Invalid(
            f"the handler of state {state!r} must be a function with named parameters, not {function!r}"
        ) from None
