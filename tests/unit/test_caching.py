"""When two tasks are equal, for how long a result holds, and which tasks may have one kept."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from orchestrator import caching, codec, run_commands, run_duties, spec
from orchestrator import events as e
from orchestrator.authoring import dag
from orchestrator.caching import BYTES_MAX, ENTRIES_MAX, Kept
from orchestrator.definition import TaskSpec, Window
from orchestrator.errors import Conflict, Invalid
from orchestrator.messages import Value
from orchestrator.narration import Narrator
from orchestrator.run_state import Run
from orchestrator.task import TaskState
from orchestrator.task_functions import task
from tests.builders import AT, Story, a_dag, a_task, a_value, created, versions

HOUR = 3600.0
SOURCE = e.CachedFrom("run_0", "a", 3, AT)


def cached(name: str = "a", *needs: str, **changes: Any) -> TaskSpec:
    return a_task(name, *needs, **({"type": "core.echo", "cache_ttl_s": HOUR} | changes))


def key(spec_: TaskSpec, values: Mapping[str, Value] | None = None, dag_id: str = "d", **of: Any) -> str | None:
    """The key of the last task of a run in which others returned `values`."""
    producers = [a_task(name) for name in values or {}]
    run = Run(created(dag_id=dag_id, **of), versions(a_dag(*producers, spec_)))
    run.values.update(enumerate((values or {}).values()))
    return caching.key_of(run, len(producers))


def kept(**changes: Any) -> Kept:
    times = {"started_at": AT - timedelta(seconds=5), "at": AT, "expires_at": AT + timedelta(seconds=HOUR)}
    return Kept(**({"value": a_value(1), "run_id": "run_0", "task": "a", "attempt": 1} | times | changes))


# -- equal tasks


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (cached("a"), cached("b")),
        (cached(params={"x": 1, "y": 2}), cached(params={"y": 2, "x": 1})),
        (cached(), cached(retries=3, timeout_s=9.0, priority=5, cache_ttl_s=9.0)),
        (cached(params={"x": {"$param": "n", "default": 1}}), cached(params={"x": 1})),
    ],
    ids=["id", "order", "policies", "default"],
)
def test_what_does_not_change_the_result_does_not_change_the_key(one: TaskSpec, other: TaskSpec) -> None:
    assert key(one) == key(other)


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "core.noop"},
        {"params": {"x": 2}},
        {"params": {"x": "1"}},
        {"cache_version": "2"},
        {"cache_key": "d"},
        {"inputs": {"x": "a"}},
    ],
    ids=str,
)
def test_what_changes_the_result_changes_the_key(changes: dict[str, Any]) -> None:
    values = {"a": a_value(1)}
    assert key(cached("z", params={"x": 1}), values) != key(cached("z", **({"params": {"x": 1}} | changes)), values)


def test_a_key_is_of_its_dag_unless_the_author_names_who_shares_it() -> None:
    assert key(cached()) != key(cached(), dag_id="other")
    shared = cached(cache_key="rates")
    assert key(shared) == key(shared, dag_id="other")
    assert (
        caching.kind_of("t", "d", "rates") == caching.kind_of("t", "other", "rates") != caching.kind_of("u", "d", "k")
    )


def test_params_of_the_run_count_as_the_task_gets_them() -> None:
    python = cached(type="python", entrypoint="m:f")
    assert key(python, params={"n": 1}) != key(python, params={"n": 2})
    bash = cached(type="bash", params={"command": "true"})
    assert key(bash, params={"n": 1}) == key(bash, params={"n": 2}), "nothing of a bash task is replaced"


def test_the_value_of_an_input_counts_and_not_where_it_was_computed() -> None:
    takes = cached("z", inputs={"x": "a"})
    assert key(takes, {"a": a_value({"p": 1, "q": 2})}) == key(takes, {"a": Value(msgspec.Raw(b'{"q":2, "p":1}'))})
    assert key(takes, {"a": a_value(1)}) != key(takes, {"a": a_value(2)})


def test_a_large_input_counts_by_its_artifact() -> None:
    takes = cached("z", inputs={"x": "a"})
    one, same, other = (Value(artifact=name, size_bytes=9) for name in ("r1/a.1", "r1/a.1", "r2/a.1"))
    assert key(takes, {"a": one}) == key(takes, {"a": same}) != key(takes, {"a": other})
    assert key(takes, {"a": one}) != key(takes, {"a": a_value(["artifact", "r1/a.1"])})


def test_the_window_counts_where_it_is_used() -> None:
    first, second = Window("2026-01-01", "2026-01-01"), Window("2026-01-02", "2026-01-02")
    for used in (cached(params={"day": "{{ from }}"}), cached(cache_key="{{ from }}"), cached(cache_window=True)):
        assert key(used, window=first) != key(used, window=second)
    assert key(cached(), window=first) == key(cached(), window=second)
    assert key(cached(params={"day": "{{ from }}"})) is None, "such a task fails by itself"
    assert key(cached(cache_key="{{ from }}")) is None


def test_a_secret_is_not_in_the_key() -> None:
    found = key(cached(params={"token": "s3cr3t-s3cr3t"}))
    assert found is not None
    assert (len(found), int(found, 16) >= 0) == (64, True)


# -- how long


def test_a_result_holds_until_its_time_is_over_or_who_looks_wants_it_younger() -> None:
    assert caching.holds(kept(), HOUR, (), AT + timedelta(seconds=HOUR - 1))
    assert not caching.holds(kept(), HOUR, (), AT + timedelta(seconds=HOUR))
    assert not caching.holds(kept(), 10.0, (), AT + timedelta(seconds=10))
    assert not caching.holds(kept(), 2 * HOUR, (), AT + timedelta(seconds=HOUR))


@pytest.mark.parametrize(("seconds", "counts"), [(-6, True), (-5, False), (-1, False), (1, False)])
def test_an_uncache_is_about_attempts_that_had_begun(seconds: float, counts: bool) -> None:
    mark = AT + timedelta(seconds=seconds)
    assert caching.holds(kept(), HOUR, (mark,), AT + timedelta(seconds=2)) == counts


def test_a_sweep_takes_what_has_expired_and_the_oldest_of_too_many() -> None:
    expired = {"gone": (kept(expires_at=AT), 10)}
    many = {str(n): (kept(at=AT + timedelta(seconds=n)), 10) for n in range(ENTRIES_MAX + 2)}
    assert set(caching.overdue(expired | many, AT)) == {"gone", "0", "1"}
    large = {str(n): (kept(at=AT + timedelta(seconds=n)), BYTES_MAX // 2) for n in range(3)}
    assert caching.overdue(large, AT) == ["0"]
    assert caching.overdue({}, AT) == []


# -- in a run


def test_a_known_result_ends_the_task_without_a_start_and_lets_dependents_go_on() -> None:
    story = Story(cached(), a_task("b", "a", inputs={"x": "a"})).start()
    assert story.ready == []
    assert run_duties.owed(story.run) == [run_duties.Dispatch(1)]
    [event] = story.do(run_commands.Recall("a", a_value(7), None, SOURCE))
    assert event == e.TaskSucceeded(AT, "a", 1, a_value(7), None, SOURCE)
    assert (story.state("a"), story.attempt("a"), story.ready) == (TaskState.SUCCEEDED, 1, ["b"])
    assert story.run.values == {0: a_value(7)}


def test_the_last_known_result_ends_the_run() -> None:
    story = Story(cached()).start()
    assert story.kinds(run_commands.Recall("a", a_value(7), None, SOURCE)) == ["task_succeeded", "run_succeeded"]


def test_a_result_is_refused_when_the_task_does_not_start_now() -> None:
    recall = run_commands.Recall("a", a_value(7), None, SOURCE)
    queued, paused, begun = Story(cached()), Story(cached()).start(), Story(cached()).start().begin("a")
    paused.do(run_commands.Pause())
    waits = Story(a_task("z"), cached("a", "z")).start()
    for story in (queued, paused, begun, waits, Story(cached()).start().ok("a")):
        version = story.run.version
        with pytest.raises(Conflict):
            story.do(recall)
        assert story.run.version == version


def test_a_task_that_was_reset_or_reprocessed_is_not_looked_up() -> None:
    story = Story(cached(), a_task("b", "a"), later=[a_dag(cached())]).start()
    story.do(run_commands.Recall("a", a_value(7), None, SOURCE))
    story.fail("b")
    story.do(run_commands.Restart(2))
    story.start()
    assert (story.run.lookups, story.ready) == (None, ["a"])


def test_a_task_that_was_tried_is_not_looked_up_when_its_run_is_read_again() -> None:
    story = Story(cached()).start().fail("a")
    story.do(run_commands.RetryTask("a"))
    story.run = story.replayed()
    assert story.run.lookups is not None
    assert (story.run.lookups.size, story.ready) == (0, ["a"])


def test_events_from_before_results_were_kept_are_read() -> None:
    old = b'[{"t":"task_succeeded","at":"2026-01-02T03:04:05Z","task":"a","attempt":1,"value":["1",null,1]}]'
    [event] = codec.decode_events(old)
    assert isinstance(event, e.TaskSucceeded)
    assert event.cached is None
    fresh = e.TaskSucceeded(AT, "a", 1, a_value(1), None, SOURCE)
    assert codec.decode_events(codec.encode_events([fresh])) == [fresh]


def test_a_stream_tells_that_the_result_was_cached_and_whose_it_is() -> None:
    narrator = Narrator("run_1")
    told = narrator.tell(e.TaskSucceeded(AT, "a", 1, a_value(7), None, SOURCE)).data or {}
    assert (told["from"], told["to"], told["cached"]) == ("pending", "succeeded", True)
    assert told["cached_from"] == {"run_id": "run_0", "task": "a", "attempt": 3, "at": "2026-01-02T03:04:05.000Z"}
    assert "cached" not in (narrator.tell(e.TaskSucceeded(AT, "b", 1)).data or {})


# -- as it is written


def body(**changes: Any) -> dict[str, Any]:
    task_ = {"id": "a", "type": "core.echo", **changes}
    return {"dag_id": "d", "owner": "team", "tasks": [task_]}


def test_the_keys_come_back_as_they_were_written() -> None:
    keys = {"cache_ttl_s": 60.0, "cache_key": "k-{{ from }}", "cache_version": "2", "cache_window": True}
    definition, _ = spec.parse_dag(body(**keys))
    assert spec.to_json(definition)["tasks"][0].items() >= keys.items()
    plain, _ = spec.parse_dag(body())
    assert not keys.keys() & spec.to_json(plain)["tasks"][0].keys()


@pytest.mark.parametrize(
    ("tasks", "field"),
    [
        ([{"id": "a", "cache_key": "k"}], "tasks/0/cache_key"),
        ([{"id": "a", "cache_window": True}], "tasks/0/cache_window"),
        ([{"id": "a", "cache_ttl_s": 0}], "tasks/0/cache_ttl_s"),
        ([{"id": "a", "type": "core.wait", "params": {"seconds": 1}, "cache_ttl_s": 1}], "tasks/0/cache_ttl_s"),
        ([{"id": "a", "type": "elsewhere", "cache_ttl_s": 1}], "tasks/0/cache_ttl_s"),
        ([{"id": "a", "cache_ttl_s": 1}, {"id": "b", "teardown_of": ["a"]}], "tasks/0/cache_ttl_s"),
        ([{"id": "a"}, {"id": "b", "teardown_of": ["a"], "cache_ttl_s": 1}], "tasks/1/cache_ttl_s"),
        ([{"id": "a", "cache_ttl_s": 1}, {"id": "b", "compensates": "a"}], "tasks/0/cache_ttl_s"),
        ([{"id": "a"}, {"id": "b", "compensates": "a", "cache_ttl_s": 1}], "tasks/1/cache_ttl_s"),
    ],
    ids=["alone", "window alone", "zero", "waits", "remote", "setup", "teardown", "compensated", "compensation"],
)
def test_a_task_that_has_to_run_cannot_be_cached(tasks: list[dict[str, Any]], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        spec.parse_dag({"dag_id": "d", "owner": "team", "tasks": tasks})
    assert field in dict(refused.value.details)


@task(cache_ttl_s=HOUR)
def plain(n: int) -> int:
    return n


@task(cache_ttl_s=HOUR, cache_key="all", cache_version="7")
def told(n: int) -> int:
    return n


@task(cache_ttl_s=HOUR)
def with_context(ctx: object) -> None: ...


@task
def computed() -> None: ...


def test_a_function_is_another_one_when_its_source_is_and_sees_its_window_when_it_takes_the_context() -> None:
    @dag(dag_id="d")
    def build() -> None:
        plain(1)
        told(1)
        with_context()
        computed()

    first, second, third, fourth = build.definition().tasks
    assert (first.cache_version or "").startswith("src-")
    assert (second.cache_version, second.cache_key, second.cache_window) == ("7", "all", False)
    assert (first.cache_window, third.cache_window) == (False, True)
    assert first.cache_version != third.cache_version
    assert (fourth.cache_ttl_s, fourth.cache_version) == (None, None)
