"""Partitions: one spelling each, as many as the product has, and what tasks are told of them."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import binding, codec, partitions, spec
from orchestrator import events as e
from orchestrator.definition import Definition, Dimension, Window, content_hash
from orchestrator.errors import Invalid, PermanentFailure
from tests.builders import AT

REGIONS = {"region": ["eu", "us"], "day": ["mon", "tue"]}
values = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=8)
names = st.from_regex(rf"\A{partitions.NAME}\Z").filter(str.isascii)


def dag(**changes: object) -> Definition:
    return spec.parse_dag({"dag_id": "d", "owner": "o", **changes})[0]


@given(st.one_of(values, st.dictionaries(names, values, min_size=1, max_size=3)))
def test_what_is_asked_for_is_what_is_shown(asked: str | dict[str, str]) -> None:
    window = Window(partition=partitions.parse_one(asked))
    assert Window.of_key(window.key()) == window
    assert partitions.shown(window) == {"partition": asked}
    assert codec.decode_events(codec.encode_events([created(window)]), e.SCHEMA) == [created(window)]


def created(window: Window) -> e.RunCreated:
    return e.RunCreated(AT, "run_1", "t", "d", 1, "manual", window)


@given(st.one_of(values, st.dictionaries(names, values, min_size=1, max_size=3)), values)
def test_different_partitions_have_different_keys(one: str | dict[str, str], other: str) -> None:
    same = one == other
    assert (partitions.parse_one(one) == partitions.parse_one(other)) is same


def test_a_product_has_one_window_for_each_combination_the_last_list_fastest() -> None:
    found = partitions.windows(partitions.parse(REGIONS), 10)
    assert [window.partition for window in found] == [
        "day=mon/region=eu", "day=tue/region=eu", "day=mon/region=us", "day=tue/region=us",
    ]  # fmt: skip


def test_a_window_of_time_reads_and_writes_as_before() -> None:
    window = Window("2025-10-01", "2025-10-04")
    assert window.key() == "2025-10-01/2025-10-04"
    assert msgspec.json.encode(window) == b'{"from":"2025-10-01","to":"2025-10-04"}'
    assert Window.of_key(window.key()) == window


def test_names_may_come_in_any_order() -> None:
    one, two = {"region": "eu", "day": "mon"}, {"day": "mon", "region": "eu"}
    assert partitions.parse_one(one) == partitions.parse_one(two) == "day=mon/region=eu"


def test_more_than_the_limit_is_refused_before_they_are_made() -> None:
    many = tuple(Dimension(name, tuple(map(str, range(1000)))) for name in "abcd")
    with pytest.raises(Invalid, match="more than 100000"):
        partitions.windows(many, 100_000)


def test_the_set_is_the_same_in_whatever_order() -> None:
    one, two = (partitions.windows(partitions.parse(each), 9) for each in (["eu", "us"], ["us", "eu"]))
    assert partitions.set_key(one) == partitions.set_key(two) != partitions.set_key(one[:1])


@pytest.mark.parametrize(
    "asked",
    [["eu", "mars"], {"region": ["eu"]}, {"region": ["eu"], "day": ["sun"]}],
)
def test_what_a_dag_does_not_declare_is_refused(asked: partitions.Lists) -> None:
    with pytest.raises(Invalid, match="declare"):
        partitions.check_declared(partitions.parse(asked), partitions.parse(REGIONS))


def test_what_a_dag_declares_or_a_dag_that_declares_nothing_is_not() -> None:
    some = partitions.parse({"day": ["mon"], "region": ["us"]})
    partitions.check_declared(some, partitions.parse(REGIONS))
    partitions.check_declared(some, ())
    partitions.check_one("day=mon/region=us", partitions.parse(REGIONS))


def test_a_definition_keeps_them_and_one_without_has_the_hash_it_had() -> None:
    assert spec.to_json(dag(partitions=REGIONS))["partitions"] == REGIONS
    assert list(spec.to_json(dag(partitions=REGIONS))["partitions"]) == ["region", "day"]
    assert spec.to_json(dag(partitions=["eu"]))["partitions"] == ["eu"]
    assert content_hash(dag()) == content_hash(Definition(dag_id="d", owner="o"))
    assert codec.decode_definition(codec.encode_definition(dag(partitions=REGIONS))) == dag(partitions=REGIONS)


@pytest.mark.parametrize("wrong", [[], "eu", {}, ["a", "a"], ["a\n"], ["x" * 201], {"1a": ["x"]}, {"a": "x"}, [1]])
def test_wrong_ones_are_refused(wrong: object) -> None:
    with pytest.raises(Invalid):
        dag(partitions=wrong)


def test_templates_know_the_partition_and_its_parts() -> None:
    told = binding.facts("run_1", "d", None, "day=mon/region=a%2Fb")
    params = {"where": "{{ partition }}", "path": "s3://{{ partition.region }}/{{partition.day}}"}
    bound = binding.bind("core.echo", params, {}, {}, told)
    assert bound == {"where": "day=mon/region=a%2Fb", "path": "s3://a/b/mon"}
    assert binding.bind("core.echo", params | {"path": ""}, {}, {}, binding.facts("r", "d", None, "a%2Fb")) == {
        "where": "a/b", "path": "",
    }  # fmt: skip
    for absent in ("{{ partition.zone }}", "{{ from }}"):
        with pytest.raises(PermanentFailure, match="has no"):
            binding.bind("core.echo", {"x": absent}, {}, {}, told)
