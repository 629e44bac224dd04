"""actors.lua_sandbox: what a script may define, and what it may not do to us. Real children run the scripts."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from actors import lua_sandbox
from actors.lua_process import LuaDied, LuaProcess
from actors.lua_sandbox import LuaSandbox
from orchestrator.errors import Invalid, Unavailable
from orchestrator.pipeline import Input, PipelineDefinition, Stage

EXAMPLE = """return { name = "Example", description = "d", requires = {"log"},
  inputs = { message = { type = "string", description = "m", required = false, default = "hi" } },
  stages = { { name = "build", script = function() log.info(input.get("message", "none")) end } } }"""
STAGES = 'stages = { { name = "a", script = function() end } }'


async def refusal(source: str) -> str:
    """What `source` is refused with."""
    with pytest.raises(Invalid) as refused:
        await LuaSandbox().validate(source)
    return str(refused.value)


async def value_of(expression: str) -> str:
    """What the sandbox makes of an expression, as the name of a pipeline."""
    return (await LuaSandbox().validate(f"return {{ name = tostring({expression}), {STAGES} }}")).name


# ── what it may define ────────────────────────────────────────────────────────────────────────────


async def test_a_table_is_a_definition() -> None:
    assert await LuaSandbox().validate(EXAMPLE) == PipelineDefinition(
        name="Example",
        description="d",
        required_modules=("log",),
        inputs=(Input("message", "string", "m", required=False, default="hi"),),
        stages=(Stage("build"),),
    )


@pytest.mark.parametrize("end", [":build()", ""])
async def test_a_builder_defines_the_same_with_and_without_build(end: str) -> None:
    source = """return pipeline.builder():name("Example"):description("d"):input("message", {type="string"})
      :tag({key="os",value="linux"}):tag("ci"):plugin("docker"):stage({name="build",script=function() end})"""
    assert await LuaSandbox().validate(source + end) == PipelineDefinition(
        name="Example",
        description="d",
        required_modules=("docker",),
        tags=({"key": "os", "value": "linux"}, "ci"),
        inputs=(Input("message"),),
        stages=(Stage("build"),),
    )


async def test_define_gives_the_table_back() -> None:
    source = EXAMPLE.replace("return", "return pipeline.define(") + ")"
    assert await LuaSandbox().validate(source) == await LuaSandbox().validate(EXAMPLE)


async def test_a_script_may_use_its_modules_while_it_is_loaded() -> None:
    source = f"""log.info("loading") print("too")
      local name = input.get("name", "by default") .. input.require("other") .. tostring(env.has("x"))
      return {{ name = name, {STAGES} }}"""
    assert (await LuaSandbox().validate(source)).name == "by defaultfalse"


async def test_a_stage_has_an_image_and_a_condition() -> None:
    stage = '{ name = "a", script = print, condition = function() return true end, container = "alpine" }'
    definition = await LuaSandbox().validate(f"return {{ stages = {{ {stage} }} }}")
    assert definition.stages == (Stage("a", container="alpine", conditional=True),)
    assert definition.name == ""


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("", "Pipeline script cannot be empty"),
        (" \n", "Pipeline script cannot be empty"),
        ("return {", "Invalid Lua script: pipeline:1: unexpected symbol near <eof>"),
        ('return {name="x",stages={}}', "Pipeline must have at least one stage"),
        ('return {name="x"}', "Pipeline must have at least one stage"),
        ("x = 1", "Invalid pipeline definition: the script must return a table, not nil"),
        ("return 7", "Invalid pipeline definition: the script must return a table, not number"),
        ('return os.execute("id")', "Invalid Lua script: pipeline:1: attempt to index a nil value (global 'os')"),
        ('return {stages="x"}', "Invalid pipeline definition: stages must be an array"),
        ("return {stages={1}}", "Invalid pipeline definition: stage 1 must be a table"),
        ("return {stages={{script=print}}}", "Invalid pipeline definition: stage 1 has no name"),
        ('return {stages={{name="a"}}}', "Invalid pipeline definition: script of stage 'a' must be a function"),
        (
            'return {stages={{name="a",script=print,condition=1}}}',
            "Invalid pipeline definition: condition of stage 'a' must be a function",
        ),
        (
            'return {stages={{name="a",script=print},{name="a",script=print}}}',
            "Invalid pipeline definition: there are two stages 'a'",
        ),
        (f"return {{ name = 1, {STAGES} }}", "Invalid pipeline definition: name must be a string"),
        (f"return {{ name = print, {STAGES} }}", "Invalid pipeline definition: name must not be a function"),
        (f"return {{ requires = 'log', {STAGES} }}", "Invalid pipeline definition: requires must be an array"),
        (
            f"return {{ requires = {{1}}, {STAGES} }}",
            "Invalid pipeline definition: requires must be an array of strings",
        ),
        (
            f"return {{ tags = {{ {{key='a'}} }}, {STAGES} }}",
            "Invalid pipeline definition: tags must be strings or tables with key and value",
        ),
        (
            f"return {{ inputs = {{ x = {{type='date'}} }}, {STAGES} }}",
            "Invalid pipeline definition: type of input 'x' must be one of string, number, bool",
        ),
        (
            f"return {{ inputs = {{ x = {{type='number', default='a'}} }}, {STAGES} }}",
            "Invalid pipeline definition: default of input 'x': Input 'x' expected type 'number', but got: \"a\"",
        ),
        (
            f"return {{ inputs = {{ x = {{default=0/0}} }}, {STAGES} }}",
            "Invalid pipeline definition: inputs must be a finite number",
        ),
        ("error({code=1})", "Invalid Lua script: (error object is a table value)"),
        ("error(nil)", "Invalid Lua script: (error object is a nil value)"),
        ('error(setmetatable({}, {__tostring = function() return "told" end}))', "Invalid Lua script: told"),
        ('error("\\xff", 0)', "Invalid Lua script: \N{REPLACEMENT CHARACTER}"),
        ("coroutine.yield(1)", "Invalid Lua script: attempt to yield from outside a coroutine"),
        (
            'process.run{cmd="ls"}',
            "Invalid Lua script: pipeline:1: process.run can only be called inside a stage",
        ),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_said(source: str, told: str) -> None:
    assert await refusal(source) == told


async def test_a_script_of_more_than_a_mebibyte_is_refused_unread() -> None:
    assert await refusal("x" * (1024 * 1024 + 1)) == "Invalid Lua script: it is longer than 1048576 bytes"
    await LuaSandbox().validate(EXAMPLE + " " * (1024 * 1024 - len(EXAMPLE)))


async def test_half_a_surrogate_is_no_reason_to_fail() -> None:
    assert await refusal('error("\ud800", 0)') == "Invalid Lua script: ?"


# ── what it may not do ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "name",
    [
        "io", "os", "debug", "package", "require", "load", "loadstring", "dofile", "loadfile", "collectgarbage",
        "python", "warn", "string.dump", '("").dump', "_G.io", "_G._G.os", "_ENV.debug", "getmetatable(_G)",
        "_G.python",
    ],
)  # fmt: skip
async def test_there_is_no(name: str) -> None:
    assert await value_of(name) == "nil"


async def test_the_metatable_of_strings_is_out_of_reach() -> None:
    assert await value_of('getmetatable("")') == "false"
    assert "attempt to index a boolean" in await refusal('getmetatable("").__index = nil')
    assert "bad argument #1 to 'setmetatable'" in await refusal('setmetatable("", {})')
    assert await value_of('(function() string.rep = nil string.upper = nil return ("x"):rep(3) end)()') == "xxx"


async def test_binary_chunks_are_refused() -> None:
    assert await refusal("\x1bLua") == "Invalid Lua script: attempt to load a binary chunk (mode is 't')"


ENDLESS = {
    "a loop": "while true do end",
    "a loop that catches everything": "while true do pcall(function() while true do end end) end",
    "a coroutine": "local f = coroutine.wrap(function() while true do coroutine.yield() end end) while true do f() end",
    "a pattern": 'return string.rep("a", 30000):gsub(".-.-.-.-b", "x")',
    "the text of an error": "error(setmetatable({}, {__tostring = function() while true do end end}))",
    "the end of a scope": "local x <close> = setmetatable({}, {__close = function() while true do end end}) error(1)",
}  # fmt: skip


@pytest.mark.parametrize("source", ENDLESS.values(), ids=ENDLESS.keys())
async def test_what_never_ends_is_ended(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lua_sandbox, "CPU_S", 1)
    monkeypatch.setattr(lua_sandbox, "WALL_S", 60)
    assert await refusal(source) == "Invalid Lua script: it used too much CPU time"


async def test_an_endless_script_takes_less_than_six_seconds() -> None:
    start = time.monotonic()
    assert (await refusal("while true do end")).startswith("Invalid Lua script: it ")
    assert time.monotonic() - start < 6


HUGE = {
    "ten gibibytes at once": ('return string.rep("x", 10 << 30)', "resulting string too large"),
    "a string that doubles": ('local s = "x" while true do s = s .. s end', "not enough memory"),
    "tables": ("local t = {} while true do t[#t + 1] = {} end", "not enough memory"),
    "recursion": ("local function f() return f() + 1 end f()", "not enough memory"),
    "many values": ("return table.unpack({}, 1, 1e8)", "too many results to unpack"),
    "nesting": (f"return {'{' * 100_000}", "C stack overflow"),
    "a pattern": ('return ("a"):rep(3000):find(("a?"):rep(3000) .. ("a"):rep(3000))', "pattern too complex"),
    "concat": ('local t = {} for i = 1, 1e5 do t[i] = ("x"):rep(1e4) end return table.concat(t)', "not enough memory"),
}  # fmt: skip


@pytest.mark.parametrize(("source", "told"), HUGE.values(), ids=HUGE.keys())
async def test_what_is_too_large_is_an_error_of_the_script(source: str, told: str) -> None:
    assert (await refusal(source)).endswith(told)


async def test_a_script_that_survives_its_memory_error_is_read_as_any_other() -> None:
    source = f'pcall(function() local s = "x" while true do s = s .. s end end) return {{ {STAGES} }}'
    assert len((await LuaSandbox().validate(source)).stages) == 1


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("local t = {} t.name = t return t", "name is nested too deeply"),
        ("local t = {} for i = 1, 1e5 do t[i] = i end return {inputs = t}", "more than 20000 values"),
        ("return {inputs = {[print] = 1}}", "keys must be strings or numbers, not function"),
        ('return {description = ("x"):rep(3e7)}', "more than 1048576 bytes of text"),
        ('return {[("x"):rep(3e7)] = 1, inputs = {[("x"):rep(2e6)] = {}}}', "more than 1048576 bytes of text"),
    ],
)
async def test_a_definition_has_an_end(source: str, told: str) -> None:
    assert (await refusal(source)).endswith(told)


async def test_no_metamethod_of_a_definition_runs() -> None:
    never = "setmetatable({}, {__index = error, __len = error, __pairs = error})"
    source = f"return setmetatable({{ stages = setmetatable({{ {never} }}, {{__len = error}}) }}, {{__index = error}})"
    assert await refusal(source) == "Invalid pipeline definition: stage 1 has no name"


async def test_no_finalizer_runs_after_the_definition_is_read() -> None:
    start = time.monotonic()
    await LuaSandbox().validate(f"return setmetatable({{ {STAGES} }}, {{__gc = function() while true do end end}})")
    assert time.monotonic() - start < 1.5


# ── its process ───────────────────────────────────────────────────────────────────────────────────


async def test_scripts_take_turns_and_the_loop_goes_on_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lua_sandbox, "PATIENCE_S", 0.2)
    monkeypatch.setattr(lua_sandbox, "CPU_S", 1)
    sandbox = LuaSandbox()
    endless = [asyncio.create_task(sandbox.validate(ENDLESS["a loop"])) for _ in range(2)]
    await asyncio.sleep(0.1)
    start = time.monotonic()
    with pytest.raises(Unavailable):
        await sandbox.validate(EXAMPLE)
    assert time.monotonic() - start < 1
    outcomes = await asyncio.gather(*endless, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Invalid, Invalid]
    await sandbox.validate(EXAMPLE)


async def test_a_stopped_child_is_killed_after_the_time_on_the_wall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lua_sandbox, "WALL_S", 0.5)
    validating = asyncio.create_task(refusal(ENDLESS["a loop"]))
    await asyncio.sleep(0.2)
    (child,) = children()
    os.kill(child, signal.SIGSTOP)
    assert await validating == "Invalid Lua script: it took longer than 0.5 s"
    assert children() == []


async def test_cancelling_a_validation_leaves_no_child() -> None:
    validating = asyncio.create_task(LuaSandbox().validate(ENDLESS["a loop"]))
    await asyncio.sleep(0.2)
    assert len(children()) == 1
    validating.cancel()
    start = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await validating
    assert children() == []
    assert time.monotonic() - start < 1  # and not when its time is over


async def test_a_child_has_no_environment_and_no_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_SERVER", "x")
    request = {"source": "while true do end", "memory_bytes": 1 << 26, "cpu_s": 2}
    async with LuaProcess(request):
        await asyncio.sleep(0.2)
        (child,) = children()
        assert facts_of(child) == {"environ": b"", "fd": ["0", "1", "2"], "Seccomp": "2", "NoNewPrivs": "1"}


def test_a_caged_process_reaches_nothing() -> None:
    tries = """
import os, socket, subprocess, sys
from actors.lua_cage import confine
confine(1 << 26, None)
def refused(what):
    try:
        what()
    except (OSError, MemoryError) as error:
        return type(error).__name__
    return "allowed"
print(refused(lambda: open("/etc/passwd")), refused(lambda: socket.socket()), refused(os.fork),
      refused(lambda: os.kill(os.getppid(), 9)), refused(lambda: bytearray(1 << 27)),
      refused(lambda: bytearray(1 << 20)), refused(lambda: os.unlink("nothing")), flush=True)
os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", tries], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [
        *["PermissionError"] * 4, "MemoryError", "allowed", "PermissionError",
    ], done.stderr  # fmt: skip


def test_a_child_dies_with_its_parent() -> None:
    starter = """
import asyncio, os
from actors.lua_process import LuaProcess
async def main():
    async with LuaProcess({"source": "while true do end", "memory_bytes": 1 << 26, "cpu_s": None}) as child:
        print(child._process.pid, flush=True)
        await asyncio.sleep(0.3)
        os._exit(9)
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", starter], capture_output=True, text=True, check=False)
    deadline = time.monotonic() + 3
    while Path(f"/proc/{int(done.stdout)}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{int(done.stdout)}").exists() or " Z " in Path(f"/proc/{int(done.stdout)}/stat").read_text()


async def test_a_child_that_is_killed_is_told_of() -> None:
    async with LuaProcess({"source": "while true do end", "memory_bytes": 1 << 26, "cpu_s": None}) as process:
        await asyncio.sleep(0.1)
        (child,) = children()
        os.kill(child, signal.SIGKILL)
        with pytest.raises(LuaDied, match="it was killed"):
            await process.line()


def facts_of(child: int) -> dict[str, object]:
    """What `/proc` tells about it."""
    proc = Path(f"/proc/{child}")
    status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
    told = {name: status[name].strip() for name in ("Seccomp", "NoNewPrivs")}
    return {"environ": (proc / "environ").read_bytes(), "fd": sorted(os.listdir(proc / "fd")), **told}


def children() -> list[int]:
    """Living Lua children of this process."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            title = (entry / "cmdline").read_text()
        except OSError:
            continue
        if int(parent) == os.getpid() and state != "Z" and "lua_child" in title:
            found.append(int(entry.name))
    return found
