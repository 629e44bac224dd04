"""actors.lua_stages and process_backend: stages are played, commands run where they may, and nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest

from actors.lua_stages import as_texts, run_stages
from actors.process_backend import CAPTURE_MAX, backend
from orchestrator.errors import Invalid
from orchestrator.pipeline_views import Claimed, JobResult
from tests.waiting import is_gone, until

Log = list[tuple[str, str]]


async def play(
    script: str, *, place: str = "none", env: dict[str, str] | None = None, **parameters: Any
) -> tuple[JobResult, Log]:
    """Result and log of a job of that script."""
    log: Log = []
    claimed = Claimed("j", "p", script, parameters, env or {})
    result = await run_stages(
        claimed, backend(place, lambda: "c1"), lambda level, message: log.append((level, message))
    )
    return result, log


async def stage(body: str, **more: Any) -> tuple[JobResult, Log]:
    """Result and log of a job of one stage, without the line that it starts."""
    result, log = await play(f'return {{ stages = {{ {{ name = "a", script = function() {body} end }} }} }}', **more)
    assert log[0] == ("Info", "Starting stage: a")
    return result, log[1:]


def failed(message: str) -> JobResult:
    return JobResult(success=False, exit_code=1, error_message=message)


# ── stages ────────────────────────────────────────────────────────────────────────────────────────


async def test_the_example_of_the_contract_says_hi() -> None:
    result, log = await play(
        """return { name = "Example", description = "d", requires = {"log"},
        inputs = { message = { type = "string", description = "m", required = false, default = "hi" } },
        stages = { { name = "build", script = function() log.info(input.get("message", "none")) end } } }""",
        message="hi",
    )
    assert result == JobResult(success=True, exit_code=0)
    assert log == [("Info", "Starting stage: build"), ("Info", "hi")]


async def test_stages_run_in_order_and_share_outputs_until_one_fails() -> None:
    result, log = await play("""return pipeline.builder()
        :stage({name = "one", script = function() output.set("n", 1) end})
        :stage({name = "two", condition = function() return output.get("n") == 2 end, script = error})
        :stage({name = "three", condition = function() return output.get("n") == 1 end,
                script = function() log.warning(output.require("n")) error("boom", 0) end})
        :stage({name = "four", script = function() log.info("never") end})""")
    assert result == failed("Stage 'three' failed: boom")
    assert log == [
        ("Info", "Starting stage: one"),
        ("Info", "Skipping stage: two"),
        ("Info", "Starting stage: three"),
        ("Warning", "1"),
        ("Error", "Stage 'three' failed: boom"),
    ]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ('error("boom")', "pipeline:1: boom"),
        ("error({})", "(error object is a table value)"),
        ('local s = "x" while true do s = s .. s end', "not enough memory"),
        ('input.require("x")', "pipeline:1: required input 'x' is not set"),
        ('env.require("x")', "pipeline:1: required variable 'x' is not set"),
        ('process.run{cmd = "ls"}', "pipeline:1: process execution is disabled"),
        ('container.with("i", print)', "pipeline:1: process execution is disabled"),
        ("process.run{}", "pipeline:1: process.run: cmd must be a string"),
        ('process.run{cmd = "ls", args = {{}}}', "pipeline:1: process.run: args must be strings, not table"),
        ('process.run{cmd = "ls", stdout_level = "x"}',
         "pipeline:1: process.run: stdout_level must be debug, info, warning or error"),
        ('output.set("x", print)',
         "pipeline:1: output values must be strings, numbers, booleans or tables, not function"),
        ('output.set("x", {1 / 0})', "pipeline:1: output values must be finite numbers"),
        ('local t = {} t.t = t output.set("x", t)', "pipeline:1: output values are nested too deeply"),
        ("input.get()", "pipeline:1: the name must be a string, not nil"),
    ],
)  # fmt: skip
async def test_an_error_ends_the_job(body: str, told: str) -> None:
    result, log = await stage(body)
    assert result == failed(f"Stage 'a' failed: {told}")
    assert log == [("Error", f"Stage 'a' failed: {told}")]


async def test_what_a_script_catches_is_text_and_no_object_of_ours() -> None:
    _, log = await stage('local fine, told = pcall(process.run, {cmd = "ls"}) log.info(type(told)) log.info(told)')
    assert log == [("Info", "string"), ("Info", "process execution is disabled")]


async def test_a_script_that_cannot_be_loaded_ends_the_job() -> None:
    result, log = await play("return {")
    assert result == failed("Invalid Lua script: pipeline:1: unexpected symbol near <eof>")
    assert log == [("Error", "Invalid Lua script: pipeline:1: unexpected symbol near <eof>")]


async def test_parameters_are_texts_and_env_sees_the_pipelines_variables_but_none_of_ours() -> None:
    result, log = await stage(
        """for _, name in ipairs(input.keys()) do log.debug(name .. "=" .. input.get(name)) end
        log.info(env.get("FROM_CONFIG") .. env.get("text"))
        log.info(tostring(env.has("HOME")) .. tostring(input.has("FROM_CONFIG")))
        log.error(input.get("none", "default") .. #env.all().text)""",
        env={"FROM_CONFIG": "c", "text": "less than a parameter"},
        text="é",
        yes=True,
        three=3.0,
        half=0.5,
        many=[1, {"a": None}],
        none=None,
    )
    assert result.success
    assert log == [
        ("Debug", "half=0.5"),
        ("Debug", 'many=[1, {"a": null}]'),
        ("Debug", "text=é"),
        ("Debug", "three=3"),
        ("Debug", "yes=true"),
        ("Info", "cé"),
        ("Info", "falsefalse"),
        ("Error", "default2"),
    ]


def test_parameters_without_fraction_have_none_in_their_text() -> None:
    assert as_texts({"a": 1e21, "b": -0.0, "c": False}) == {"a": "1000000000000000000000", "b": "0", "c": "false"}


@pytest.mark.parametrize(
    ("body", "output"),
    [
        ("", None),
        ('output.set("a", 1) output.clear("a")', None),
        ('output.set("a", 1) output.clear_all()', None),
        ('output.set("a", 1) output.set("a", nil)', None),
        ('output.set("a", {1, "x", true, {k = 1.5}}) output.set("b", {})', {"a": [1, "x", True, {"k": 1.5}], "b": {}}),
        ('local t = {1} output.set("a", t) t[1] = 2', {"a": [1]}),
        ('output.set("a", {[3] = 1}) output.set("b", "\\xff")', {"a": {"3": 1}, "b": "\N{REPLACEMENT CHARACTER}"}),
    ],
)
async def test_the_output_is_what_was_set_last(body: str, output: Any) -> None:
    result, _ = await stage(body)
    assert result == JobResult(success=True, exit_code=0, output=output)


async def test_an_output_has_an_end() -> None:
    result, _ = await stage('output.set("a", ("x"):rep(2e6))')
    assert result == failed("Invalid output: more than 1048576 bytes of text")


async def test_a_long_message_comes_in_pieces() -> None:
    _, log = await stage('log.info(("é"):rep(15000))')
    assert [len(message) for _, message in log] == [10_000, 5_000]


async def test_cancelling_a_job_leaves_no_process(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    body = f'process.run{{cmd = "sh", args = {{"-c", "echo $$ > {mark}; sleep 60"}}}}'
    playing = asyncio.create_task(stage(body, place="local"))
    await until(lambda: mark.exists() and mark.read_text().strip() != "")
    pid = int(mark.read_text())
    playing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await playing
    assert is_gone(pid)


# ── commands ──────────────────────────────────────────────────────────────────────────────────────


async def test_a_command_runs_in_the_jobs_workspace_with_a_clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_RUNNER", "x")
    result, log = await stage(
        """process.run{cmd = "mkdir", args = {"sub"}}
        local ran = process.run{cmd = "sh", args = {"-c", "pwd; env; echo wrong >&2; exit 3"}, cwd = "sub",
          env = {GIVEN = "g"}, stdout_level = "debug", stderr_level = "warning"}
        output.set("code", ran.exit_code) output.set("out", ran.stdout) output.set("err", ran.stderr)""",
        place="local",
        env={"FROM_CONFIG": "c"},
    )
    assert result.success
    assert result.output["code"] == 3
    assert result.output["err"] == "wrong\n"
    where, *variables = result.output["out"].splitlines()
    names = {line.partition("=")[0] for line in variables}
    assert names - {"_", "SHLVL", "OLDPWD"} == {"PWD", "PATH", "HOME", "LANG", "GIVEN", "FROM_CONFIG"}
    assert ("Debug", where) in log
    assert ("Warning", "wrong") in log
    assert where.endswith("/sub")
    assert is_no_folder(where)


async def test_lines_are_logged_while_the_command_runs() -> None:
    log: list[tuple[float, str]] = []
    script = """return { stages = { { name = "a", script = function()
      process.run{cmd = "sh", args = {"-c", "echo one; sleep 0.5; printf two"}} end } } }"""
    await run_stages(
        Claimed("j", "p", script, {}), backend("local", str), lambda _, text: log.append((time.monotonic(), text))
    )
    assert [text for _, text in log] == ["Starting stage: a", "one", "two"]
    assert log[2][0] - log[1][0] > 0.3


async def test_what_is_not_captured_is_logged_only() -> None:
    result, log = await stage(
        'output.set("out", process.run{cmd = "echo", args = {"x"}, capture_stdout = false}.stdout)', place="local"
    )
    assert result.output == {"out": ""}
    assert log == [("Info", "x")]


async def test_of_much_output_the_end_is_captured() -> None:
    body = """local ran = process.run{cmd = "sh", args = {"-c", "yes | head -c 2000000; printf end"}}
      output.set("n", #ran.stdout) output.set("end", ran.stdout:sub(-3))"""
    result, log = await stage(body, place="local")
    assert result.output == {"n": CAPTURE_MAX, "end": "end"}
    assert log[-1] == ("Warning", f"only the last {CAPTURE_MAX} characters that sh printed were kept")


async def test_a_command_that_is_not_there_has_the_shells_exit_code() -> None:
    result, _ = await stage('output.set("code", process.run{cmd = "no-such-command"}.exit_code)', place="local")
    assert result.output == {"code": 127}


async def test_a_folder_that_is_not_there_is_an_error() -> None:
    result, _ = await stage('process.run{cmd = "ls", cwd = "nowhere"}', place="local")
    assert result.error_message is not None
    assert "ls cannot be started in" in result.error_message


@pytest.mark.parametrize("body", ['container.with("i", print)', 'error("not reached")'])
async def test_without_containers_nothing_runs_in_one(body: str) -> None:
    script = f"""return {{ stages = {{ {{ name = "a", container = "i", script = function()
      process.run{{cmd = "ls"}} {body} end }} }} }}"""
    result, _ = await play(script, place="local")
    assert result == failed("Stage 'a' failed: pipeline:2: this runner has no containers (process backend local)")


@pytest.fixture
def podman(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for podman, first on the path: it writes down how it was called, and its environment."""
    calls = tmp_path / "calls"
    script = tmp_path / "podman"
    script.write_text(f'#!/bin/sh\necho "$@" "[$TOKEN]" >> {calls}\ncase "$*" in *" sleep "*) exec sleep 60;; esac\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return calls


async def test_podman_runs_each_command_in_its_image(podman: Path) -> None:
    script = """return { stages = { { name = "a", container = "one", script = function()
        process.run{cmd = "c1", args = {"x y"}, cwd = "sub", env = {TOKEN = "s", PATH = "/p"}}
        container.with("two", function() container.with("three", function() process.run{cmd = "c2"} end)
          process.run{cmd = "c3"} end)
        pcall(container.with, "four", error)
        process.run{cmd = "c4"} end },
      { name = "b", script = function() process.run{cmd = "c5"} end } } }"""
    result, _ = await play(script, place="podman")
    assert result.success, result
    calls = lines_of(podman)
    workspace = calls[0].split("--volume=")[1].split(":")[0]
    common = f"run --rm --name=orchestrator-c1 --volume={workspace}:/workspace --workdir=/workspace"
    # a table has no order in Lua
    first = calls[0].replace("--env=PATH=/p --env=TOKEN", "--env=TOKEN --env=PATH=/p")
    assert [first, *calls[1:]] == [
        f"{common}/sub --env=TOKEN --env=PATH=/p one c1 x y [s]",
        f"{common} three c2 []",
        f"{common} two c3 []",
        f"{common} one c4 []",
        f"{common} docker.io/alpine:latest c5 []",
    ]


async def test_a_cancelled_container_is_removed(podman: Path) -> None:
    playing = asyncio.create_task(stage('process.run{cmd = "sleep", args = {"60"}}', place="podman"))
    await until(podman.exists)
    playing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await playing
    assert lines_of(podman)[1] == "rm --force --ignore orchestrator-c1 []"


def lines_of(file: Path) -> list[str]:
    return file.read_text().splitlines()


def is_no_folder(path: str) -> bool:
    return not Path(path).exists()


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(Invalid, match="choose of none, podman, local"):
        backend("docker", str)
