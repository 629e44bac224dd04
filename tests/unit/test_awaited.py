"""What DAGs await of others: rules, windows, pauses, and the laws that hold for every history."""

from __future__ import annotations

from collections import Counter
from itertools import count
from random import Random

import pytest

from orchestrator import awaited
from orchestrator.awaited import FACTS_MAX, UPDATES_MAX, AssetLog, Fact, Gathered, Start, Update
from orchestrator.definition import Definition, TaskSpec
from orchestrator.messages import Cause
from orchestrator.spec import parse_dag, to_json

_runs = count(1)
ONE = Definition("d", "team", after=("u",))
BOTH = Definition("d", "team", after=("u", "v"))
ANY = Definition("d", "team", after=("u", "v"), after_rule="any")
ASSETS = Definition("d", "team", consumes=("s3://x", "s3://y"))


def success(dag_id: str = "u", window: str = "") -> Fact:
    return Fact(awaited.after(dag_id), Cause("dag", dag_id, f"run_{next(_runs)}", attempt=1), window)


def update(name: str) -> Fact:
    return Fact(awaited.asset(name), Cause("asset", name, f"run_{next(_runs)}", "t", 1))


def take(
    definition: Definition, *facts: Fact, before: Gathered | None = None, **how: object
) -> tuple[Gathered, list[Start]]:
    given = {"paused": False, **how}
    return awaited.take(before or Gathered(), definition, facts, "9-0", **given)  # type: ignore[arg-type] # of a test


def test_each_success_of_one_upstream_starts_a_run() -> None:
    one, two = success(), success()
    after, starts = take(ONE, one, two)
    assert starts == [Start((one.cause,)), Start((two.cause,))]
    assert after == Gathered("9-0")


def test_with_all_a_run_starts_once_each_upstream_has_succeeded_and_knows_every_success() -> None:
    u1, u2, v = success("u"), success("u"), success("v")
    after, starts = take(BOTH, u1, u2)
    assert (starts, after.pending) == ([], (u1, u2))
    after, starts = take(BOTH, v, before=after)
    assert starts == [Start((u1.cause, u2.cause, v.cause))]
    assert after.pending == ()


def test_with_any_every_success_starts_a_run() -> None:
    u, v = success("u"), success("v")
    assert take(ANY, u, v)[1] == [Start((u.cause,)), Start((v.cause,))]


def test_assets_are_awaited_all() -> None:
    x, y = update("s3://x"), update("s3://y")
    assert take(ASSETS, x)[1] == []
    assert take(ASSETS, x, y)[1] == [Start((x.cause, y.cause))]


def test_the_window_of_the_one_upstream_is_that_of_the_run() -> None:
    monday, tuesday = success("u", "2025-01-06/2025-01-06"), success("u", "2025-01-07/2025-01-07")
    starts = take(ONE, monday, tuesday)[1]
    assert [each.window_key for each in starts] == [monday.window_key, tuesday.window_key]
    assert take(BOTH, monday, success("v", monday.window_key))[1][0].window_key == "", "of several it is nobody's"


def test_what_comes_while_the_dag_is_paused_starts_one_run_when_it_is_resumed() -> None:
    facts = [success() for _ in range(3)]
    after, starts = take(ONE, *facts, paused=True)
    assert (starts, len(after.pending)) == ([], 3)
    after, starts = take(ONE, before=after)
    assert starts == [Start(tuple(fact.cause for fact in facts))]
    assert after.pending == ()


def test_what_came_for_windows_while_it_was_paused_starts_a_run_for_each() -> None:
    facts = [success("u", window) for window in ("a/b", "c/d", "a/b")]
    after, _ = take(ONE, *facts, paused=True)
    starts = take(ONE, before=after)[1]
    assert [(each.window_key, len(each.causes)) for each in starts] == [("a/b", 2), ("c/d", 1)]


def test_a_window_in_which_a_run_goes_on_waits() -> None:
    busy, free = success("u", "a/b"), success("u", "c/d")
    after, starts = take(ONE, busy, free, busy={"a/b"})
    assert (after.pending, [each.window_key for each in starts]) == ((busy,), ["c/d"])
    assert [each.window_key for each in take(ONE, before=after)[1]] == ["a/b"]


def test_what_is_followed_no_longer_is_dropped() -> None:
    after, _ = take(BOTH, success("u"))
    after, starts = take(Definition("d", "team", after=("v", "w")), success("v"), before=after)
    assert (starts, [fact.source for fact in after.pending]) == ([], ["after/v"])
    assert take(Definition("d", "team"), success("v"), before=after) == (Gathered("9-0"), [])


def test_the_oldest_facts_of_a_source_are_forgotten_first() -> None:
    facts = [success("u") for _ in range(FACTS_MAX + 2)]
    assert take(BOTH, *facts)[0].pending == tuple(facts[2:])


def test_a_run_tells_of_some_causes_of_each_source() -> None:
    facts = [success("u") for _ in range(300)] + [success("v")]
    [start] = take(BOTH, *facts)[1]
    assert (len(start.causes), {cause.name for cause in start.causes}) == (51, {"u", "v"})


def test_an_asset_counts_its_updates_and_keeps_the_latest() -> None:
    updates = [Update(Cause("asset", "x", f"run_{n}", "t", 1), "d", n) for n in range(UPDATES_MAX + 5)]
    log = awaited.updated(awaited.updated(AssetLog(), updates[:1], "1-0"), updates[1:], "2-0")
    assert (log.updates, log.last, log.seen) == (UPDATES_MAX + 5, tuple(updates[5:]), "2-0")


@pytest.mark.parametrize("definition", [ONE, BOTH, ANY, ASSETS])
def test_how_facts_are_batched_does_not_matter(definition: Definition) -> None:
    rng = Random(7)
    for _ in range(200):
        facts = [
            rng.choice([success("u"), success("v"), success("u", "a/b"), update("s3://x"), update("s3://y")])
            for _ in range(20)
        ]
        gathered, starts = Gathered(), list[Start]()
        rest = list(facts)
        while rest:
            size = rng.randint(1, 6)
            gathered, more = awaited.take(gathered, definition, rest[:size], "9-0", paused=False)
            starts, rest = starts + more, rest[size:]
        assert (gathered, starts) == awaited.take(Gathered(), definition, facts, "9-0", paused=False)


@pytest.mark.parametrize("definition", [ONE, BOTH, ANY, ASSETS])
def test_each_fact_is_consumed_once_or_waits_whatever_pauses(definition: Definition) -> None:
    rng = Random(11)
    for _ in range(200):
        gathered, consumed, told = Gathered(), list[Cause](), list[Cause]()
        windows = ("", "a/b", "c/d")
        for _ in range(15):
            facts = [
                rng.choice([success("u", rng.choice(windows)), success("v"), update("s3://x"), update("s3://y")])
                for _ in range(3)
            ]
            told += [fact.cause for fact in facts if fact.source in awaited.sources(definition)]
            how = {"paused": rng.random() < 0.4, "busy": rng.sample(windows[1:], rng.randint(0, 2))}
            gathered, starts = awaited.take(gathered, definition, facts, "9-0", **how)  # type: ignore[arg-type] # of a test
            consumed += [cause for start in starts for cause in start.causes]
            assert Counter(consumed + [fact.cause for fact in gathered.pending]) == Counter(told)
        gathered, starts = awaited.take(gathered, definition, (), "9-0", paused=False)
        assert not starts or awaited.take(gathered, definition, (), "9-0", paused=False)[1] == []
        left = {fact.source for fact in gathered.pending}
        assert left < set(awaited.sources(definition)) or not left


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"after": ["u"], "consumes": ["x"]}, "consumes"),
        ({"after_rule": "any"}, "after_rule"),
        ({"after": ["d"]}, "after"),
        ({"consumes": ["x"], "tasks": [{"id": "t", "produces": ["x"]}]}, "consumes"),
        ({"consumes": ["a b"]}, "consumes/0"),
        ({"after": ["not/an id"]}, "after/0"),
        ({"on_event": "a b"}, "on_event"),
        ({"tasks": [{"id": f"t{n}", "produces": [f"x{n}-{m}" for m in range(100)]} for n in range(11)]}, "tasks"),
    ],
)
def test_what_makes_no_sense_is_refused(more: dict[str, object], field: str) -> None:
    from orchestrator.errors import Invalid

    with pytest.raises(Invalid) as refused:
        parse_dag({"dag_id": "d", "owner": "team", **more})
    assert field in [name for name, _ in refused.value.details]


def test_a_definition_tells_what_it_follows_and_makes_and_reads_back() -> None:
    body = {"dag_id": "d", "owner": "team", "after": ["u", "v", "u"], "after_rule": "any", "on_event": "e"}
    body |= {"tasks": [{"id": "a", "produces": ["x", "y"]}, {"id": "b", "produces": ["y", "z"]}]}
    definition = parse_dag(body)[0]
    assert awaited.follows(definition) == ("after/u", "after/v", "event/e")
    assert awaited.makes(definition) == ("x", "y", "z")
    assert parse_dag(to_json(definition))[0] == definition
    assert awaited.follows(Definition("d", "team", tasks=(TaskSpec(id="a"),))) == ()
