"""The process that runs one script: reads what to do, confines itself, runs it, tells what came of it. No server code.

    first line in    {"parent": pid, "source", "memory_bytes", "cpu_s": n | null} and, to run its stages, also
                     {"input": {name: text}, "env": {name: text}, "refuses_containers": text | null}
    lines out        {"log": [level, message]}
                     {"run": {"cmd", "args", "env", "cwd", "image", "capture_stdout", …}} ─▶ one line in:
                     {"exit_code", "stdout", "stderr"} or {"error": message}
    last line out    {"refused": message} | {"definition": {…}} | {"ended": message | null, "output": {…} | null}

Started by `lua_process.py` as `python -I -S`, which is ready in a hundredth of a second: only the standard library and
`lupa` are imported. The last line is followed by `_exit`, so that no finalizer of the script runs after it. Texts of
the script that are no UTF-8 are shown with replacement characters.
"""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

from lupa.lua54 import LuaError, LuaRuntime, lua_type

from actors.lua_cage import confine, die_with_parent

#: bytes of address space beside what Lua may use: for this interpreter's own work
SLACK_BYTES = 32 * 1024 * 1024
#: values of a definition, and of one output
VALUES_MAX = 20_000
TEXT_MAX_BYTES = 1024 * 1024
DEPTH_MAX = 32
#: characters of one log message; longer ones are cut in pieces
MESSAGE_MAX = 10_000
_BOOT = Path(__file__).with_name("lua") / "sandbox.lua"

Json = dict[str, Any]


class Unplain(Exception):
    """A value that JSON cannot hold; the message says where and why."""


def main() -> NoReturn:
    """Runs the script that standard input asks for."""
    request = json.loads(sys.stdin.buffer.readline())
    die_with_parent(request["parent"])
    lua = LuaRuntime(
        encoding=None,
        register_eval=False,
        register_builtins=False,
        attribute_filter=_no_attribute,
        unpack_returned_tuples=True,
        max_memory=request["memory_bytes"],
    )
    tell(_answer(lua, request))
    os._exit(0)  # while `lua` is there: closing it would run the script's finalizers


def _answer(lua: Any, request: Json) -> Json:
    boot, source = _BOOT.read_bytes(), request["source"].encode()
    host = _host(lua, request) if "input" in request else None
    facts = {kind: lua.table_from(_texts(request.get(kind, {}))) for kind in ("input", "env")}
    confine(request["memory_bytes"] + SLACK_BYTES, request["cpu_s"])
    definition_of, run, outputs = lua.execute(boot, host, lua.table_from({k.encode(): v for k, v in facts.items()}))
    try:
        return _validated(definition_of(source)) if host is None else _ended(run(source), outputs)
    except (LuaError, MemoryError) as error:  # most likely out of memory outside the script's own code
        refused = f"Invalid Lua script: {str(error) or 'not enough memory'}"
        return {"refused": refused} if host is None else {"ended": refused, "output": None}


def tell(line: Json) -> None:
    """One line to the parent."""
    data = json.dumps(line).encode() + b"\n"
    try:
        while data:
            data = data[os.write(1, data) :]
    except OSError:
        os._exit(1)  # nobody wants to know any more


# ── what the script reaches through the modules ─────────────────────────────────────────────────


def _host(lua: Any, request: Json) -> Any:
    refusal = request["refuses_containers"]
    functions = {
        b"log": _log,
        b"run": _run,
        b"refuses_containers": lambda: None if refusal is None else refusal.encode(),
    }
    return lua.table_from(functions)


def _log(level: bytes, message: bytes) -> None:
    text = _shown(message)
    for start in range(0, max(1, len(text)), MESSAGE_MAX):
        tell({"log": [level.decode(), text[start : start + MESSAGE_MAX]]})


def _run(
    cmd: bytes,
    args: Any,
    env: Any,
    cwd: bytes | None,
    image: bytes | None,
    capture_stdout: bool,
    capture_stderr: bool,
    stdout_level: bytes,
    stderr_level: bytes,
) -> tuple[int | None, bytes, bytes]:
    """(exit code, stdout, stderr), or (None, what was refused, ""); a tuple becomes three values in Lua."""
    command = {
        "cmd": _shown(cmd),
        "args": [_shown(args[number]) for number in range(1, len(args) + 1)],
        "env": {_shown(name): _shown(value) for name, value in env.items()},
        "cwd": None if cwd is None else _shown(cwd),
        "image": None if image is None else _shown(image),
        "capture_stdout": capture_stdout,
        "capture_stderr": capture_stderr,
        "stdout_level": stdout_level.decode(),
        "stderr_level": stderr_level.decode(),
    }
    tell({"run": command})
    line = sys.stdin.buffer.readline()
    if not line:
        os._exit(1)  # the parent is gone
    reply = json.loads(line)
    if "error" in reply:
        return None, reply["error"].encode(), b""
    return reply["exit_code"], reply["stdout"].encode(), reply["stderr"].encode()


def _no_attribute(_object: object, name: object, _is_setting: bool) -> NoReturn:
    raise AttributeError(name)


# ── what comes out of it ────────────────────────────────────────────────────────────────────────


def _validated(outcome: Any) -> Json:
    definition, refused = outcome if isinstance(outcome, tuple) else (outcome, None)
    if definition is None:
        return {"refused": _shown(refused)}
    try:
        return {"definition": _definition(definition)}
    except Unplain as error:
        return {"refused": f"Invalid pipeline definition: {error}"}


def _ended(refused: bytes | None, outputs: Any) -> Json:
    if refused is not None:
        return {"ended": _shown(refused), "output": None}
    try:
        output = Plain().value(outputs, "the output", DEPTH_MAX)
    except Unplain as error:
        return {"ended": f"Invalid output: {error}", "output": None}
    return {"ended": None, "output": output or None}


def _definition(table: Any) -> Json:
    """The fields that a definition may have; of functions only that they are there."""
    plain, own = Plain(), dict(table.items())
    fields = ("name", "description", "requires", "plugins", "tags", "inputs")
    found = {name: plain.value(own.get(name.encode()), name, DEPTH_MAX) for name in fields}
    stages: Any = own.get(b"stages")
    if lua_type(stages) != "table":
        return found | {"stages": plain.value(stages, "stages", DEPTH_MAX)}
    listed = dict(stages.items())
    return found | {"stages": [_stage(plain, listed[n], n) for n in range(1, len(stages) + 1)]}


def _stage(plain: Plain, stage: Any, number: int) -> Json:
    if lua_type(stage) != "table":
        raise Unplain(f"stage {number} must be a table")
    own = dict(stage.items())
    named = {name: plain.value(own.get(name.encode()), f"stage {number}: {name}", 1) for name in ("name", "container")}
    return named | {name: _kind(own.get(name.encode())) for name in ("script", "condition")}


class Plain:
    """Values of Lua as JSON, at most VALUES_MAX of them and TEXT_MAX_BYTES of text."""

    def __init__(self) -> None:
        self._left = VALUES_MAX
        self._left_bytes = TEXT_MAX_BYTES

    def value(self, value: Any, where: str, depth: int) -> Any:
        """Arrays are tables with the keys 1 to n; an empty table is an object. Raises Unplain."""
        self._left -= 1
        if self._left < 0:
            raise Unplain(f"more than {VALUES_MAX} values")
        if isinstance(value, float) and not math.isfinite(value):
            raise Unplain(f"{where} must be a finite number")
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, bytes):
            return self._text(value)
        if lua_type(value) != "table":
            raise Unplain(f"{where} must not be a {lua_type(value) or type(value).__name__}")
        if depth == 0:
            raise Unplain(f"{where} is nested too deeply")
        found = {self._name(key): self.value(each, where, depth - 1) for key, each in value.items()}
        if found and set(found) == set(range(1, len(found) + 1)):
            return [found[number] for number in range(1, len(found) + 1)]
        return {name if isinstance(name, str) else str(name): each for name, each in found.items()}

    def _name(self, key: Any) -> Any:
        if isinstance(key, bytes):
            return self._text(key)
        if isinstance(key, bool) or not isinstance(key, int | float):
            raise Unplain(f"keys must be strings or numbers, not {lua_type(key) or type(key).__name__}")
        return key

    def _text(self, text: bytes) -> str:
        self._left_bytes -= len(text)
        if self._left_bytes < 0:
            raise Unplain(f"more than {TEXT_MAX_BYTES} bytes of text")
        return _shown(text)


def _kind(value: Any) -> str:
    if value is None:
        return "nil"
    return lua_type(value) or type(value).__name__


def _texts(values: dict[str, str]) -> dict[bytes, bytes]:
    return {name.encode("utf-8", "replace"): value.encode("utf-8", "replace") for name, value in values.items()}


def _shown(text: bytes) -> str:
    return text.decode("utf-8", "replace")
