"""actors.executor and the kinds core and python: what becomes of user code, whatever it does."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors import attempt_context
from orchestrator.messages import Assignment, MapPart, Value
from tests import worker_tasks
from tests.worker_builders import RUN, Bench, InThread, inline, python, raw, task

WINDOW = ("2025-10-01", "2025-10-04")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    worker_tasks.EVENTS.clear()
    return Bench(tmp_path)


# ── core ──


def test_noop_returns_an_empty_object(bench: Bench) -> None:
    assert bench.value(task(type="core.noop", x=1)) == {}


def test_echo_returns_its_params_with_those_of_the_run_merged_over_them(bench: Bench) -> None:
    assert bench.value(task(type="core.echo", a=1, b=2)) == {"a": 1, "b": 2}
    assert bench.value(task(type="core.echo", a=1, b=2), params={"b": 3, "c": 4}) == {"a": 1, "b": 3, "c": 4}
    assert bench.value(task(type="core.echo")) == {}


def test_echo_puts_inputs_in_their_places(bench: Bench) -> None:
    echo = task(type="core.echo", parts=[None, None], inputs={"parts/1": 5, "parts/0": {"x": 1}})
    assert bench.value(echo) == {"parts": [{"x": 1}, 5]}


def test_templates_are_filled_in_at_any_depth(bench: Bench) -> None:
    echo = task(type="core.echo", a="{{ from }}..{{to}}", b=[{"c": "{{ run_id }}/{{ dag_id }}"}], d="{{ other }}")
    assert bench.value(echo, window=WINDOW) == {
        "a": "2025-10-01..2025-10-04",
        "b": [{"c": f"{RUN}/sales"}],
        "d": "{{ other }}",
    }


def test_a_window_template_without_a_window_is_a_permanent_error(bench: Bench) -> None:
    report = bench.run(task(type="core.echo", a="{{ from }}"))
    assert (report.outcome, report.permanent) == ("error", True)
    assert report.error == "the params use {{ from }}, but the run has no window"


def test_sleep_says_how_long_it_slept(bench: Bench) -> None:
    report = bench.run(task(type="core.sleep", seconds=0.02))
    assert msgspec.json.decode(report.value.inline) == {"slept": 0.02}
    assert report.took_s >= 0.02


@pytest.mark.parametrize("seconds", [-1, 3601, "2", None, True])
def test_sleep_refuses_other_spans(bench: Bench, seconds: object) -> None:
    report = bench.run(task(type="core.sleep", seconds=seconds))
    assert (report.outcome, report.permanent) == ("error", True)


@pytest.mark.parametrize(
    ("params", "attempt", "outcome", "permanent"),
    [
        ({}, 1, "error", False),
        ({}, 9, "error", False),
        ({"times": 2}, 1, "error", False),
        ({"times": 2}, 2, "error", False),
        ({"times": 2}, 3, "ok", False),
        ({"times": 0}, 1, "ok", False),
        ({"permanent": True}, 1, "error", True),
        ({"permanent": True, "times": 1}, 2, "ok", False),
    ],
)
def test_fail_fails_as_told(bench: Bench, params: dict[str, Any], attempt: int, outcome: str, permanent: bool) -> None:
    report = bench.run(task(type="core.fail", attempt=attempt, message="as told", **params))
    assert (report.outcome, report.permanent) == (outcome, permanent)
    assert report.error == ("as told" if outcome == "error" else None)


def test_an_unknown_type_is_a_permanent_error(bench: Bench) -> None:
    report = bench.run(task(type="pandas.magic"))
    assert (report.outcome, report.permanent) == ("error", True)
    assert report.error == "no worker here runs tasks of type 'pandas.magic'"


# ── what failures are called ──


def test_a_failure_is_called_by_its_class_and_all_its_bases(bench: Bench) -> None:
    names = bench.run(python("raise_too_warm")).raised
    assert names == ("tests.worker_tasks.TooWarm", "ValueError", "Exception", "BaseException")
    assert bench.run(python("raise_value_error")).raised[0] == "ValueError"


def test_a_command_s_exit_code_is_among_its_names(bench: Bench) -> None:
    report = bench.run(task(type="bash", command="exit 75"))
    assert (report.outcome, report.raised[0]) == ("error", "exit 75")
    assert bench.run(task(type="bash", command="exit 0")).raised == ()


# ── python ──


def test_a_function_gets_params_inputs_and_defaults(bench: Bench) -> None:
    assert bench.value(python("add", a=1)) == 3
    assert bench.value(python("add", a=1, inputs={"b": 5})) == 6
    assert bench.value(python("add", a=1, b=1), params={"b": 9, "unrelated": 0}) == 10


def test_an_async_function_is_awaited_on_one_loop_for_all_attempts(bench: Bench) -> None:
    assert bench.value(python("add_slowly", a=1, b=1)) == 2
    assert bench.value(python("loop_id")) == bench.value(python("loop_id"))


def test_of_a_decorated_task_the_author_s_function_is_called(bench: Bench) -> None:
    assert bench.value(python("negated", a=3)) == -3


def test_coroutines_left_behind_are_ended(bench: Bench) -> None:
    assert bench.value(_named("leave_behind", "x")) == "done"
    assert worker_tasks.EVENTS["x straggler ended"].is_set()


@pytest.mark.parametrize(("reason", "told"), [("no new rows", "no new rows"), ("", "Skip")])
def test_a_task_that_skips_itself_has_not_failed(bench: Bench, reason: str, told: str) -> None:
    report = bench.run(python("nothing_to_do", reason=reason))
    assert (report.outcome, report.error, report.permanent) == ("skipped", told, False)


@pytest.mark.parametrize(
    ("entrypoint", "says"),
    [
        ("no_such_module_here:f", "ModuleNotFoundError: No module named 'no_such_module_here'"),
        ("tests.worker_tasks:absent", "has no 'absent'"),
        ("tests.worker_tasks:EVENTS", "not a function"),
        ("tests.worker_tasks:", "not of the form module:function"),
    ],
)
def test_an_entrypoint_that_is_not_there_is_a_permanent_error(bench: Bench, entrypoint: str, says: str) -> None:
    report = bench.run(python(entrypoint))
    assert (report.outcome, report.permanent) == ("error", True)
    assert says in (report.error or "")
    assert "\n" not in (report.error or "")


@pytest.mark.parametrize(
    ("function", "error", "permanent"),
    [
        ("raise_value_error", "ValueError: bad value", False),
        ("raise_permanent", "no such customer", True),
        ("raise_unprintable", "Unprintable: (its message cannot be read)", False),
    ],
)
def test_an_exception_becomes_a_one_line_error(bench: Bench, function: str, error: str, permanent: bool) -> None:
    report = bench.run(python(function))
    assert (report.outcome, report.error, report.permanent) == ("error", error, permanent)


def test_a_long_message_is_cut(bench: Bench) -> None:
    report = bench.run(python("raise_value_error", message="x" * 5000))
    assert len(report.error or "") == 1000


@pytest.mark.parametrize(("how", "error"), [("exit", "SystemExit: 3"), ("interrupt", "KeyboardInterrupt")])
def test_code_that_wants_to_end_the_process_is_an_error(bench: Bench, how: str, error: str) -> None:
    report = bench.run(python("leave", how=how))
    assert (report.outcome, report.error) == ("error", error)
    assert bench.value(python("add", a=1)) == 3


def test_the_working_directory_is_put_back(bench: Bench, tmp_path: Path) -> None:
    before = os.getcwd()
    assert bench.value(python("move", to=str(tmp_path))) == str(tmp_path)
    assert os.getcwd() == before


def test_code_that_closes_stdout_does_not_silence_the_next(bench: Bench) -> None:
    bench.run(python("talk", "first"))
    before = sys.stdout
    bench.run(python("close_stdout", "a"))
    assert sys.stdout is before
    bench.run(python("talk", "b", text="still here"))
    assert "still here" in bench.logs.text("b")


# ── the context ──


def test_the_context_describes_the_attempt(bench: Bench) -> None:
    told = bench.value(python("describe", "d", attempt=4, a=1), window=WINDOW, params={"b": "{{ from }}"})
    assert told == {
        "run_id": RUN,
        "dag_id": "sales",
        "window": list(WINDOW),
        "task_id": "d",
        "attempt": 4,
        "params": {"a": 1, "b": "2025-10-01"},
        "same": True,
    }


def test_a_checkpoint_goes_to_the_owner_and_is_read_back(bench: Bench) -> None:
    assert bench.value(python("save", checkpoint={"row": 3})) == [{"row": 3}, {"row": 7}]
    ((owner, note),) = bench.notes.notes
    assert (owner, note.kind, note.run_id, note.task, note.attempt) == ("run-actor-0", "checkpoint", RUN, "t", 1)
    assert msgspec.json.decode(note.data) == {"row": 7}


@pytest.mark.parametrize("fails", [False, True])
def test_tool_calls_are_told_with_their_input_in_short_and_how_they_went(bench: Bench, fails: bool) -> None:
    assert bench.value(python("use_tools", fails=fails)) == ("not written" if fails else "written")
    told = [(note.kind, msgspec.json.decode(note.data)) for _, note in bench.notes.notes]
    assert [kind for kind, _ in told] == ["tool_started", "tool_completed"] * 2
    assert told[0][1] == {
        "call": 1,
        "name": "search",
        "input": {"query": "x" * 100 + "...", "where": "<dict>", "limit": 3},
    }
    assert (told[1][1]["call"], told[1][1]["success"], told[3][1]["success"]) == (1, True, not fails)
    assert told[2][1]["input"] == {"found": "found"}


def test_a_tool_call_of_a_replaced_attempt_ends_it(bench: Bench) -> None:
    bench.notes.accepts = False
    assert bench.run(python("use_tools")).outcome == "cancelled"
    assert len(bench.notes.notes) == 1


def test_a_first_attempt_has_no_checkpoint(bench: Bench) -> None:
    assert bench.value(python("save")) == [None, {"row": 7}]


def test_a_checkpoint_is_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt_context, "RETRY_PAUSE_S", 0.001)
    bench.notes.failures = 5
    bench.value(python("save"))
    assert len(bench.notes.notes) == 1


def test_a_checkpoint_that_cannot_be_made_durable_is_an_error(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt_context, "CHECKPOINT_S", 0.0)
    bench.notes.failures = 10**9
    report = bench.run(python("save"))
    assert report.outcome == "error"
    assert "unreachable" in (report.error or "")
    assert not report.permanent


def test_a_checkpoint_of_a_replaced_attempt_ends_it(bench: Bench) -> None:
    bench.notes.accepts = False
    assert bench.run(python("save")).outcome == "cancelled"


def test_a_checkpoint_that_json_would_change_is_refused(bench: Bench) -> None:
    report = bench.run(python("save_oddly"))
    assert "TypeError: a checkpoint must be plain JSON" in (report.error or "")
    assert bench.notes.notes == []


def test_progress_that_is_told_often_is_thinned_but_its_end_is_told(bench: Bench) -> None:
    bench.value(python("report"))
    told = [msgspec.json.decode(note.data) for _, note in bench.notes.notes]
    assert told[0] == {"fraction": 0.0, "message": ""}
    assert told[-1] == {"fraction": 1.0, "message": "done"}
    assert len(told) < 20


def test_progress_that_reaches_nobody_is_dropped(bench: Bench) -> None:
    bench.notes.failures = 10**9
    assert bench.value(python("report")) is None


# ── values ──


@pytest.mark.parametrize("kind", ["datetime", "nan", "int keys", "big", "huge int", "lambda", "surrogate"])
def test_what_json_would_change_or_is_large_travels_as_an_artifact(bench: Bench, kind: str) -> None:
    value = bench.run(python("give", "maker", kind=kind)).value
    assert value.artifact == f"{RUN}/maker.1"
    assert value.size_bytes == (bench.home / "artifacts" / RUN / "maker.1").stat().st_size
    if kind == "lambda":
        assert bench.value(python("apply", inputs={"f": value})) == 2
    else:
        assert bench.value(python("take", inputs={"x": value})) == worker_tasks.take(worker_tasks.give(kind))


def test_a_tuple_becomes_a_list(bench: Bench) -> None:
    assert bench.value(python("give", kind="tuple")) == [1, [2, "b"]]


def test_a_value_that_cannot_be_stored_is_a_permanent_error(bench: Bench) -> None:
    report = bench.run(python("give", kind="generator"))
    assert (report.outcome, report.permanent) == ("error", True)
    assert "type generator cannot be stored" in (report.error or "")
    assert list((bench.home / "artifacts" / RUN).iterdir()) == []


def test_a_missing_artifact_is_reported_as_such_and_no_code_of_the_task_runs(bench: Bench) -> None:
    value = bench.run(python("give", "maker", kind="datetime")).value
    (bench.home / "artifacts" / RUN / "maker.1").unlink()
    report = bench.run(python("take", inputs={"x": value}))
    assert (report.outcome, report.missing) == ("missing", (f"{RUN}/maker.1",))
    assert report.error == f"MissingArtifact: artifact {RUN}/maker.1 is missing from the artifact directory"


def test_all_that_is_missing_is_told_at_once(bench: Bench) -> None:
    gone = {f"p{n}": Value(artifact=f"{RUN}/m{n}.1", size_bytes=9) for n in range(3)}
    assert bench.run(python("take", inputs=gone)).missing == tuple(f"{RUN}/m{n}.1" for n in range(3))


def test_a_large_echo_travels_as_an_artifact(bench: Bench) -> None:
    assert bench.run(task(type="core.echo", x="y" * 70_000)).value.artifact == f"{RUN}/t.1"


# ── mapped tasks ──


def instance(function: str, index: int, *, picks: str | None = None, **given: Any) -> Assignment:
    part = MapPart("t", index, picks)
    return msgspec.structs.replace(python(function, f"t[{index}]", **given), mapped=part)


def test_an_instance_gets_its_element_and_knows_its_index(bench: Bench) -> None:
    assert bench.value(instance("take", 1, inputs={"x": {"a": ["{{ from }}"]}})) == worker_tasks.take(
        {"a": ["{{ from }}"]}
    )
    assert bench.value(instance("mapped_as", 7)) == ["t[7]", "t", 7]
    assert bench.value(python("mapped_as")) == ["t", None, None]


def test_map_index_is_filled_in(bench: Bench) -> None:
    one = msgspec.structs.replace(task("t[3]", "core.echo", n="{{ map_index }}"), mapped=MapPart("t", 3))
    assert bench.value(one) == {"n": "3"}
    assert "the task is not mapped" in (bench.run(task("u", "core.echo", n="{{ map_index }}")).error or "")


def test_an_element_is_picked_from_a_list_that_is_read_once(bench: Bench) -> None:
    made = bench.run(python("give", "maker", kind="lists"))
    assert (made.value.artifact, made.length) == (f"{RUN}/maker.1", 3)
    inputs = {"x": made.value}
    assert bench.value(instance("grow", 0, picks="x", inputs=inputs)) == [1, 2, "grown"]
    (bench.home / "artifacts" / RUN / "maker.1").unlink()
    assert bench.value(instance("grow", 0, picks="x", attempt=2, inputs=inputs)) == [1, 2, "grown"], "a copy each time"
    assert bench.value(instance("grow", 2, picks="x", inputs=inputs)) == [5, 6, "grown"]


def test_a_long_result_of_an_instance_travels_as_an_artifact_sooner(bench: Bench) -> None:
    plain = task("t[0]", "core.echo", x="y" * 5000)
    assert bench.run(plain).value.artifact is None
    again = msgspec.structs.replace(plain, attempt=2, mapped=MapPart("t", 0))
    assert bench.run(again).value.artifact == f"{RUN}/t[0].2"


def test_a_reduce_gets_the_values_of_all_instances_wherever_they_are(bench: Bench) -> None:
    stored = bench.run(python("give", "maker", kind="datetime")).value
    lists = {"x": (inline(1), Value(), stored)}
    reduce = msgspec.structs.replace(python("take"), mapped=MapPart(lists=lists))
    assert bench.value(reduce) == worker_tasks.take([1, None, worker_tasks.give("datetime")])


def test_a_length_is_told_of_lists_that_are_not_inline_only(bench: Bench) -> None:
    assert bench.run(python("give", kind="tuple")).length is None
    assert bench.run(python("give", "maker", kind="int keys")).length is None


# ── logs ──


def test_what_is_printed_and_logged_is_kept(bench: Bench) -> None:
    bench.run(python("talk"))
    text = bench.logs.text()
    assert "hello\na problem\n" in text
    assert "INFO shop: 3 sold" in text
    assert "DEBUG task: details" in text
    assert "bytes\n" in text


def test_threads_and_coroutines_of_a_task_print_into_its_log(bench: Bench) -> None:
    bench.run(python("talk_in_thread", "a"))
    bench.run(python("talk_async", "b"))
    assert bench.logs.text("a") == "from a thread\n"
    assert bench.logs.text("b") == "from to_thread\n"


def test_a_task_that_prints_nothing_causes_no_traffic(bench: Bench) -> None:
    bench.run(python("add", a=1))
    bench.send(task("a"), task("b", "core.echo"))
    assert bench.logs.calls == 0


def test_the_traceback_of_user_code_is_in_the_log(bench: Bench) -> None:
    bench.run(python("raise_value_error"))
    text = bench.logs.text()
    assert "ValueError: bad\nvalue" in text
    assert "in raise_value_error" in text
    assert "executor.py" not in text


def test_output_appears_while_the_task_runs(bench: Bench) -> None:
    pending = InThread(bench.run, _named("talk_then_hold", "a"))
    for _ in range(200):
        if bench.logs.text("a"):
            break
        worker_tasks.EVENTS["never"].wait(0.02)
    assert bench.logs.text("a") == "early words\n"
    worker_tasks.EVENTS["a may end"].set()
    pending.result()


def test_output_beyond_the_limit_is_cut_with_a_mark(bench: Bench) -> None:
    bench.run(python("flood", size=2 * 1024 * 1024))
    text = bench.logs.text()
    assert text.endswith("\n[output truncated after 1 MiB]\n")
    assert text.count("x") == 1024 * 1024


def test_a_log_that_cannot_be_kept_does_not_hold_up_the_result(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.attempt_log.CLOSING_PAUSES_S", (0.001, 0.001))
    bench.logs.failures = 10**9
    assert bench.run(python("talk")).outcome == "ok"
    assert bench.logs.calls == 3


def test_a_log_is_kept_when_the_journal_comes_back_in_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.attempt_log.CLOSING_PAUSES_S", (0.001, 0.001))
    bench.logs.failures = 2
    bench.run(python("talk"))
    assert bench.logs.text().startswith("hello\n")


def _named(function: str, name: str) -> Any:
    return msgspec.structs.replace(python(function, name), params=raw({"name": name}))
