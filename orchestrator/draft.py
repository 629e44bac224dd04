"""A DAG under construction: its `@dag` function is being called, and every task call adds a node.

    Output, Param   stand for values that exist only in a run, and are no values now
    Draft           the nodes so far, what each needs, and how its arguments stand in JSON (`binding.py`)

`drafting` holds the one whose function is being called.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

from orchestrator.authoring_options import Function
from orchestrator.binding import FIXED, PARAM, escaped, path
from orchestrator.errors import Invalid
from orchestrator.grouping import Group, ends_of, value_of, within

Later = TypeVar("Later", bound="Output | Group | Iterable[Output | Group]")


class _RunTime:
    """A stand-in for a value that exists only in a run. Using it as a value now is a mistake that must not pass."""

    def _not_yet(self, *_: object) -> NoReturn:
        raise TypeError(f"{self!r} is known only when the DAG runs: pass it to a task instead of using it here")

    __bool__ = __iter__ = __str__ = __format__ = __eq__ = _not_yet
    __hash__ = object.__hash__


class Param(_RunTime):
    """A parameter of the `@dag` function: what the run was started with, else its default."""

    def __init__(self, parameter: inspect.Parameter) -> None:
        self._parameter = parameter

    def __repr__(self) -> str:
        return f"param {self.name!r}"

    @property
    def name(self) -> str:
        """What the run's params call it."""
        return self._parameter.name

    def encoded(self) -> dict[str, Any]:
        """How params say it."""
        if self._parameter.default is inspect.Parameter.empty:
            return {PARAM: self.name}
        return {PARAM: self.name, "default": _constant(self._parameter.default)}


class Output(_RunTime):
    """A node of the DAG under construction, standing for the value its task will return."""

    def __init__(self, task_id: str, draft: Draft) -> None:
        self.task_id = task_id
        self._draft = draft

    def __repr__(self) -> str:
        return f"output of task {self.task_id!r}"

    def after(self, *others: Output | Group) -> Output:
        """This task starts after `others`, without taking anything from them."""
        self._draft.order(self, ends_of(others))
        return self

    def teardown_of(self, *setups: Output) -> Output:
        """This task undoes what `setups` did: it runs when one of them succeeded, once all between them has ended."""
        self._draft.tear_down(self, setups)
        return self

    def compensates(self, done: Output) -> Output:
        """This task undoes what `done` did: it runs when that succeeded and the run does not."""
        self._draft.compensate(self, done)
        return self

    def __rshift__(self, later: Later) -> Later:
        for one in _several(later):
            one.after(self)
        return later

    def __rrshift__(self, earlier: Iterable[Output | Group]) -> Output:
        return self.after(*earlier)


@dataclass(slots=True)
class Draft:
    """A DAG under construction."""

    #: names of the DAG function's parameters
    params: frozenset[str]
    #: task id -> body as `spec` reads it
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: name -> number of the last task or group that was called so
    numbers: dict[str, int] = field(default_factory=dict)
    #: task id -> the ids it depends on, each once
    needs: dict[str, dict[str, None]] = field(default_factory=dict)
    #: the group that is being called; "" = none
    group: str = ""

    def add(
        self, name: str, body: Mapping[str, Any], arguments: Mapping[str, Any], expand: Mapping[str, Any] | None = None
    ) -> Output:
        """A node: a task of that body, with these arguments; `expand` is what it is mapped over."""
        task_id = self._unused(within(self.group, name))
        inputs: dict[str, str] = {}
        params: dict[str, Any] = {}
        for key, argument in arguments.items():
            value = value_of(argument)
            encoded = self._encoded(value, escaped(key), inputs)
            if not isinstance(value, Output):
                params[key] = {FIXED: encoded} if self._only_shares_name(key, value) else encoded
        self.needs[task_id] = dict.fromkeys(inputs.values())
        self.tasks[task_id] = {"id": task_id, **body, "params": params, "inputs": inputs}
        if self.group:
            self.tasks[task_id]["group"] = self.group
        for key, source in (expand or {}).items():
            self.tasks[task_id]["expand"] = {escaped(key): self._source(task_id, source)}
        return Output(task_id, self)

    def call(self, name: str, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Group:
        """`function` adds its tasks as a group."""
        outer, before = self.group, set(self.tasks)
        self.group = inner = self._unused(within(outer, name))
        try:
            returned = function(*args, **kwargs)
        finally:
            self.group = outer
        own = [i for i, body in self.tasks.items() if i not in before and not _cleans_up(body)]
        needed = {need for i in own for need in self.needs[i]}
        first = [i for i in own if self.needs[i].keys().isdisjoint(own)]
        last = [i for i in own if i not in needed]
        return Group(inner, returned, *(tuple(Output(i, self) for i in ids) for ids in (first, last)))

    def order(self, later: Output, earlier: Iterable[Output]) -> None:
        """`later` starts after all of `earlier`."""
        for one in earlier:
            self.needs[later.task_id][self._own(one)] = None

    def tear_down(self, teardown: Output, setups: Iterable[Output]) -> None:
        """`teardown` undoes what `setups` did."""
        self.tasks[teardown.task_id].setdefault("teardown_of", []).extend(self._own(one) for one in setups)

    def compensate(self, compensation: Output, done: Output) -> None:
        """`compensation` undoes what `done` did."""
        told = self.tasks[compensation.task_id].setdefault("compensates", self._own(done))
        if told != done.task_id:
            raise Invalid(f"the {compensation!r} compensates {told!r} already; it cannot compensate two tasks")

    def bodies(self) -> list[dict[str, Any]]:
        """All tasks, as `spec` reads them."""
        return [{**body, "depends_on": list(self.needs[task_id])} for task_id, body in self.tasks.items()]

    def _unused(self, name: str) -> str:
        number = self.numbers.get(name, 0) + 1
        while (task_id := name if number == 1 else f"{name}_{number}") in self.tasks:
            number += 1
        self.numbers[name] = number
        return task_id

    def _only_shares_name(self, name: str, value: Any) -> bool:
        """The run's param of this name is another thing than this argument."""
        return name in self.params and not (isinstance(value, Param) and value.name == name)

    def _encoded(self, value: Any, where: str, inputs: dict[str, str]) -> Any:
        """`value` as JSON; outputs in it leave null and an entry in `inputs`."""
        value = value_of(value)
        if isinstance(value, Output):
            inputs[where] = self._own(value)
            return None
        if isinstance(value, Param):
            return value.encoded()
        if isinstance(value, (list, tuple)):
            return [self._encoded(item, path(where, place), inputs) for place, item in enumerate(value)]
        if isinstance(value, dict):
            _refuse_marks(value)
            return {key: self._encoded(item, path(where, key), inputs) for key, item in value.items()}
        return value

    def _source(self, task_id: str, source: Any) -> Any:
        """What a task is mapped over, as JSON."""
        source = value_of(source)
        if isinstance(source, Output):
            self.needs[task_id][self._own(source)] = None
            return source.task_id
        if isinstance(source, Param):
            return source.encoded()
        if any(isinstance(element, _RunTime) for element in source):
            raise Invalid(
                "a list to map over is known, or one task returns it: its elements cannot be outputs or params"
            )
        return _constant(list(source))

    def _own(self, output: Output) -> str:
        if not isinstance(output, Output):
            raise Invalid(f"only tasks of this DAG can come before a task, not {output!r}")
        if output._draft is not self:
            raise Invalid(f"the {output!r} belongs to another DAG")
        return output.task_id


def _cleans_up(body: Mapping[str, Any]) -> bool:
    return "teardown_of" in body or "compensates" in body


#: the DAG whose function is being called for its definition
drafting: ContextVar[Draft | None] = ContextVar("orchestrator_dag_draft", default=None)


def _constant(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_constant(item) for item in value]
    if isinstance(value, dict):
        _refuse_marks(value)
        return {key: _constant(item) for key, item in value.items()}
    return value


def _refuse_marks(value: dict[Any, Any]) -> None:
    for mark in (PARAM, FIXED):
        if mark in value:
            raise Invalid(f"the key {mark!r} has a meaning of its own in the arguments of tasks")


def _several(one_or_more: Output | Group | Iterable[Output | Group]) -> Iterable[Output | Group]:
    return (one_or_more,) if isinstance(one_or_more, Output | Group) else one_or_more
