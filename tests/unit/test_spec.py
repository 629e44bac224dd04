"""What a body may say, what it means, and how it is refused."""

from __future__ import annotations

import pytest

from orchestrator.definition import Calendar, Definition, TaskSpec, content_hash
from orchestrator.spec import parse_dag
from tests.spec_bodies import Body, a_task, dag, fields, parsed, refused


def test_the_seeds_example_is_a_dag_without_tasks() -> None:
    definition, tasks_given = parse_dag({"dag_id": "sales_gdp", "schedule": "0 2 * * *", "owner": "team-data"})
    assert definition == Definition(dag_id="sales_gdp", owner="team-data", schedule="0 2 * * *")
    assert tasks_given is False


def test_an_empty_list_of_tasks_is_not_an_absent_one() -> None:
    definition, tasks_given = parse_dag(dag(tasks=[]))
    assert definition.tasks == ()
    assert tasks_given is True


def test_every_key_arrives() -> None:
    given_task = {
        "id": "b",
        "depends_on": ["a"],
        "type": "core.sleep",
        "params": {"seconds": 1.5},
        "retries": 3,
        "retry_delay_s": 1,
        "retry_cap_s": 60,
        "timeout_s": 30,
        "priority": 7,
    }
    definition = parsed(
        a_task(),
        given_task,
        schedule="@daily",
        timezone="Europe/Berlin",
        max_active_runs=3,
        sla_s=60,
        run_timeout_s=90,
        description="Ü",
        tags=["x"],
        isolation="dedicated",
        weight=3,
        unknown={"is": "ignored"},
    )
    second = TaskSpec(
        id="b",
        type="core.sleep",
        depends_on=("a",),
        params={"seconds": 1.5},
        retries=3,
        retry_delay_s=1.0,
        retry_cap_s=60.0,
        timeout_s=30.0,
        priority=7,
    )
    assert definition == Definition(
        dag_id="d",
        owner="o",
        schedule="@daily",
        timezone="Europe/Berlin",
        tasks=(TaskSpec("a"), second),
        max_active_runs=3,
        sla_s=60,
        run_timeout_s=90.0,
        description="Ü",
        tags=("x",),
        isolation="dedicated",
        weight=3,
    )


def test_an_entrypoint_makes_a_python_task() -> None:
    (task,) = parsed(a_task(entrypoint="pack.age:function")).tasks
    assert (task.type, task.entrypoint) == ("python", "pack.age:function")


def test_producers_of_inputs_become_dependencies() -> None:
    task = parsed(a_task(depends_on=["c"], inputs={"x": "b", "y": "c"}), {"id": "b"}, {"id": "c"}).tasks[0]
    assert task.depends_on == ("c", "b")
    assert task.inputs == {"x": "b", "y": "c"}


def test_rules_branches_and_teardowns_arrive() -> None:
    up, work, down = parsed(
        {"id": "up"},
        {"id": "work", "depends_on": ["up"], "trigger_rule": "one_success", "branch": True},
        {"id": "down", "depends_on": ["work"], "teardown_of": ["up"], "on_failure_fail_run": True},
    ).tasks
    assert up == TaskSpec("up")
    assert work == TaskSpec("work", depends_on=("up",), trigger_rule="one_success", branch=True)
    assert (down.depends_on, down.teardown_of, down.on_failure_fail_run) == (("work", "up"), ("up",), True)


@pytest.mark.parametrize(
    ("tasks", "field"),
    [
        ([{"id": "a", "trigger_rule": "some"}], "tasks/0/trigger_rule"),
        ([{"id": "a", "branch": "yes"}], "tasks/0/branch"),
        ([{"id": "a", "teardown_of": ["x"]}], "tasks/0/teardown_of/0"),
        ([{"id": "a", "teardown_of": ["a"]}], "tasks/0/teardown_of/0"),
        ([{"id": "a", "on_failure_fail_run": True}], "tasks/0/on_failure_fail_run"),
        ([{"id": "a"}, {"id": "b", "teardown_of": ["a"], "trigger_rule": "all_done"}], "tasks/1/trigger_rule"),
        ([{"id": "a"}, {"id": "b", "teardown_of": ["a"], "branch": True}], "tasks/1/branch"),
        ([{"id": "a", "branch": True}, {"id": "b", "teardown_of": ["a"]}], "tasks/1/teardown_of/0"),
        ([{"id": "a"}, {"id": "b", "teardown_of": ["a"]}, {"id": "c", "teardown_of": ["b"]}], "tasks/2/teardown_of/0"),
        ([{"id": "a"}, {"id": "b", "teardown_of": ["a"]}, {"id": "c", "depends_on": ["b"]}], "tasks/2/depends_on"),
        ([{"id": "a"}, *({"id": f"b{n}", "teardown_of": ["a"]} for n in range(101))], "tasks"),
    ],
)
def test_what_a_teardown_or_a_branch_cannot_be_is_refused(tasks: list[Body], field: str) -> None:
    assert fields(dag(*tasks)) == [field]


def test_who_uses_no_rules_has_the_same_hash_as_before_there_were_any() -> None:
    assert content_hash(parsed(a_task())) == "ae3bf4ef7cbc030ea4340cca505541f5660a44d9168bcddd23ca02b51177c48c"
    assert content_hash(parsed(a_task(trigger_rule="all_success", branch=False, teardown_of=[]))) == content_hash(
        parsed(a_task())
    )
    assert content_hash(parsed(a_task(trigger_rule="all_done"))) != content_hash(parsed(a_task()))


def test_equal_meanings_hash_equally() -> None:
    said = parsed(a_task(retry_delay_s=5, retries=0, type="core.noop", depends_on=[]), timezone="UTC", overlap="allow")
    assert content_hash(said) == content_hash(parsed(a_task()))
    assert content_hash(parsed(a_task(timeout_s=3600))) == content_hash(parsed(a_task()))


@pytest.mark.parametrize(
    ("body", "field", "problem"),
    [
        ({"owner": "o"}, "dag_id", "is required"),
        ({"dag_id": "d"}, "owner", "is required"),
        (dag(owner=""), "owner", "must have at least 1 character"),
        (dag(owner="o" * 201), "owner", "must have at most 200 characters"),
        (dag(owner=5), "owner", "must be a valid string"),
        (dag(dag_id="a b"), "dag_id", "must match ^[A-Za-z0-9_.-]{1,250}$"),
        (dag(dag_id="a\n"), "dag_id", "must match ^[A-Za-z0-9_.-]{1,250}$"),
        (dag(tasks=None), "tasks", "must be a valid list"),
        (dag(tasks={"id": "a"}), "tasks", "must be a valid list"),
        (dag(max_active_runs=True), "max_active_runs", "must be a valid integer"),
        (dag(max_active_runs=0), "max_active_runs", "must be greater than or equal to 1"),
        (dag(max_active_runs=1001), "max_active_runs", "must be less than or equal to 1000"),
        (dag(sla_s=0), "sla_s", "must be greater than 0"),
        (dag(sla_s=10**12), "sla_s", "must be less than or equal to 316224000"),
        (dag(overlap="never"), "overlap", "must be 'allow', 'skip', 'buffer_one' or 'cancel_previous'"),
        (dag(isolation="x"), "isolation", "must be 'shared' or 'dedicated'"),
        (dag(tags=[""]), "tags/0", "must have at least 1 character"),
        (dag({"depends_on": []}), "tasks/0/id", "is required"),
        (dag({"id": ".a"}), "tasks/0/id", "must match ^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$"),
        (dag({"id": "a" * 64}), "tasks/0/id", "must match ^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$"),
        (dag(a_task(retries=21)), "tasks/0/retries", "must be less than or equal to 20"),
        (dag(a_task(retries="3")), "tasks/0/retries", "must be a valid integer"),
        (dag(a_task(retry_delay_s=-1)), "tasks/0/retry_delay_s", "must be greater than or equal to 0"),
        (dag(a_task(timeout_s=0.5)), "tasks/0/timeout_s", "must be greater than or equal to 1"),
        (dag(a_task(timeout_s=True)), "tasks/0/timeout_s", "must be a valid number"),
        (dag(a_task(), weight=0), "weight", "must be greater than or equal to 1"),
        (dag(a_task(priority=101)), "tasks/0/priority", "must be less than or equal to 100"),
        (dag(a_task(params=[])), "tasks/0/params", "must be a valid dictionary"),
        (dag(a_task(type="core.noop", entrypoint="a:b")), "tasks/0", "give type or entrypoint, not both"),
        (dag(a_task(type="core.magic")), "tasks/0/type", None),
        (dag(a_task(type="python")), "tasks/0/type", "give entrypoint ('module:function') instead of type 'python'"),
        (dag(a_task(depends_on=["zz"])), "tasks/0/depends_on/0", "unknown task 'zz'"),
        (dag(a_task(inputs={"x": "zz"})), "tasks/0/inputs/x", "unknown task 'zz'"),
        (dag(a_task(), a_task()), "tasks/1/id", "duplicate task 'a'"),
        (dag(schedule="61 * * * *"), "schedule", None),
        (dag(schedule="0 0 31 2 *"), "schedule", None),
        (dag(schedule=""), "schedule", None),
        (dag(timezone="Mars/Olympus"), "timezone", "not an IANA time zone"),
        (dag(schedule="@daily", timezone="../etc"), "timezone", "not an IANA time zone"),
        (dag({"id": "b"}, a_task(params={"y": [1]}, inputs={"y/1": "b"})), "tasks/1/inputs/y/1", None),
        (dag({"id": "b"}, a_task(params={"y": 1}, inputs={"y/z": "b"})), "tasks/1/inputs/y/z", None),
        (dag({"id": "b"}, a_task(inputs={"y/z": "b", "y": "b"})), "tasks/1/inputs/y/z", None),
        (dag({"id": "b"}, a_task(inputs={"/".join("y" * 100): "b"})), "tasks/1/inputs/" + "/".join("y" * 100), None),
    ],
)
def test_a_bad_field_is_named_with_what_it_must_be(body: Body, field: str, problem: str | None) -> None:
    error = refused(body)
    assert [where for where, _ in error.details] == [field]
    if problem is not None:
        assert error.details[0][1] == problem


def test_a_body_must_be_an_object() -> None:
    bodies: list[object] = [None, [], "x", 1, True]
    for body in bodies:
        assert str(refused(body)) == "a DAG must be a JSON object"


def test_all_bad_fields_are_named_at_once() -> None:
    assert fields({"dag_id": "a b", "tasks": [{"id": "", "retries": -1}]}) == [
        "dag_id",
        "owner",
        "tasks/0/id",
        "tasks/0/retries",
    ]


@pytest.mark.parametrize("entrypoint", ["os.system", "a:b.c", "a:b()", ":f", "a:", "a/b:c", "a:b\n", "a b:c", "..a:b"])
def test_an_entrypoint_is_a_module_and_one_name_in_it(entrypoint: str) -> None:
    assert fields(dag(a_task(entrypoint=entrypoint))) == ["tasks/0/entrypoint"]


def test_a_cycle_is_told_as_the_contract_shows() -> None:
    error = refused(dag({"id": "extract", "depends_on": ["load"]}, {"id": "load", "depends_on": ["extract"]}))
    assert str(error) == "dependency cycle: extract -> load -> extract"
    assert error.details == (("tasks", "cycle"),)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (dag(a_task(on_sla_miss=["mark", "webhook"], sla_s=1)), "tasks/0/on_sla_miss"),
        (dag(a_task(on_sla_miss=["cancel"])), "tasks/0/on_sla_miss"),
        (dag(on_sla_miss=["cancel"]), "on_sla_miss"),
        (dag(on_sla_miss=[], sla_s=1), "on_sla_miss"),
        (dag(on_sla_miss=["page"], sla_s=1), "on_sla_miss/0"),
        (dag(callback_url="ftp://example.org"), "callback_url"),
        (dag(callback_url="https://user:secret@example.org"), "callback_url"),
        (dag(queue_timeout_s=0), "queue_timeout_s"),
        (dag(a_task(queue_timeout_s=-1)), "tasks/0/queue_timeout_s"),
        (dag(a_task(heartbeat_timeout_s=0.01)), "tasks/0/heartbeat_timeout_s"),
        (dag(a_task(retry_on=["no class"], retries=1)), "tasks/0/retry_on/0"),
        (dag(a_task(retry_on=["OSError"])), "tasks/0/retry_on"),
        (dag(a_task(retry_on=["OSError"], no_retry_on=["OSError"], retries=1)), "tasks/0/no_retry_on"),
        (dag(a_task(retry_policies=[{"exceptions": []}], retries=1)), "tasks/0/retry_policies/0/exceptions"),
        (dag(a_task(retry_exit_codes=[1], retries=1)), "tasks/0/retry_exit_codes"),
        (dag(a_task(retry_statuses=["503"], retries=1)), "tasks/0/retry_statuses"),
        (dag(a_task(retry_statuses=["5x"], retries=1)), "tasks/0/retry_statuses/0"),
    ],
)
def test_deadlines_and_retries_that_mean_nothing_are_refused(body: Body, field: str) -> None:
    assert fields(body) == [field]


def test_what_is_the_default_anyway_does_not_change_the_hash() -> None:
    said = parsed(a_task(on_sla_miss=["mark"], retry_on=[], retry_policies=[]), on_sla_miss=["mark"], callback_url=None)
    assert content_hash(said) == content_hash(parsed(a_task()))


def test_the_neutral_values_of_what_comes_later_are_accepted() -> None:
    neutral = parsed(a_task(sla_s=None, pool="default"), overlap="allow", catchup="none", callback_url=None, sla_s=5)
    assert neutral.sla_s == 5


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"calendar": {"exclude": ["2026-02-30"]}}, "calendar/exclude/0"),
        ({"calendar": {"include": ["2026-01-01", "soon"]}}, "calendar/include/1"),
        ({"calendar": {"exclude": ["2026-01-01"], "include": ["2026-01-01"]}}, "calendar/include"),
        ({"calendar": {"weekdays": []}}, "calendar/weekdays"),
        ({"calendar": {"weekdays": ["monday"]}}, "calendar/weekdays/0"),
        ({"calendar": {"weekday": ["mon"]}}, "calendar/weekday"),
        ({"calendar": {"weekdays": ["tue"]}, "schedule": "0 0 * * MON"}, "calendar/weekdays"),
        ({"start_at": "2026-01-01"}, "start_at"),
        ({"end_at": "2026-01-01T00:00:00+01:00"}, "end_at"),
        ({"start_at": "2026-01-02T00:00:00Z", "end_at": "2026-01-01T00:00:00Z"}, "end_at"),
        ({"jitter_s": -1}, "jitter_s"),
        ({"jitter_s": 86_401}, "jitter_s"),
    ],
)
def test_what_a_schedule_cannot_mean_is_refused_about_its_field(more: Body, field: str) -> None:
    assert [where for where, _ in refused(dag(**{"schedule": "0 0 * * *", **more})).details] == [field]


def test_a_calendar_that_changes_nothing_is_none() -> None:
    assert parsed(schedule="0 0 * * *", calendar={}).calendar is None
    assert parsed(calendar={"weekdays": ["SUN"]}).calendar == Calendar(weekdays=("sun",))


@pytest.mark.parametrize(
    ("kind", "params", "field"),
    [
        ("core.sleep", {}, "seconds"),
        ("core.sleep", {"seconds": -1}, "seconds"),
        ("core.sleep", {"seconds": 3600.5}, "seconds"),
        ("core.sleep", {"seconds": True}, "seconds"),
        ("core.sleep", {"seconds": "1"}, "seconds"),
        ("core.fail", {"times": -1}, "times"),
        ("core.fail", {"times": 1.5}, "times"),
        ("core.fail", {"times": True}, "times"),
        ("core.fail", {"permanent": 1}, "permanent"),
        ("core.fail", {"message": 1}, "message"),
        ("bash", {}, "command"),
        ("bash", {"command": "  "}, "command"),
        ("bash", {"command": {"$param": "anything"}}, "command"),
        ("bash", {"command": "x", "env": {"A=B": "1"}}, "env"),
        ("http", {}, "url"),
        ("http", {"url": "ftp://example.org"}, "url"),
        ("http", {"url": "https://"}, "url"),
        ("http", {"url": "http://[::1"}, "url"),
        ("http", {"url": "http://h:99999/"}, "url"),
        ("http", {"url": "http://h", "method": "BREW"}, "method"),
        ("http", {"url": "http://h", "headers": []}, "headers"),
    ],
)
def test_static_params_of_known_types_are_checked(kind: str, params: Body, field: str) -> None:
    assert fields(dag(a_task(type=kind, params=params))) == [f"tasks/0/params/{field}"]


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        ("core.noop", {"any": "thing"}),
        ("core.echo", {"seconds": "free"}),
        ("core.sleep", {"seconds": 0}),
        ("core.sleep", {"seconds": 3600}),
        ("core.sleep", {"seconds": {"$param": "pause", "default": 1}}),
        ("core.fail", {}),
        ("core.fail", {"message": "m", "times": 2, "permanent": True}),
        ("bash", {"command": "echo {{ from }}", "env": {"A": {"$param": "a"}}}),
        ("http", {"url": "https://example.org:8443/{{ from }}", "method": "post", "headers": {"A": "b"}, "body": [1]}),
        ("http", {"url": {"$param": "url"}}),
        ("some.remote/type", {"its": "own"}),
    ],
)
def test_good_params_are_accepted(kind: str, params: Body) -> None:
    (task,) = parsed(a_task(type=kind, params=params)).tasks
    assert (task.type, task.params) == (kind, params)


def test_an_input_stands_for_a_required_param_but_never_for_a_command() -> None:
    producer = {"id": "p"}
    assert parsed(producer, a_task(type="core.sleep", inputs={"seconds": "p"})).tasks[1].inputs == {"seconds": "p"}
    bad = a_task(type="bash", params={"command": "ls"}, inputs={"command": "p"})
    assert fields(dag(producer, bad)) == ["tasks/1/params/command"]
