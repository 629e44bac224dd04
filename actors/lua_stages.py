"""Runs the stages of one CI job: the script in a confined child, its commands where the process backend says.

    child (lua_child.py) ── log lines, commands ──▶ here ── write(level, message) ──▶ the job's log
                         ◀── what came of them ────      ── ProcessBackend ──▶ processes in the job's workspace

Nothing of a job outlives this coroutine: the child, the command that runs and the workspace are gone when it returns or
is cancelled, and the child dies with this process, too. Source: pipelines contract, section 5, "Stage modules".
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.lua_process import Json, LuaDied, LuaProcess
from actors.process_backend import Command, ProcessBackend, ProcessRefused, Write
from orchestrator.pipeline_views import Claimed, JobResult

#: what Lua may use; its time is the job's
MEMORY_BYTES = 256 * 1024 * 1024
#: bytes of the output as JSON
OUTPUT_MAX = 1024 * 1024
#: modules that every runner has
MODULES = ("log", "env", "input", "output")


async def run_stages(claimed: Claimed, backend: ProcessBackend, write: Write) -> JobResult:
    """How the job ended; all that it logged was handed to `write` before."""
    told = as_texts(claimed.parameters)
    request = {
        "source": claimed.pipeline_source.encode("utf-8", "replace").decode(),
        "memory_bytes": MEMORY_BYTES,
        "cpu_s": None,
        "input": told,
        "env": claimed.env_vars | told,
        "refuses_containers": backend.refuses_containers,
    }
    with tempfile.TemporaryDirectory(prefix="orchestrator-ci-", ignore_cleanup_errors=True) as workspace:
        try:
            async with LuaProcess(request) as child:
                result = _result(await _play(child, _Place(backend, Path(workspace), claimed.env_vars, write)))
        except LuaDied as died:
            result = _failed(f"The script was ended: {died}")
    if result.error_message is not None:
        write("Error", result.error_message)
    return result


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a job's commands run and what they find."""

    backend: ProcessBackend
    workspace: Path
    env: Mapping[str, str]
    write: Write

    async def run(self, wanted: Json) -> Json:
        """The reply to a script's `process.run`."""
        command = Command(**wanted | {"env": {**self.env, **wanted["env"]}})
        try:
            ran = await self.backend.run(command, self.workspace, self.write)
        except ProcessRefused as refused:
            return {"error": str(refused)}
        return {"exit_code": ran.exit_code, "stdout": ran.stdout, "stderr": ran.stderr}


async def _play(child: LuaProcess, place: _Place) -> Json:
    """The child's last line, once it has all that it asked for."""
    while True:
        line = await child.line()
        if "log" in line:
            level, message = line["log"]
            place.write(level, message)
        elif "run" in line:
            await child.reply(await place.run(line["run"]))
        else:
            return line


def _result(last: Json) -> JobResult:
    if last["ended"] is not None:
        return _failed(last["ended"])
    if len(json.dumps(last["output"])) > OUTPUT_MAX:
        return _failed(f"The output is larger than {OUTPUT_MAX} bytes")
    return JobResult(success=True, exit_code=0, output=last["output"])


def _failed(why: str) -> JobResult:
    return JobResult(success=False, exit_code=1, error_message=why)


def as_texts(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Parameters as scripts see them: texts, `true`, numbers without trailing `.0`, other values as JSON; no nulls."""
    return {name: _as_text(value) for name, value in parameters.items() if value is not None}


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value, ensure_ascii=False)
