"""DAGs as Python: `@task` functions, called inside a `@dag` function, become a graph.

    @task(retries=2)                          @dag(owner="data", schedule="0 6 * * *")
    def double(n: int) -> int:                def doubling(n: int = 2):
        return 2 * n                              total([double(n), double(5)])

Nothing runs when the `@dag` function is called for its definition: every task call adds a node and gives
back its `Output`, which stands for a value that will exist. An output among the arguments, also within
lists and dicts, makes a dependency that passes data; `a >> b` and `b.after(a)` make one for order only. A task starts
when all it depends on has succeeded, or as its `trigger_rule` says; a `@task.branch` returns the ids of the dependents
that go on; `b.teardown_of(a)` makes `b` undo what `a` set up, and `b.compensates(a)` what `a` did when the run fails;
`double.expand(n=numbers())` runs it for each element. A `@group` function, or another `@dag` function, adds its tasks
under its name (`grouping.py`).
Parameters of the `@dag` function are the run's params, with its defaults. Everything else among the
arguments is a constant and must be JSON. `binding.py` tells the encoding and undoes it on the worker.

The graph goes through `spec.parse_dag` like any other, so the same bounds hold and the same errors come.
Outside a `@dag` function a task function is just called: in a unit test, or from another task.

Workers import the module of a task, so importing this module is cheap and decorating builds nothing.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import PurePath
from types import ModuleType
from typing import Any, NoReturn, TypedDict, TypeVar, Unpack, cast, overload

from orchestrator.binding import CONTEXT, FIXED, PARAM, escaped, path, signature
from orchestrator.definition import (
    AfterRule,
    Catchup,
    Definition,
    Durability,
    Isolation,
    Overlap,
    SlaAction,
    TriggerRule,
)
from orchestrator.errors import Invalid
from orchestrator.failures import name_of
from orchestrator.grouping import Group, ends_of, value_of, within

Function = Callable[..., Any]

Later = TypeVar("Later", bound="Output | Group | Iterable[Output | Group]")

DEFAULT_OWNER = "default"


class RetryPolicyOption(TypedDict, total=False):
    """How failures of some classes are tried again; the first that fits counts."""

    exceptions: Iterable[type[BaseException] | str]
    retries: int
    retry_delay_s: float


class ResourcesOption(TypedDict, total=False):
    """What a task asks of the cluster (docs/workers.md)."""

    num_cpus: float
    num_gpus: float
    memory_bytes: int
    #: custom resources of the cluster
    custom: dict[str, float]
    #: that its node must have
    labels: dict[str, str]


class TaskOptions(TypedDict, total=False):
    """Options of one task; section 1 of the dags contract gives bounds and defaults."""

    retries: int
    retry_delay_s: float
    retry_cap_s: float
    #: classes, or their names as in `failures.py`
    retry_on: Iterable[type[BaseException] | str]
    no_retry_on: Iterable[type[BaseException] | str]
    retry_policies: Iterable[RetryPolicyOption]
    #: of `task.bash`, and of `task.http`: `503`, `"5xx"`
    retry_exit_codes: Iterable[int]
    retry_statuses: Iterable[int | str]
    timeout_s: float
    queue_timeout_s: float
    heartbeat_timeout_s: float
    sla_s: int
    on_sla_miss: Iterable[SlaAction]
    priority: int
    #: workers that it runs on
    pool: str
    #: what it asks of the cluster, instead of a pool: {"num_gpus": 1}, …
    resources: ResourcesOption
    #: names of limits, which may have {{ params.NAME }} in them, or {"name": …, "slots": n}
    limits: Sequence[str | dict[str, Any]]
    #: assets that are updated when it succeeds
    produces: Sequence[str]
    #: when it starts, given how the tasks it depends on have ended
    trigger_rule: TriggerRule
    #: its value names the dependents that go on (`@task.branch`)
    branch: bool
    #: of a teardown: its failure fails the run
    on_failure_fail_run: bool
    #: of a mapped task: how many of its instances run at a time
    max_active: int
    #: of a mapped task: how many of its instances may fail, as a number or as `"5%"`
    tolerated_failures: int | str
    #: its result stands for that of an equal task for so long (docs/caching.md)
    cache_ttl_s: float
    #: with whom it is shared, which may have templates; runs of the DAG unless given
    cache_key: str
    #: of what it does; of a function its source unless given
    cache_version: str
    #: tasks of other windows, partitions and instances are not equal; of a function so if it takes the context
    cache_window: bool
    #: what becomes of a large value that it returns (docs/data.md)
    durability: Durability


class WaitOptions(TypedDict, total=False):
    """Options of a task that waits: it is not tried again by itself, and its limit is among its own arguments."""

    priority: int
    trigger_rule: TriggerRule
    branch: bool


class NamedTaskOptions(TaskOptions, total=False):
    """Options of a task function."""

    #: id of the task in its DAGs; the function's name unless given
    name: str


class CalendarOption(TypedDict, total=False):
    """On which dates a schedule fires, beside its cron expression."""

    exclude: Iterable[date | str]
    include: Iterable[date | str]
    #: `mon` … `sun`
    weekdays: Iterable[str]


class DagOptions(TypedDict, total=False):
    """Options of a DAG; section 1 of the dags contract gives bounds and defaults."""

    #: the function's name unless given
    dag_id: str
    owner: str
    schedule: str | None
    timezone: str
    catchup: Catchup
    overlap: Overlap
    calendar: CalendarOption
    #: aware, or text as in JSON
    start_at: datetime | str | None
    end_at: datetime | str | None
    jitter_s: float
    #: what a backfill without dates is over: values, or lists of them by name whose product it is
    partitions: list[str] | dict[str, list[str]]
    max_active_runs: int
    weight: int
    max_active_tasks: int | None
    #: DAGs whose success starts a run of this one: of all of them since the last such run, or of any
    after: Sequence[str]
    after_rule: AfterRule
    #: assets that start a run once all of them were updated since the last such run
    consumes: Sequence[str]
    #: name of events that start a run each
    on_event: str | None
    sla_s: int | None
    on_sla_miss: Iterable[SlaAction]
    run_timeout_s: float | None
    queue_timeout_s: float | None
    callback_url: str | None
    isolation: Isolation
    #: the first line of the function's docstring unless given
    description: str
    tags: Iterable[str]


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

    def __init__(self, task_id: str, draft: _Draft) -> None:
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
class _Draft:
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
        for one in earlier:
            self.needs[later.task_id][self._own(one)] = None

    def tear_down(self, teardown: Output, setups: Iterable[Output]) -> None:
        self.tasks[teardown.task_id].setdefault("teardown_of", []).extend(self._own(one) for one in setups)

    def compensate(self, compensation: Output, done: Output) -> None:
        told = self.tasks[compensation.task_id].setdefault("compensates", self._own(done))
        if told != done.task_id:
            raise Invalid(f"the {compensation!r} compensates {told!r} already; it cannot compensate two tasks")

    def bodies(self) -> list[dict[str, Any]]:
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
_draft: ContextVar[_Draft | None] = ContextVar("orchestrator_dag_draft", default=None)


class TaskFunction:
    """A function that is a task inside a DAG, and itself anywhere else."""

    def __init__(self, function: Function, options: NamedTaskOptions) -> None:
        if not inspect.isroutine(function):
            raise TypeError(f"@task is for functions, not for {function!r}")
        functools.update_wrapper(self, function)
        #: the function that was decorated
        self.function = function
        self.name = options.get("name", function.__name__)
        self._options = _as_written({key: value for key, value in options.items() if key != "name"})
        if "limits" in options:
            self._options["limits"] = list(options["limits"])

    def __repr__(self) -> str:
        return f"task {self.name!r}"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        draft = _draft.get()
        if draft is None:
            return self.function(*args, **kwargs)
        return draft.add(self.name, self._body(), self._by_name(args, kwargs))

    def _body(self) -> dict[str, Any]:
        cached = _by_source(self.function) if "cache_ttl_s" in self._options else {}
        return {"entrypoint": _entrypoint(self.function), **cached, **self._options}

    def partial(self, **constant: Any) -> MappedTask:
        """The arguments that all instances of a mapped task have in common; `expand` follows."""
        return MappedTask(self, constant)

    def expand(self, **arguments: Any) -> Any:
        """The task, once for each element of one argument: a list, the output of a task or a param of the DAG.

        Other arguments are the same for all. The value is the list of what the instances return, in the list's order.
        Outside a DAG the function is called for each.
        """
        return MappedTask(self, {}).expand(**arguments)

    def _mapped(self, constant: Mapping[str, Any], name: str, source: Any) -> Any:
        draft = _draft.get()
        if draft is None:
            return [self.function(**constant, **{name: element}) for element in source]
        given = self._by_name((), {**constant, name: None})
        del given[name]
        return draft.add(self.name, self._body(), given, {name: source})

    def _by_name(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        try:
            given = self._takes.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise Invalid(f"{self!r}: {error}") from None
        for one in self._takes.parameters.values():
            if one.kind is inspect.Parameter.VAR_KEYWORD:
                given.update(given.pop(one.name, {}))
        return given

    @functools.cached_property
    def _takes(self) -> inspect.Signature:
        """What callers give: all but the context."""
        has = signature(self.function) or inspect.signature(lambda **_: None)
        return has.replace(parameters=[one for one in has.parameters.values() if one.name != CONTEXT])


class MappedTask:
    """A task function with the arguments that are the same for all its instances."""

    def __init__(self, function: TaskFunction, constant: Mapping[str, Any]) -> None:
        self._function = function
        self._constant = constant

    def partial(self, **constant: Any) -> MappedTask:
        """More of them."""
        return MappedTask(self._function, {**self._constant, **constant})

    def expand(self, **arguments: Any) -> Any:
        """As `TaskFunction.expand`."""
        arguments = {name: value_of(value) for name, value in arguments.items()}
        lists = [name for name, value in arguments.items() if isinstance(value, Output | Param | list | tuple)]
        if len(lists) != 1:
            named = ", ".join(map(repr, lists)) or "none"
            raise Invalid(
                f"{self._function!r}: expand takes one list, or output or param that will be one, not {named}; "
                "what is the same for all instances goes into partial(), and a product of lists is made by a task"
            )
        constant = {**self._constant, **{name: value for name, value in arguments.items() if name not in lists}}
        return self._function._mapped(constant, lists[0], arguments[lists[0]])


class _Task:
    """`task`: decorates functions, and makes the tasks that need none."""

    @overload
    def __call__(self, function: Function, /) -> TaskFunction: ...

    @overload
    def __call__(self, **options: Unpack[NamedTaskOptions]) -> Callable[[Function], TaskFunction]: ...

    def __call__(self, *function: Function, **options: Unpack[NamedTaskOptions]) -> Any:
        """A task of the function, with `options`."""
        _known(options, NamedTaskOptions)
        decorated = functools.partial(TaskFunction, options=options)
        return decorated(*function) if function else decorated

    @overload
    def branch(self, function: Function, /) -> TaskFunction: ...

    @overload
    def branch(self, **options: Unpack[NamedTaskOptions]) -> Callable[[Function], TaskFunction]: ...

    def branch(self, *function: Function, **options: Unpack[NamedTaskOptions]) -> Any:
        """A task of the function that returns the id of the dependent that goes on, a list of ids, or None for none."""
        options["branch"] = True
        return self(*function, **options)

    def bash(
        self, name: str, command: str, *, env: Mapping[str, Any] | None = None, **options: Unpack[TaskOptions]
    ) -> Output:
        """A task that runs a shell line. What it needs from params and outputs comes to it through `env`."""
        _known(options, TaskOptions)
        arguments = {"command": command} | ({"env": dict(env)} if env else {})
        return _drafted("bash").add(name, {"type": "bash", **_as_written(options)}, arguments)

    def http(
        self,
        name: str,
        url: Any,
        *,
        method: str = "GET",
        headers: Mapping[str, Any] | None = None,
        body: Any = None,
        **options: Unpack[TaskOptions],
    ) -> Output:
        """A task that makes one HTTP request; its value is the response's JSON, or its text."""
        _known(options, TaskOptions)
        arguments = {"url": url, "method": method} | ({"headers": dict(headers)} if headers else {})
        if body is not None:
            arguments["body"] = body
        return _drafted("http").add(name, {"type": "http", **_as_written(options)}, arguments)

    def wait(
        self,
        name: str,
        *,
        until: Any = None,
        seconds: Any = None,
        **options: Unpack[WaitOptions],
    ) -> Output:
        """A task that waits, without a worker, until an instant (aware, or text) or for so long."""
        _known(options, WaitOptions)
        instant = _instant(until, "until") if isinstance(until, datetime) else until
        return _drafted("wait").add(name, {"type": "core.wait", **options}, _told(until=instant, seconds=seconds))

    def signal(
        self,
        name: str,
        signal: Any = None,
        *,
        timeout_s: Any = None,
        on_timeout: Any = None,
        **options: Unpack[WaitOptions],
    ) -> Output:
        """A task that waits for a signal, of its own name unless another is given; its value is the signal's data."""
        _known(options, WaitOptions)
        wanted = name if signal is None else signal
        arguments = _told(name=wanted, timeout_s=timeout_s, on_timeout=on_timeout)
        return _drafted("signal").add(name, {"type": "core.signal", **options}, arguments)

    def approval(
        self,
        name: str,
        prompt: Any,
        *,
        choices: Sequence[str] | None = None,
        roles: Sequence[str] | None = None,
        quorum: Any = None,
        expires_s: Any = None,
        on_expiry: Any = None,
        branches: Mapping[str, Sequence[str]] | None = None,
        **options: Unpack[WaitOptions],
    ) -> Output:
        """A task that waits for people to choose. `branches` makes it a branch: choice -> ids of those that go on."""
        _known(options, WaitOptions)
        ways = None if branches is None else {choice: [*names] for choice, names in branches.items()}
        if ways is not None:
            options["branch"] = True
        arguments = _told(
            prompt=prompt,
            choices=None if choices is None else [*choices],
            roles=None if roles is None else [*roles],
            quorum=quorum,
            expires_s=expires_s,
            on_expiry=on_expiry,
            branches=ways,
        )
        return _drafted("approval").add(name, {"type": "core.approval", **options}, arguments)

    def dag(
        self,
        name: str,
        dag: Any,
        *,
        params: Mapping[str, Any] | None = None,
        window: Any = "caller",
        timeout_s: Any = None,
        **options: Unpack[WaitOptions],
    ) -> Output:
        """A task that runs another DAG and waits, without a worker; its value is what that run comes to.

        `dag` is a DAG or its id, `window` two dates or instants, or None; unless given it is the one of this run.
        """
        _known(options, WaitOptions)
        called = dag.dag_id if isinstance(dag, Dag) else dag
        arguments = _told(dag_id=called, params=None if params is None else dict(params), timeout_s=timeout_s)
        if window != "caller":
            arguments["window"] = None if window is None else dict(zip(("from", "to"), window, strict=True))
        return _drafted("dag").add(name, {"type": "core.dag", **options}, arguments)


def _told(**arguments: Any) -> dict[str, Any]:
    """Without what was not given."""
    return {name: value for name, value in arguments.items() if value is not None}


task = _Task()


class Dag:
    """A DAG that a function describes."""

    def __init__(self, function: Function, options: DagOptions) -> None:
        functools.update_wrapper(self, function)
        #: the function that was decorated
        self.function = function
        self.dag_id = options.get("dag_id", function.__name__)
        self._options = options

    def __repr__(self) -> str:
        return f"DAG {self.dag_id!r}"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Inside another DAG its tasks become a group of that one; anywhere else its task functions are just called."""
        return _called(self.dag_id, self.function, args, kwargs)

    def definition(self) -> Definition:
        """What the function describes. Raises Invalid."""
        from orchestrator.spec import parse_dag

        told = dict(self._options)
        for key in ("tags", "after", "consumes"):
            if key in told:
                told[key] = list(cast(Iterable[str], told[key]))
        if calendar := self._options.get("calendar"):
            told["calendar"] = {name: [_day(each) for each in days] for name, days in calendar.items()}  # type: ignore[attr-defined]  # TypedDict.items loses them
        if "on_sla_miss" in told:
            told["on_sla_miss"] = list(self._options["on_sla_miss"])
        for name in ("start_at", "end_at"):
            if isinstance(at := told.get(name), datetime):
                told[name] = _instant(at, name)
        if summary := (inspect.getdoc(self.function) or "").partition("\n")[0]:
            told.setdefault("description", summary)
        defaults = {"dag_id": self.dag_id, "owner": DEFAULT_OWNER}
        return parse_dag({**defaults, **told, "tasks": self._tasks()})[0]

    def to_yaml(self) -> str:
        """The definition as the file that `from_yaml` reads."""
        import yaml

        from orchestrator.spec import to_json

        return yaml.safe_dump(to_json(self.definition()), sort_keys=False, allow_unicode=True)

    def _tasks(self) -> list[dict[str, Any]]:
        parameters = inspect.signature(self.function).parameters
        for one in parameters.values():
            if one.kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD:
                raise Invalid(f"{self!r}: parameter {one.name!r} must be an ordinary one")
        draft = _Draft(frozenset(parameters))
        token = _draft.set(draft)
        try:
            self.function(**{name: Param(one) for name, one in parameters.items()})
        finally:
            _draft.reset(token)
        return draft.bodies()


@overload
def dag(function: Function, /) -> Dag: ...


@overload
def dag(**options: Unpack[DagOptions]) -> Callable[[Function], Dag]: ...


def dag(*function: Function, **options: Unpack[DagOptions]) -> Any:
    """A DAG of the function, with `options`."""
    _known(options, DagOptions)
    decorated = functools.partial(Dag, options=options)
    return decorated(*function) if function else decorated


class GroupFunction:
    """A function whose tasks are a group of the DAG that calls it, and itself anywhere else."""

    def __init__(self, function: Function, name: str | None) -> None:
        functools.update_wrapper(self, function)
        #: the function that was decorated
        self.function = function
        self.name = name or function.__name__

    def __repr__(self) -> str:
        return f"group {self.name!r}"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _called(self.name, self.function, args, kwargs)


@overload
def group(function: Function, /) -> GroupFunction: ...


@overload
def group(*, name: str | None = None) -> Callable[[Function], GroupFunction]: ...


def group(*function: Function, name: str | None = None) -> Any:
    """A group of tasks, of the function's name unless another is given."""
    decorated = functools.partial(GroupFunction, name=name)
    return decorated(*function) if function else decorated


def _called(name: str, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    draft = _draft.get()
    return function(*args, **kwargs) if draft is None else draft.call(name, function, args, kwargs)


def dags_in(module: ModuleType) -> list[Dag]:
    """The DAGs among the attributes of `module`, each once, in the order in which they were bound."""
    found = {id(value): value for value in vars(module).values() if isinstance(value, Dag)}
    return list(found.values())


def _drafted(kind: str) -> _Draft:
    draft = _draft.get()
    if draft is None:
        raise Invalid(f"task.{kind} belongs inside a @dag function")
    return draft


def _entrypoint(function: Function) -> str:
    """Where a worker finds `function`: an attribute of a module that it can import."""
    name = function.__qualname__
    if not name.isidentifier():
        raise Invalid(f"task {name!r} must be a function at the top level of a module, so that workers can import it")
    return f"{_importable(function.__module__)}:{name}"


def _importable(module: str) -> str:
    """The name others import a module by that runs as a script here."""
    if module != "__main__":
        return module
    main = sys.modules["__main__"]
    if spec := getattr(main, "__spec__", None):
        return str(spec.name)
    return PurePath(getattr(main, "__file__", None) or module).stem


def _as_written(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as they stand in JSON: classes by their names, lists as lists."""
    told = dict(options)
    for key in ("retry_on", "no_retry_on"):
        if key in told:
            told[key] = _named(told[key])
    if "retry_policies" in told:
        told["retry_policies"] = [
            {**policy, "exceptions": _named(policy.get("exceptions", ()))} for policy in told["retry_policies"]
        ]
    for key in ("retry_exit_codes", "on_sla_miss", "produces"):
        if key in told:
            told[key] = list(told[key])
    if "retry_statuses" in told:
        told["retry_statuses"] = [str(status) for status in told["retry_statuses"]]
    return told


def _by_source(function: Function) -> dict[str, Any]:
    """What makes a cached function another one, unless its author says so."""
    has = signature(function)
    told: dict[str, Any] = {"cache_window": has is not None and CONTEXT in has.parameters}
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError):  # written at a prompt, or not in Python
        return told
    return told | {"cache_version": "src-" + hashlib.sha256(source.encode()).hexdigest()[:16]}


def _named(kinds: Iterable[type[BaseException] | str]) -> list[str]:
    return [kind if isinstance(kind, str) else name_of(kind, _importable(kind.__module__)) for kind in kinds]


def _day(day: date | str) -> str:
    return day.isoformat() if isinstance(day, date) else day


def _instant(at: datetime, name: str) -> str:
    from orchestrator.dates import instant_text

    if at.tzinfo is None:
        raise Invalid(f"{name}: give the time zone of {at}", ((name, "has no time zone"),))
    return instant_text(at)


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


def _known(options: Mapping[str, Any], kind: Any) -> None:
    """Type checkers know the options; this tells everyone else."""
    for name in options:
        if name not in kind.__optional_keys__:
            raise TypeError(f"unknown option {name!r}; there are {', '.join(sorted(kind.__optional_keys__))}")
