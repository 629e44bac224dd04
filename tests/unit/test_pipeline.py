"""What a launch has to give a pipeline, and what a pipeline wants of a runner."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.errors import Invalid
from orchestrator.pipeline import (
    Input,
    PipelineDefinition,
    Stage,
    check_definition,
    check_name,
    checked,
    modules_to_match,
)

BUILD = (Stage("build"),)


def definition(**given: Any) -> PipelineDefinition:
    return PipelineDefinition(name="Example", stages=BUILD, **given)


@pytest.mark.parametrize(
    ("wanted", "given", "message"),
    [
        (Input("x", required=True), {}, "Missing required input 'x' (type: string)"),
        (Input("x", required=True), {"x": None}, "Missing required input 'x' (type: string)"),
        (Input("count", "number", required=True), {}, "Missing required input 'count' (type: number)"),
        (Input("x", "number"), {"x": "a"}, "Input 'x' expected type 'number', but got: \"a\""),
        (Input("x", "number"), {"x": True}, "Input 'x' expected type 'number', but got: true"),
        (Input("x", "number"), {"x": " 3"}, "Input 'x' expected type 'number', but got: \" 3\""),
        (Input("x", "number"), {"x": "1e999"}, "Input 'x' expected type 'number', but got: \"1e999\""),
        (Input("x", "bool"), {"x": "yes"}, "Input 'x' expected type 'bool', but got: \"yes\""),
        (Input("x", "bool"), {"x": 1}, "Input 'x' expected type 'bool', but got: 1"),
        (Input("x"), {"x": 3}, "Input 'x' expected type 'string', but got: 3"),
        (Input("x", options=("a", "b")), {"x": "c"}, "Invalid value for input 'x'. Must be one of: a, b"),
        (Input("x", "number", options=(1, 2.5)), {"x": "3"}, "Invalid value for input 'x'. Must be one of: 1, 2.5"),
        (Input("x", secret=True), {"x": 1234567}, "Input 'x' expected type 'string', but got: ***"),
    ],
)
def test_parameters_that_do_not_fit_are_refused_in_the_contracts_words(
    wanted: Input, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(Invalid) as refused:
        checked([wanted], given)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("wanted", "given", "filled"),
    [
        (Input("x", "number"), {"x": "3"}, {"x": 3}),
        (Input("x", "number"), {"x": "2.5e1"}, {"x": 25.0}),
        (Input("x", "number"), {"x": 7}, {"x": 7}),
        (Input("x", "bool"), {"x": "false"}, {"x": False}),
        (Input("x"), {"x": "3"}, {"x": "3"}),
        (Input("x", default="hi"), {}, {"x": "hi"}),
        (Input("x", default="hi"), {"x": ""}, {"x": ""}),
        (Input("x", "bool", default=False), {}, {"x": False}),
        (Input("x", "number", options=(1, 2)), {"x": "2"}, {"x": 2}),
        (Input("x"), {}, {}),
        (Input("x"), {"y": {"any": "thing"}}, {"y": {"any": "thing"}}),
    ],
)
def test_defaults_are_filled_in_and_texts_become_what_they_stand_for(
    wanted: Input, given: dict[str, Any], filled: dict[str, Any]
) -> None:
    assert checked([wanted], given) == filled


def test_the_parameters_of_a_caller_are_left_as_they_were() -> None:
    given = {"x": "3"}
    checked([Input("x", "number"), Input("y", default="z")], given)
    assert given == {"x": "3"}


def test_more_than_500_kib_of_parameters_are_refused() -> None:
    checked([], {"x": "a" * (500 * 1024 - len('{"x":""}'))})
    with pytest.raises(Invalid, match="too large"):
        checked([], {"x": "a" * (500 * 1024 - len('{"x":""}') + 1)})


@pytest.mark.parametrize("secret", [Input("t", secret=True, default="hunter2"), Input("t", "number", secret=True)])
def test_a_secret_input_is_a_text_that_does_not_stand_in_the_script(secret: Input) -> None:
    with pytest.raises(Invalid, match=r"^Invalid pipeline definition: secret input 't'"):
        check_definition(definition(inputs=(secret,)))
    check_definition(definition(inputs=(Input("t", secret=True, required=True),)))


@pytest.mark.parametrize(
    ("made", "wanted", "tags", "modules"),
    [
        (definition(required_modules=("log", "env")), (), (), ()),
        (definition(required_modules=("log", "docker", "docker")), (), None, ("docker",)),
        (definition(required_modules=("docker",)), ("podman", "log"), (), ("podman",)),
        (definition(tags=({"key": "capability", "value": "gpu"}, "ci")), (), (), ("gpu",)),
        (definition(required_modules=("a",)), (), ({"key": "capability", "value": "b"},), ("a", "b")),
        (definition(required_modules=("a",)), (), ({"key": "os", "value": "linux"},), ("a",)),
    ],
)
def test_modules_come_from_the_body_or_else_the_script_and_from_capability_tags(
    made: PipelineDefinition, wanted: tuple[str, ...], tags: Any, modules: tuple[str, ...]
) -> None:
    assert modules_to_match(made, wanted, tags) == modules


@pytest.mark.parametrize(
    ("name", "message"),
    [("", "Pipeline name cannot be empty"), ("a" * 256, "Pipeline name is too long (max 255 characters)")],
)
def test_a_name_has_1_to_255_characters(name: str, message: str) -> None:
    check_name("a" * 255)
    with pytest.raises(Invalid) as refused:
        check_name(name)
    assert str(refused.value) == message
