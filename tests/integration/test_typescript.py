"""The generated TypeScript compiles under strict rules, and Node drives it: REST, WebSocket and server-sent events.

Two servers: one in memory that has every surface and can break connections off, and the real one. Tests of a surface
that a server's description lacks are left out, so those of a new surface run as soon as it is there.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve_app import typegen
from serve_app.app import describe
from tests.live import Server
from tests.stand_in import TOKEN, StandIn, serving

ROOT = Path(__file__).parents[2]
HERE = ROOT / "tests" / "typescript"
EXAMPLE = ROOT / "examples" / "react-query" / "orchestrators.tsx"
#: source -> path without which it has nothing to test
NEEDS = {
    "runs.test.ts": "/runs",
    "instances.test.ts": "/api/orchestrators/{instance_id}/events-sse",
    "pipelines.test.ts": "/api/jobs/{job_id}/logs/stream",
    EXAMPLE.name: "/api/orchestrators",
}
#: one task after the other, so many that an orchestrator can be paused before it is through
PLAN = "\n".join(
    (
        "# Implementation Plan: Demo",
        "## Phase 1: Setup",
        "- [ ] 1.1 Begin",
        *(f"- [ ] 1.{n} Go on (depends: 1.{n - 1})" for n in range(2, 61)),
        "## Phase 2: Check",
        "- [ ] 2.1 Run the checks",
        "",
    )
)


def run(*command: str, cwd: Path, environ: Mapping[str, str] | None = None, timeout_s: float = 300) -> str:
    """Standard output of a command that must end well."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **(environ or {})},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-8000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="session")
def modules() -> Path:
    """The packages of package-lock.json, installed."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        if os.environ.get("CI"):
            pytest.fail("node and npm are missing")
        pytest.skip("node and npm are not installed")
    modules, lock = HERE / "node_modules", (HERE / "package-lock.json").read_bytes()
    stamp, digest = modules / ".installed", hashlib.sha256(lock).hexdigest()
    if not stamp.exists() or stamp.read_text() != digest:
        run("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", cwd=HERE)
        stamp.write_text(digest)
    return modules


def project(folder: Path, modules: Path, description: Mapping[str, Any]) -> Path:
    """A TypeScript project with what can be tested of such a server; `src/lib` is for the generated files."""
    (folder / "src" / "lib").mkdir(parents=True)
    for name in ("package.json", "tsconfig.json"):
        shutil.copy(HERE / name, folder)
    for source in (*(HERE / "src").iterdir(), EXAMPLE):
        if NEEDS.get(source.name, "/health") in description["paths"]:
            shutil.copy(source, folder / "src")
    (folder / "node_modules").symlink_to(modules)
    return folder


def compile_strictly(folder: Path) -> None:
    run("node_modules/.bin/tsc", "--strict", "--noEmitOnError", cwd=folder)


def drive(folder: Path, url: str, token: str, **environ: str) -> int:
    """How many of the project's tests passed against this server; all must."""
    tests = sorted(str(each) for each in (folder / "build").glob("*.test.js"))
    said = run("node", "--test", "--test-reporter=tap", *tests, cwd=folder, timeout_s=120, environ={
        "ORCHESTRATOR_TEST_URL": url, "ORCHESTRATOR_TEST_TOKEN": token, **environ,
    })  # fmt: skip
    counts = dict(re.findall(r"^# (pass|fail|skipped) (\d+)$", said, re.M))
    assert (counts["fail"], counts["skipped"]) == ("0", "0")
    return int(counts["pass"])


@pytest.fixture(scope="module")
def whole(modules: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compiled project over every surface."""
    description = StandIn().description
    folder = project(tmp_path_factory.mktemp("whole"), modules, description)
    typegen.generate(description, folder / "src" / "lib")
    compile_strictly(folder)
    return folder


def test_every_surface_is_driven_over_cut_connections(whole: Path) -> None:
    with serving() as (url, _):
        assert drive(whole, url, TOKEN, ORCHESTRATOR_TEST_CUT="1") >= 37


def test_the_react_query_example_is_compiled(whole: Path) -> None:
    assert (whole / "build" / EXAMPLE.with_suffix(".js").name).exists()


WRONG = {
    "a method that there is not": "api.listOrchestrator();",
    "an answer of another type": "const n: number = (await api.getOrchestrator('o')).plan_name;",
    "a missing body": "await api.dagsDefineDag();",
    "a body of another type": "await api.dagsTrigger({ dag_id: 1 });",
    "an unknown query": "await api.dagsListRuns({ query: { colour: 'red' } });",
    "a missing path parameter": "await api.getFindingContent('demo');",
    "a misspelt state": "if ((await api.getOrchestratorStatus('o')).status === 'stoped') {}",
}


def test_mistakes_do_not_compile(whole: Path) -> None:
    source = whole / "src" / "wrong.ts"
    begin = 'import { createApiClient } from "./lib/api-client.js";\nconst api = createApiClient("");\nexport {};\n'
    source.write_text(begin + "\n".join(WRONG.values()) + "\n")
    done = subprocess.run(["node_modules/.bin/tsc", "--noEmit"], cwd=whole, capture_output=True, text=True, check=False)
    source.unlink()
    told = {int(line) for line in re.findall(r"^src/wrong\.ts\((\d+),", done.stdout, re.M)}
    first = begin.count("\n") + 1
    assert told == set(range(first, first + len(WRONG))), done.stdout


@pytest.mark.ray
def test_the_real_server_is_driven_by_what_its_command_line_writes(live: Server, modules: Path, tmp_path: Path) -> None:
    description = describe()
    folder = project(tmp_path, modules, description)
    done = live.cli("generate-types", "--out", str(folder / "src" / "lib"), "--json", timeout_s=300)
    assert done.returncode == 0, done.stderr
    assert [Path(each).name for each in json.loads(done.stdout)["files"]] == [
        "openapi.json",
        "api-types.ts",
        "api-client.ts",
    ]
    assert json.loads((folder / "src" / "lib" / "openapi.json").read_text()) == description
    assert httpx.get(f"{live.url}/openapi.json").json() == description
    compile_strictly(folder)
    plans = [f"typescript-{n}" for n in range(12)]
    for name in plans:
        (live.board().root / "docs" / "plans" / f"{name}.md").write_text(PLAN)
    more = {"ORCHESTRATOR_TEST_PLANS": ",".join(plans), "ORCHESTRATOR_TEST_EXECUTOR": "brief"}
    drive(folder, live.url, live.tokens["admin"], **more)
