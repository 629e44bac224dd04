"""`task`: functions that are tasks inside a DAG and themselves anywhere else, and tasks that need no function.

    @task(retries=2)                          task.bash("pack", "tar …")      task.wait("night", until=…)
    def double(n: int) -> int: ...            double.expand(n=numbers())      task.dag("other", dag=…)

Inside a `@dag` function a call adds a node to its draft (`draft.py`); the options are in `authoring_options.py`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Unpack, overload

from orchestrator.authoring import Dag
from orchestrator.authoring_options import (
    Function,
    NamedTaskOptions,
    TaskOptions,
    WaitOptions,
    as_written,
    by_source,
    check_known,
    importable,
    written_instant,
)
from orchestrator.binding import CONTEXT, signature
from orchestrator.draft import Draft, Output, Param, drafting
from orchestrator.errors import Invalid
from orchestrator.grouping import value_of


class TaskFunction:
    """A function that is a task inside a DAG, and itself anywhere else."""

    def __init__(self, function: Function, options: NamedTaskOptions) -> None:
        if not inspect.isroutine(function):
            raise TypeError(f"@task is for functions, not for {function!r}")
        functools.update_wrapper(self, function)
        #: the function that was decorated
        self.function = function
        self.name = options.get("name", function.__name__)
        self._options = as_written({key: value for key, value in options.items() if key != "name"})
        if "limits" in options:
            self._options["limits"] = list(options["limits"])

    def __repr__(self) -> str:
        return f"task {self.name!r}"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        draft = drafting.get()
        if draft is None:
            return self.function(*args, **kwargs)
        return draft.add(self.name, self._body(), self._by_name(args, kwargs))

    def _body(self) -> dict[str, Any]:
        cached = by_source(self.function) if "cache_ttl_s" in self._options else {}
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
        draft = drafting.get()
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
        check_known(options, NamedTaskOptions)
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
        check_known(options, TaskOptions)
        arguments = {"command": command} | ({"env": dict(env)} if env else {})
        return _drafted("bash").add(name, {"type": "bash", **as_written(options)}, arguments)

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
        check_known(options, TaskOptions)
        arguments = {"url": url, "method": method} | ({"headers": dict(headers)} if headers else {})
        if body is not None:
            arguments["body"] = body
        return _drafted("http").add(name, {"type": "http", **as_written(options)}, arguments)

    def wait(
        self,
        name: str,
        *,
        until: Any = None,
        seconds: Any = None,
        **options: Unpack[WaitOptions],
    ) -> Output:
        """A task that waits, without a worker, until an instant (aware, or text) or for so long."""
        check_known(options, WaitOptions)
        instant = written_instant(until, "until") if isinstance(until, datetime) else until
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
        check_known(options, WaitOptions)
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
        check_known(options, WaitOptions)
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
        check_known(options, WaitOptions)
        called = dag.dag_id if isinstance(dag, Dag) else dag
        arguments = _told(dag_id=called, params=None if params is None else dict(params), timeout_s=timeout_s)
        if window != "caller":
            arguments["window"] = None if window is None else dict(zip(("from", "to"), window, strict=True))
        return _drafted("dag").add(name, {"type": "core.dag", **options}, arguments)


def _told(**arguments: Any) -> dict[str, Any]:
    """Without what was not given."""
    return {name: value for name, value in arguments.items() if value is not None}


task = _Task()


def _drafted(kind: str) -> Draft:
    draft = drafting.get()
    if draft is None:
        raise Invalid(f"task.{kind} belongs inside a @dag function")
    return draft


def _entrypoint(function: Function) -> str:
    """Where a worker finds `function`: an attribute of a module that it can import."""
    name = function.__qualname__
    if not name.isidentifier():
        raise Invalid(f"task {name!r} must be a function at the top level of a module, so that workers can import it")
    return f"{importable(function.__module__)}:{name}"
