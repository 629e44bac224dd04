"""Decorated Python becomes the same definitions as JSON does."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

import orchestrator
from orchestrator import Dag, Invalid, TaskContext, context, dag, dags_in, task
from orchestrator.binding import arguments, facts
from orchestrator.definition import Definition, TaskSpec
from orchestrator.spec import from_yaml


@task(retries=2, retry_delay_s=1, timeout_s=30, priority=4)
def double(n: int) -> int:
    """Twice as much."""
    return 2 * n


@task
def scaled(n: int, by: int = 10) -> int:
    return n * by


@task
def total(parts: list[int], label: str = "sum") -> tuple[str, int]:
    return label, sum(parts)


@task(name="renamed")
async def later(x: int) -> int:
    return x + 1


@task
def told(ctx: TaskContext, day: str) -> str:
    return f"{ctx.run_id} {day}"


@task
def spread(first: int, *rest: int, **named: int) -> Any:
    return first, rest, named


@task
def nothing() -> None:
    """A point in the order."""


def described(function: Any, **options: Any) -> Definition:
    """The definition of a DAG of `function`."""
    return dag(dag_id="d", **options)(function).definition()


def tasks_of(function: Any, **options: Any) -> dict[str, TaskSpec]:
    return {spec.id: spec for spec in described(function, **options).tasks}


def run_inline(definition: Definition, **run_params: Any) -> dict[str, Any]:
    """The values of a DAG of Python tasks, the way a worker makes them."""
    told_facts = facts("run_1", definition.dag_id, ("2025-10-01", "2025-10-01"))
    values: dict[str, Any] = {}
    for spec in definition.tasks:
        module, _, name = str(spec.entrypoint).partition(":")
        function = getattr(importlib.import_module(module), name).function
        inputs = {where: values[producer] for where, producer in spec.inputs.items()}
        args, kwargs = arguments(function, spec.params, inputs, run_params, told_facts, Context())
        values[spec.id] = function(*args, **kwargs)
    return values


class Context:
    run_id = "run_1"


def test_a_task_function_outside_a_dag_is_the_function() -> None:
    assert double(4) == 8
    assert double.__doc__ == "Twice as much."
    assert double.function.__name__ == "double"
    assert inspect.iscoroutinefunction(later.function)
    assert list(inspect.signature(double).parameters) == ["n"]


@task.branch
def which(n: int) -> str:
    return "double" if n else "scaled"


@task.branch(name="other", retries=1)
def other_way() -> None: ...


def test_rules_branches_and_teardowns_are_written_with_the_tasks() -> None:
    def one() -> None:
        up = nothing()
        which(1) >> double(1)
        other_way()
        last = scaled(2)
        total([last]).teardown_of(up)

    made = tasks_of(one)
    assert (made["which"].branch, made["other"].branch, made["other"].retries) == (True, True, 1)
    assert made["double"].depends_on == ("which",)
    assert (made["total"].teardown_of, made["total"].depends_on) == (("nothing",), ("scaled", "nothing"))
    assert which(0) == "scaled"


def test_a_task_has_the_rule_that_its_author_gives_it() -> None:
    @task(trigger_rule="one_failed")
    def alarm() -> None: ...

    def one() -> None:
        task.bash("a", "true", trigger_rule="always")

    assert alarm._options == {"trigger_rule": "one_failed"}
    assert tasks_of(one)["a"].trigger_rule == "always"


def test_a_compensation_says_what_it_undoes_and_takes_its_value() -> None:
    def one() -> None:
        done = nothing()
        scaled(done).compensates(done)

    made = tasks_of(one)
    assert (made["scaled"].compensates, made["scaled"].depends_on) == ("nothing", ("nothing",))
    assert list(made["scaled"].inputs.values()) == ["nothing"]


def test_a_task_compensates_one_task_of_its_dag() -> None:
    def two() -> None:
        nothing().compensates(nothing()).compensates(nothing())

    def none() -> None:
        nothing().compensates("up")  # type: ignore[arg-type]  # as somebody might write it

    with pytest.raises(Invalid, match="compensates 'nothing_2' already"):
        described(two)
    with pytest.raises(Invalid, match="only tasks of this DAG"):
        described(none)


def test_only_tasks_of_the_same_dag_are_torn_down() -> None:
    def one() -> None:
        nothing().teardown_of("up")  # type: ignore[arg-type]  # as somebody might write it

    with pytest.raises(Invalid, match="only tasks of this DAG"):
        described(one)


def test_a_call_becomes_a_python_task_with_its_options_and_constants() -> None:
    def one() -> None:
        double(21)

    assert described(one).tasks == (
        TaskSpec(
            id="double",
            type="python",
            entrypoint=f"{__name__}:double",
            params={"n": 21},
            retries=2,
            retry_delay_s=1.0,
            timeout_s=30.0,
            priority=4,
        ),
    )


def test_an_entrypoint_leads_to_the_decorated_function() -> None:
    module, _, name = str(tasks_of(lambda: double(1))["double"].entrypoint).partition(":")
    assert getattr(importlib.import_module(module), name).function(3) == 6


def test_outputs_become_inputs_and_dependencies() -> None:
    def chain() -> None:
        scaled(double(1), by=double(2))

    scaled_task = tasks_of(chain)["scaled"]
    assert scaled_task.inputs == {"n": "double", "by": "double_2"}
    assert scaled_task.depends_on == ("double", "double_2")
    assert scaled_task.params == {}
    assert run_inline(described(chain))["scaled"] == 8


def test_outputs_within_lists_and_objects_keep_their_places() -> None:
    def fan_in() -> None:
        total([double(n) for n in range(3)] + [100])
        nested({"a": (double(5), 1), "k/~": {"deep": [double(6)]}})

    spec = tasks_of(fan_in)
    assert spec["total"].params == {"parts": [None, None, None, 100]}
    assert spec["total"].inputs == {"parts/0": "double", "parts/1": "double_2", "parts/2": "double_3"}
    values = run_inline(described(fan_in))
    assert values["total"] == ("sum", 106)
    assert values["nested"] == {"a": [10, 1], "k/~": {"deep": [12]}}


@task
def nested(tree: Any) -> Any:
    return tree


def test_one_output_may_go_to_many_places_and_is_one_dependency() -> None:
    def twice() -> None:
        a = double(1)
        total([a, a], label=a)

    assert tasks_of(twice)["total"].depends_on == ("double",)
    assert run_inline(described(twice))["total"] == (2, 4)


def test_positional_keyword_and_variadic_arguments_map_to_parameters() -> None:
    def calls() -> None:
        spread(1, double(1), 3, z=double(2), y=5)

    assert run_inline(described(calls))["spread"] == (1, (2, 3), {"z": 4, "y": 5})


def test_calls_of_one_task_get_unique_ids() -> None:
    def many() -> None:
        double(1)
        double(2)
        task.bash("double_3", "ls")
        double(3)
        later(1)
        later(1)

    assert list(tasks_of(many)) == ["double", "double_2", "double_3", "double_4", "renamed", "renamed_2"]


def test_arrows_and_after_are_order_only() -> None:
    def ordered() -> None:
        a, b, c = double(1), double(2), nothing()
        a >> c
        [a, b] >> nothing() >> [task.bash("x", "ls"), task.bash("y", "ls")]
        nothing().after(a, b).after(c)

    needs = {name: spec.depends_on for name, spec in tasks_of(ordered).items()}
    assert needs == {
        "double": (),
        "double_2": (),
        "nothing": ("double",),
        "nothing_2": ("double", "double_2"),
        "x": ("nothing_2",),
        "y": ("nothing_2",),
        "nothing_3": ("double", "double_2", "nothing"),
    }
    assert all(not spec.inputs for spec in tasks_of(ordered).values())


def test_an_order_that_bites_its_tail_is_a_cycle() -> None:
    def circle() -> None:
        a = double(1)
        b = scaled(a)
        b >> a

    with pytest.raises(Invalid, match="dependency cycle: double -> scaled -> double"):
        described(circle)


def test_parameters_of_the_dag_are_the_runs_params() -> None:
    def parametrised(count: int, day: str = "{{ from }}", many: tuple[int, ...] = (1, 2)) -> None:
        scaled(count)
        told(day=day)
        total([count, 1], label=day)
        nested({"many": many})

    spec = tasks_of(parametrised)
    assert spec["scaled"].params == {"n": {"$param": "count"}}
    assert spec["nested"].params == {"tree": {"many": {"$param": "many", "default": [1, 2]}}}
    values = run_inline(described(parametrised), count=4, many=[7])
    assert values == {
        "scaled": 40,
        "told": "run_1 2025-10-01",
        "total": ("2025-10-01", 5),
        "nested": {"many": [7]},
    }


def test_a_constant_is_not_replaced_by_a_param_of_the_dag_that_has_its_name() -> None:
    def same_name(n: int = 1, m: int = 2) -> None:
        double(n)
        double(5)
        double(m)
        scaled(double(6))

    assert run_inline(described(same_name), n=100) == {
        "double": 200,
        "double_2": 10,
        "double_3": 4,
        "double_4": 12,
        "scaled": 120,
    }


def test_the_context_is_no_argument_of_the_author() -> None:
    def contextual() -> None:
        told("2025-10-01")

    assert tasks_of(contextual)["told"].params == {"day": "2025-10-01"}
    assert run_inline(described(contextual))["told"] == "run_1 2025-10-01"


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda: double(), "task 'double': missing a required argument: 'n'"),
        (lambda: double(1, 2), "task 'double': too many positional arguments"),
        (lambda: double(m=1), "task 'double'"),
        (lambda: told("x", ctx=1), "task 'told': got an unexpected keyword argument 'ctx'"),
        (lambda: double(object()), "tasks/0/params/n: is not JSON but a object"),
        (lambda: double(float("nan")), "tasks/0/params/n: must be a finite number"),
        (lambda: double({"$param": "x"}), "the key '\\$param' has a meaning of its own"),
        (lambda: nothing().after(3), "only tasks of this DAG"),
        (lambda: task(lambda: 1)(), "top level of a module"),
        (lambda: task.bash("no good id", "ls"), "tasks/0/id: must match"),
        (lambda: task.bash("x", " "), "tasks/0/params/command: must be a shell command"),
        (lambda: task.http("x", "ftp://h"), "tasks/0/params/url: must be an http or https URL"),
        (lambda: task.bash("x", "ls", pool="no good"), "tasks/0/pool: must match"),
        (lambda: task.bash("x", "ls", limits=["{{ run.id }}"]), "tasks/0/limits/0: placeholders are"),
    ],
)
def test_a_mistake_is_told_when_the_dag_is_defined(mistake: Any, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        described(mistake)


@pytest.mark.parametrize(
    "use",
    [bool, list, str, lambda value: f"{value}", lambda value: value == 1, lambda value: value != 1, lambda v: v + 1],
)
def test_a_value_of_the_run_cannot_be_used_while_the_dag_is_defined(use: Any) -> None:
    def of_output() -> None:
        use(double(1))

    def of_param(n: int = 1) -> None:
        use(n)

    for function in (of_output, of_param):
        with pytest.raises(TypeError):
            described(function)


def test_an_output_of_another_dag_is_refused() -> None:
    kept: list[Any] = []
    described(lambda: kept.append(double(1)))
    with pytest.raises(Invalid, match="belongs to another DAG"):
        described(lambda: double(kept[0]))
    with pytest.raises(Invalid, match="belongs to another DAG"):
        described(lambda: kept[0] >> double(1))


def test_a_failed_definition_leaves_no_trace() -> None:
    def broken() -> None:
        double(1)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        described(broken)
    assert double(2) == 4


def test_bash_and_http_take_outputs_and_params() -> None:
    def shell(day: str = "x") -> None:
        task.bash("load", "load.sh {{ from }}", env={"DAY": day, "N": double(1)}, retries=3)
        task.http("tell", "https://example.org/x", method="POST", headers={"A": "b"}, body={"n": double(2)})

    spec = tasks_of(shell)
    assert spec["load"].type == "bash"
    assert spec["load"].retries == 3
    assert spec["load"].params == {
        "command": "load.sh {{ from }}",
        "env": {"DAY": {"$param": "day", "default": "x"}, "N": None},
    }
    assert spec["load"].inputs == {"env/N": "double"}
    assert spec["tell"].params == {
        "url": "https://example.org/x",
        "method": "POST",
        "headers": {"A": "b"},
        "body": {"n": None},
    }
    assert spec["tell"].inputs == {"body/n": "double_2"}


def test_bash_and_http_belong_inside_a_dag() -> None:
    with pytest.raises(Invalid, match="belongs inside a @dag function"):
        task.bash("x", "ls")


@dag(schedule="0 6 * * *", timezone="Europe/Berlin", owner="data", max_active_runs=2, sla_s=60, tags=("a", "b"))
def doubling(n: int = 2) -> None:
    """Doubles.

    And more.
    """
    total([double(n), double(5)])


@dag
def plainly() -> None:
    nothing()


def test_options_of_a_dag_arrive() -> None:
    definition = doubling.definition()
    assert (definition.dag_id, definition.owner, definition.schedule) == ("doubling", "data", "0 6 * * *")
    assert (definition.timezone, definition.max_active_runs, definition.sla_s) == ("Europe/Berlin", 2, 60)
    assert (definition.description, definition.tags) == ("Doubles.", ("a", "b"))
    assert plainly.definition() == Definition(dag_id="plainly", owner="default", tasks=plainly.definition().tasks)


def test_defining_twice_gives_equal_definitions() -> None:
    assert doubling.definition() == doubling.definition()


def test_to_yaml_is_what_from_yaml_reads() -> None:
    assert from_yaml(doubling.to_yaml()) == doubling.definition()
    assert doubling.to_yaml().startswith("dag_id: doubling\nowner: data\n")


def test_calling_a_dag_just_calls_its_functions() -> None:
    @dag
    def inline(n: int) -> Any:
        return total([double(n), double(5)])

    assert inline(1) == ("sum", 12)


def test_a_dag_called_inside_another_becomes_a_group_of_it() -> None:
    def outer() -> None:
        doubling(7)
        nothing()

    assert run_inline(described(outer)) == {
        "doubling.double": 14,
        "doubling.double_2": 10,
        "doubling.total": ("sum", 24),
        "nothing": None,
    }


def test_parameters_of_a_dag_must_be_ordinary() -> None:
    def variadic(*days: str) -> None: ...

    with pytest.raises(Invalid, match="parameter 'days' must be an ordinary one"):
        described(variadic)


def test_dags_in_a_module_are_found_once_each() -> None:
    module = types.ModuleType("m")
    module.__dict__.update(a=doubling, b=plainly, again=doubling, task=double, n=1)
    found = dags_in(module)
    assert found == [doubling, plainly]
    assert all(isinstance(one, Dag) for one in found)


def test_a_thousand_calls_are_defined_at_once() -> None:
    def wide() -> None:
        total([double(n) for n in range(1000)])

    assert len(tasks_of(wide)["total"].depends_on) == 1000


def test_only_functions_are_tasks() -> None:
    with pytest.raises(TypeError, match="@task is for functions"):
        task(3)  # type: ignore[call-overload]  # the mistake


def test_the_current_context_is_known_only_inside_a_task() -> None:
    one: Any = Context()
    with pytest.raises(RuntimeError, match="no task is running here"):
        orchestrator.current()
    with context.using(one):
        assert orchestrator.current() is one
    with pytest.raises(RuntimeError):
        orchestrator.current()


def test_importing_the_package_is_light_and_task_is_the_decorator_whatever_is_imported_later() -> None:
    code = (
        "import sys, orchestrator\n"
        "heavy = {'pydantic', 'networkx', 'croniter', 'yaml', 'ray', 'asyncio', 'logging'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "import orchestrator.task, orchestrator.run\n"
        "from orchestrator.task import apply\n"
        "from orchestrator import task\n"
        "assert callable(task) and hasattr(task, 'bash')\n"
        "assert apply.__module__ == 'orchestrator.task'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_tasks_of_a_script_are_found_under_the_scripts_name(tmp_path: Path) -> None:
    script = tmp_path / "my_script.py"
    script.write_text(
        "from orchestrator import dag, task\n"
        "@task\ndef one(): ...\n"
        "@dag\ndef d():\n    one()\n"
        "print(d.definition().tasks[0].entrypoint)\n"
    )
    root = str(Path(orchestrator.__file__).parent.parent)
    command = [sys.executable, str(script)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={"PYTHONPATH": root})
    assert done.stdout == "my_script:one\n"
