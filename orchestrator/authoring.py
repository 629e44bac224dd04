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

Here are `@dag` and `@group`; `@task` is in `task_functions.py`, what a call adds to in `draft.py`.

Workers import the module of a task, so importing this module is cheap and decorating builds nothing.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from datetime import datetime
from types import ModuleType
from typing import Any, Unpack, cast, overload

from orchestrator.authoring_options import DagOptions, Function, check_known, day_text, written_instant
from orchestrator.definition import Definition
from orchestrator.draft import Draft, Param, drafting
from orchestrator.errors import Invalid

DEFAULT_OWNER = "default"


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
            told["calendar"] = {name: [day_text(each) for each in days] for name, days in calendar.items()}  # type: ignore[attr-defined]  # TypedDict.items loses them
        if "on_sla_miss" in told:
            told["on_sla_miss"] = list(self._options["on_sla_miss"])
        for name in ("start_at", "end_at"):
            if isinstance(at := told.get(name), datetime):
                told[name] = written_instant(at, name)
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
        draft = Draft(frozenset(parameters))
        token = drafting.set(draft)
        try:
            self.function(**{name: Param(one) for name, one in parameters.items()})
        finally:
            drafting.reset(token)
        return draft.bodies()


@overload
def dag(function: Function, /) -> Dag: ...


@overload
def dag(**options: Unpack[DagOptions]) -> Callable[[Function], Dag]: ...


def dag(*function: Function, **options: Unpack[DagOptions]) -> Any:
    """A DAG of the function, with `options`."""
    check_known(options, DagOptions)
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
    draft = drafting.get()
    return function(*args, **kwargs) if draft is None else draft.call(name, function, args, kwargs)


def dags_in(module: ModuleType) -> list[Dag]:
    """The DAGs among the attributes of `module`, each once, in the order in which they were bound."""
    found = {id(value): value for value in vars(module).values() if isinstance(value, Dag)}
    return list(found.values())
