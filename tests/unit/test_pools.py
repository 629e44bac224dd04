"""orchestrator.pools: what a pool may be."""

from __future__ import annotations

from typing import Any

import pytest
from ray._common.ray_option_utils import validate_actor_options
from ray._private.accelerators import get_all_accelerator_resource_names

from orchestrator import codec
from orchestrator.errors import Invalid
from orchestrator.pools import PoolSpec, check, fixed, succeeding


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"max": -1}, "max"),
        ({"max": 513}, "max"),
        ({"min": 2, "max": 1}, "min"),
        ({"idle_timeout_s": -1.0}, "idle_timeout_s"),
        ({"scale_up_wait_s": 1e9}, "scale_up_wait_s"),
        ({"tasks_per_worker": 0}, "tasks_per_worker"),
        ({"step": 0}, "step"),
        ({"num_gpus": 1.5}, "num_gpus"),
        ({"num_cpus": -0.1}, "num_cpus"),
        ({"memory_bytes": -1}, "memory_bytes"),
        ({"resources": {"GPU": 1.0}}, "resources/GPU"),
        ({"resources": {"a b": 1.0}}, "resources/a b"),
        ({"resources": {"x": 2.5}}, "resources/x"),
        ({"resources": {"x": 0.00009}}, "resources/x"),
        ({"num_cpus": 0.00009}, "num_cpus"),
        ({"resources": {"TPU": 3.0}}, "resources/TPU"),
        ({"resources": {"TPU": 16.0}}, "resources/TPU"),
        ({"resources": {"neuron_cores": 0.5}}, "resources/neuron_cores"),
        ({"resources": {f"x{n}": 1.0 for n in range(21)}}, "resources"),
        ({"labels": {"tier": "a b"}}, "labels/tier"),
        ({"labels": {"": "a"}}, "labels/"),
        ({"labels": {f"{'b' * 64}.io/tier": "a"}}, f"labels/{'b' * 64}.io/tier"),
    ],
)
def test_what_ray_would_refuse_is_refused(spec: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        check(PoolSpec(**{"max": 1} | spec))
    assert field in dict(refused.value.details)


def taken_by_ray(**options: Any) -> bool:
    try:
        validate_actor_options(options, in_options=True)
    except ValueError:
        return False
    return True


def test_what_ray_takes_is_taken() -> None:
    labels = {"ray.io/market-type": "spot", "tier": "!in(a,b)", "zone": "in(x, y)", "old": "!yes"}
    labels |= {f"{'b' * 63}.{'c' * 63}/{'d' * 63}": "e" * 63}
    resources = {"node:10.0.0.1": 0.001, "TPU": 4.0, "neuron_cores": 2.0, "NPU": 0.0001}
    check(PoolSpec(max=512, num_cpus=0.5, num_gpus=8.0, resources=resources, labels=labels))
    assert taken_by_ray(num_cpus=0.5, num_gpus=8.0, resources=resources, label_selector=labels)


@pytest.mark.parametrize("name", sorted(get_all_accelerator_resource_names() - {"GPU"}))
def test_what_is_taken_ray_takes(name: str) -> None:
    """A worker that Ray refuses would never come, and nobody would be told."""
    for amount in (0.00009, 0.0001, 0.5, 1.0, 2.0, 3.0, 4.0, 8.0, 16.0):
        spec = PoolSpec(max=1, resources={name: amount})
        try:
            check(spec)
        except Invalid:
            continue
        assert taken_by_ray(resources=spec.resources), amount


def test_another_shape_is_another_generation_and_other_bounds_are_not() -> None:
    former = PoolSpec(max=1, generation=4)
    assert succeeding(PoolSpec(max=9), former).generation == 4
    assert succeeding(PoolSpec(max=9, labels={"a": "b"}), former).generation == 5
    assert succeeding(PoolSpec(max=9), None, unused=2).generation == 2


def test_a_record_is_read_as_it_was_written_and_one_with_more_fields_too() -> None:
    spec = PoolSpec(max=3, num_gpus=1.0, labels={"a": "b"}, generation=2)
    assert codec.decode_pool(codec.encode_pool(spec)) == spec
    assert codec.decode_pool(b'{"max": 3, "runtime_env": {}}') == PoolSpec(max=3)
    assert (fixed(spec, 2).elastic, spec.elastic) == (False, True)
