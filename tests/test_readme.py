"""What the README and the guide say is so: code is DAGs, commands parse, requests have endpoints, names exist."""

from __future__ import annotations

import ast
import functools
import json
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import typer

from actors.blueprint_load import LoadedBlueprints
from actors.blueprint_load import load as load_blueprints
from actors.lua_sandbox import LuaSandbox
from actors.runner_actor import POLL_S as IN_CLUSTER_POLL_S
from actors.runner_loop import HEARTBEAT_S, POLL_S
from actors.settings import Settings
from actors.token_files import read_clients, read_worker_tokens
from orchestrator import spec, webhook
from orchestrator.blueprint import Blueprint, Dispatch, Outcome, Visit
from orchestrator.blueprint_graph import to_dot
from orchestrator.calls import callees_of
from orchestrator.client import Client
from orchestrator.definition import WAITING_TYPES, Definition, TriggerRule
from orchestrator.handler_calls import HandlerCall
from orchestrator.job_schedule import check_blueprints, parse_schedules
from orchestrator.load import load
from orchestrator.pipeline import check_definition
from orchestrator.remote_tasks import remote_tasks_in
from orchestrator.wait_params import NAMES
from serve_app.app import describe
from serve_app.auth import SCOPES
from serve_app.cli import app
from serve_app.runner_agent import REGISTER_TRIES
from serve_app.surfaces import runs
from serve_app.surfaces.dags.routes import BASE, ENDPOINTS
from serve_app.surfaces.dags.words import ERROR_CODES
from serve_app.surfaces.jobs.endpoints import CLIENT_ENDPOINTS, PUBLIC_ENDPOINTS, WORKER_ENDPOINTS
from serve_app.surfaces.pipelines.routes import ENDPOINTS as PIPELINE_ENDPOINTS
from serve_app.typegen.client import client_text
from tests import command_lines
from tests.benchmarks import readme_figures
from tests.benchmarks.records import OURS, PLAIN, Record
from tests.jobs_stage import Stage, play

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
GUIDES = (
    "surfaces",
    "schedules",
    "graphs",
    "mapping",
    "subdags",
    "waiting",
    "backfills",
    "triggers",
    "limits",
    "caching",
    "deadlines",
    "observability",
    "operations",
    "fairness",
    "cluster-files",
    "clusters-kubernetes",
)
GUIDE = "".join((ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in GUIDES)
TEXT = README + GUIDE.replace("](../", "](")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.S | re.M)
PROSE = re.sub(r"^```\w+\n.*?^```$", "", TEXT, flags=re.S | re.M)
#: variable -> field of Settings
VARIABLES = {name: each for each in fields(Settings) for name in each.metadata["names"]}


def blocks(*languages: str) -> list[str]:
    return [text for language, text in BLOCKS if language in languages]


# ---------------------------------------------------------------- code


def module_name(code: str) -> str:
    found = re.match(r"# (\w+)\.py\n", code)
    assert found, "an example begins with the name of its file"
    return found[1]


#: text of an example -> of what it is one
MARKS = {"@dag": "dag", "StateMachineBlueprint(": "blueprint", "@remote_task": "worker", "hmac.": "receiver"}


def of_kind(kind: str, *languages: str) -> dict[str, str]:
    """Name of the file -> its text, of the examples of that kind."""
    found = blocks(*languages)
    marked = [next(word for mark, word in MARKS.items() if mark in code) for code in found]
    return {module_name(code): code for code, word in zip(found, marked, strict=True) if word == kind}


@pytest.fixture
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Definition]]:
    """The DAGs of the README's Python examples, each from a file of the name it gives itself."""
    names = of_kind("dag", "python", "py")
    for name, code in names.items():
        (tmp_path / f"{name}.py").write_text(code)
        sys.modules.pop(name, None)  # another test may have deployed a file of that name
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield {definition.dag_id: definition for definition in load(tmp_path)}
    for name in names:
        sys.modules.pop(name, None)


def edges(definition: Definition) -> dict[str, set[str]]:
    return {task.id: set(task.depends_on) for task in definition.tasks}


def test_the_first_example_is_three_tasks_and_their_join(examples: dict[str, Definition]) -> None:
    doubles = {"double", "double_2", "double_3"}
    assert edges(examples["hello"]) == {**{name: set() for name in doubles}, "total": doubles}
    assert {task.retries for task in examples["hello"].tasks} == {0, 2}


def test_the_second_example_is_a_chain_with_the_options_it_shows(examples: dict[str, Definition]) -> None:
    sales = examples["sales"]
    assert edges(sales) == {"extract": set(), "load": {"extract"}, "tidy": {"load"}, "tell": {"tidy"}}
    assert (sales.schedule, sales.timezone, sales.max_active_runs) == ("0 6 * * *", "Europe/Berlin", 4)
    extract = sales.tasks[0]
    assert (extract.retries, extract.retry_delay_s, extract.timeout_s) == (3, 2, 600)


def test_the_guides_branch_has_two_ways_and_a_join(examples: dict[str, Definition]) -> None:
    ways = {"in_bulk", "one_by_one"}
    assert edges(examples["mail"]) == {"by_size": set(), **{way: {"by_size"} for way in ways}, "tell": ways}
    assert [task.id for task in examples["mail"].tasks if task.branch] == ["by_size"]


def test_the_guides_release_waits_for_a_signal_then_people_then_time(examples: dict[str, Definition]) -> None:
    release = examples["release"]
    ends = {"monday": {"ask"}, "drop": {"ask"}, "ship": {"monday"}}
    assert edges(release) == {"build": set(), "tests_passed": set(), "ask": {"build", "tests_passed"}, **ends}
    assert [task.id for task in release.tasks if task.branch] == ["ask"]


def test_the_guides_report_has_a_group_with_a_group_in_it_and_calls_a_run(examples: dict[str, Definition]) -> None:
    inner = "region_sales.extract"
    chain = {f"{inner}.fetch": set(), f"{inner}.check": {f"{inner}.fetch"}, "region_sales.total": {f"{inner}.check"}}
    assert edges(examples["report"]) == {**chain, "south": set(), "tell": {"region_sales.total", "south"}}
    assert callees_of(examples["report"]) == ("region_sales",)


def test_the_guide_tells_every_param_of_tasks_that_wait() -> None:
    tables = GUIDE.partition("| `core.wait` |")[2].partition("- Every wait ends")[0]
    told = {name for line in tables.splitlines() for name in quoted(line.strip("|").partition("|")[0])}
    assert told - WAITING_TYPES == NAMES


def test_the_guide_tells_all_trigger_rules() -> None:
    told = re.findall(r"^\| `([a-z_]+)`[^|]*\| (?:when|with|at once)", GUIDE, re.M)
    assert set(told) == set(get_args(TriggerRule))


def test_the_ways_to_say_over_what_a_task_is_mapped_are_read() -> None:
    _, text = blocks("yaml")
    definition = spec.from_yaml("dag_id: d\nowner: o\ntasks:\n- {id: pages}\n" + text)
    assert [type(next(iter(task.expand.values()))) for task in definition.tasks[1:]] == [str, list, dict]


def test_the_guides_mapped_task_gets_its_list_from_another(examples: dict[str, Definition]) -> None:
    (measured,) = [task for task in examples["lengths"].tasks if task.expand]
    assert (measured.expand, measured.max_active, measured.tolerated_failures) == ({"word": "words"}, 50, "5%")


def test_the_yaml_example_is_a_dag_over_the_code_shown(examples: dict[str, Definition]) -> None:
    text, _ = blocks("yaml")
    report = spec.from_yaml(text)
    assert edges(report) == {"fetch": set(), "check": set(), "publish": {"fetch", "check"}}
    shown = {task.entrypoint for definition in examples.values() for task in definition.tasks}
    assert {task.entrypoint for task in report.tasks} - {None} <= shown


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedBlueprints:
    """Those of the guide, loaded from files as the server does."""
    for name, code in of_kind("blueprint", "python").items():
        (tmp_path / f"{name}.py").write_text(code)
    for number, text in enumerate(blocks("yml")):
        (tmp_path / f"{number}.yml").write_text(text)
    return load_blueprints(tmp_path)


@pytest.fixture
def blueprints(loaded: LoadedBlueprints) -> dict[str, Blueprint]:
    return {blueprint.name: blueprint for blueprint in loaded.blueprints}


def test_both_blueprints_lead_from_the_task_over_the_review_to_the_ends(blueprints: dict[str, Blueprint]) -> None:
    assert blueprints.keys() == {"publishing", "leaflet"}
    for name, blueprint in blueprints.items():
        assert blueprint.path == f"/api/v1/jobs/{name}"
        drawn = to_dot(blueprint)
        for edge in ("start -> review", "review -> finished", "review -> failed"):
            assert edge in drawn.replace('"', ""), name


def run_example(code: str) -> dict[str, Any]:
    """The names that it leaves."""
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(code, "example", "exec"), names)
    return names


def test_the_worker_shown_does_the_task_that_the_blueprints_dispatch(blueprints: dict[str, Blueprint]) -> None:
    (code,) = of_kind("worker", "python").values()
    (task,) = remote_tasks_in(run_example(code).values())
    dispatched = blueprints["leaflet"].states["start"].action
    assert isinstance(dispatched, Dispatch)
    assert task.name == dispatched.type
    assert f'dispatch_task("{task.name}"' in of_kind("blueprint", "python")["publishing"]
    assert task.wants_context


def test_a_job_of_the_blueprint_shown_gets_by_the_worker_shown_and_an_approval_to_its_end(
    loaded: LoadedBlueprints,
) -> None:
    (code,) = of_kind("worker", "python").values()
    (typeset,) = remote_tasks_in(run_example(code).values())
    context = SimpleNamespace(progress=lambda _fraction, _message: None)

    async def handle(visit: Visit) -> Outcome:
        handler, is_end = loaded.code[visit.blueprint].handler(visit)
        call = HandlerCall(handler, visit, is_end=is_end, data_stores=None, task_files=None)
        call.run()
        return call.outcome()

    async def story(stage: Stage) -> None:
        await stage.register("press-1", supported_tasks=[typeset.name])
        job_id = await stage.create("publishing", {"text": "hello"})
        task = await stage.poll("press-1")
        await stage.result(task, "press-1", data=typeset(task["params"], context))
        assert stage.view(job_id).status == "waiting_for_human"
        await stage.approve(job_id, "approved")
        view = stage.view(job_id)
        assert (view.status, view.state_history["pages"]) == ("finished", ["hello"])

    play(story, blueprints=loaded.blueprints, handlers=handle)


def test_the_receiver_shown_believes_our_webhooks_and_no_others() -> None:
    (code,) = of_kind("receiver", "python").values()
    is_ours = run_example(code)["is_ours"]
    clients = tomllib.loads(toml("clients"))
    for secret in (clients["shop"]["webhook_secret"], "plain text"):
        headers = webhook.headers("msg_1", b"{}", secret, datetime.now(UTC))
        assert is_ours(secret, headers, b"{}")
        assert not is_ours(secret, headers, b"[]")
        assert not is_ours("other", headers, b"{}")
        assert not is_ours(secret, webhook.headers("msg_1", b"{}", secret, datetime(2026, 1, 1, tzinfo=UTC)), b"{}")


def toml(name: str) -> str:
    """The file of that name."""
    (found,) = [text for text in blocks("toml") if text.startswith(f"# {name}.toml\n")]
    return found


def test_the_files_of_callers_are_read_as_told(tmp_path: Path) -> None:
    for name in ("clients", "workers"):
        (tmp_path / name).write_text(toml(name))
    (client,) = read_clients(str(tmp_path / "clients"))
    assert (client.name, client.tenant, client.plan, client.monthly_attempts) == ("shop", "acme", "gold", 1000)
    assert client.webhook_secret
    assert read_worker_tokens(str(tmp_path / "workers")).keys() == {"press-1"}


def test_the_schedules_shown_start_the_blueprints_shown(blueprints: dict[str, Blueprint]) -> None:
    schedules = parse_schedules(toml("schedules"), "UTC")
    check_blueprints(schedules, blueprints)
    assert [each.name for each in schedules] == ["nightly", "often", "report", "invoices"]


async def test_the_pipeline_shown_passes_the_check_of_its_creation() -> None:
    (source,) = blocks("lua")
    definition = await LuaSandbox().validate(source)
    check_definition(definition)
    assert [each.name for each in definition.inputs if each.secret] == ["deploy_key"]
    assert definition.required_modules == ("process",)


def test_the_client_example_calls_what_there_is() -> None:
    (code,) = blocks("python3")
    parsed = ast.parse(code)
    calls = [ast.unparse(each.func).split(".") for each in ast.walk(parsed) if isinstance(each, ast.Call)]
    with Client("http://127.0.0.1:9") as client:
        methods = [rest for first, *rest in calls if first == "client"]
        assert len(methods) == 2
        assert all(callable(functools.reduce(getattr, names, client)) for names in methods)


def test_the_typescript_named_is_generated() -> None:
    written = client_text(describe())
    methods = re.findall(r"`api\.(\w+)\(", PROSE)
    assert methods
    assert [name for name in methods if f"    {name}: (" not in written] == []
    assert "export function createApiClient(" in written
    assert "export class ApiError " in written


# ---------------------------------------------------------------- commands


def shown_lines() -> Iterator[str]:
    """Every `orchestrator …`, from consoles, indented lists (without the explanation) and prose."""
    for block in blocks("console"):
        yield from re.findall(r"^\$ (orchestrator .*)$", block, re.M)
    for line in re.findall(r"^    (orchestrator .*)$", PROSE, re.M):
        yield re.split(r"\s{2,}", line)[0]
    yield from re.findall(r"`(orchestrator [^`]*)`", PROSE)


@pytest.mark.parametrize("line", sorted(set(shown_lines())))
def test_every_command_line_parses(line: str) -> None:
    command_lines.check(line)


def test_there_are_command_lines_to_check() -> None:
    assert len(set(shown_lines())) > 20


# ---------------------------------------------------------------- requests


#: variable of a base address -> the endpoints below it
SURFACES = {
    "$URL": [endpoint[:2] for endpoint in ENDPOINTS],
    "$RUNS": [endpoint[:2] for endpoint in runs.ENDPOINTS],
    "$SERVER": [
        ("POST", "/api/v1/jobs/publishing"),  # of the blueprint shown
        *(endpoint[:2] for endpoint in (*PUBLIC_ENDPOINTS, *CLIENT_ENDPOINTS)),
    ],
}


def requests() -> Iterator[tuple[str, str, str, str | None]]:
    """(variable of its base address, method, path, body) of every curl line."""
    for line in re.findall(r"^curl .*$", "\n".join(blocks("sh")), re.M):
        words = shlex.split(line)
        (url,) = [word for word in words if word.startswith(tuple(SURFACES))]
        base = next(each for each in SURFACES if url.startswith(each))
        body = words[words.index("-d") + 1] if "-d" in words else None
        method = words[words.index("-X") + 1] if "-X" in words else "GET" if body is None else "POST"
        yield base, method, url.removeprefix(base).partition("?")[0], body


@pytest.mark.parametrize(("base", "method", "path", "body"), list(requests()))
def test_every_curl_line_has_an_endpoint_and_a_json_body(base: str, method: str, path: str, body: str | None) -> None:
    patterns = [(verb, re.sub(r"\{\w+\}", "[^/]+", template)) for verb, template in SURFACES[base]]
    assert any(verb == method and re.fullmatch(pattern, path) for verb, pattern in patterns)
    if body is not None:
        assert isinstance(json.loads(body), dict)


def test_the_base_address_is_the_one_of_the_surface() -> None:
    (url,) = re.findall(r"^URL=(.*)$", "\n".join(blocks("sh")), re.M)
    assert url == Settings().url + BASE
    assert f"`{BASE}`" in README
    (url,) = re.findall(r"^RUNS=(.*)$", "\n".join(blocks("sh")), re.M)
    assert url == Settings().url + runs.BASE
    (url,) = re.findall(r"^SERVER=(.*)$", "\n".join(blocks("sh")), re.M)
    assert url == Settings().url


def test_the_endpoints_listed_for_workers_and_pipelines_are_there() -> None:
    there = {
        (verb, re.sub(r"\{\w+(:path)?\}", "{}", path)) for verb, path, *_ in (*WORKER_ENDPOINTS, *PIPELINE_ENDPOINTS)
    }
    listed = set(listed_endpoints())
    assert len(listed) > 25
    assert listed - there - {("GET", "/api/health")} == set()
    assert there - listed == set()


def listed_endpoints() -> Iterator[tuple[str, str]]:
    """(method, path) in the tables of both surfaces; of several in one cell only the first names the method."""
    _, _, section = GUIDE.partition("## Jobs and remote workers\n")
    for cell in re.findall(r"^\| (`(?:GET|POST|PUT|PATCH|DELETE) /.*?) \|", section.partition("## Clients\n")[0], re.M):
        for part in cell.split("; "):
            method = ""
            for words in quoted(part):
                method, path = words.split(" ") if " " in words else (method, words)
                base = "" if path.startswith("/_worker") else "/api"
                yield method, base + re.sub(r"\{\w+\}", "{}", path)


def test_json_blocks_parse_and_every_error_code_is_told() -> None:
    assert [json.loads(text) for text in blocks("json")]
    for code in ERROR_CODES.values():
        assert f"`{code}`" in README
    for scope in SCOPES:
        assert f"`{scope}`" in README


# ---------------------------------------------------------------- names


def settings_rows() -> list[list[str]]:
    section = README.partition("## Settings\n")[2].partition("\n## ")[0]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in section.splitlines() if "`" in line]


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def test_every_environment_variable_named_is_read_somewhere() -> None:
    named = {name for name in re.findall(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]+\b", PROSE) if name not in PLACEHOLDERS}
    sources = "".join(
        file.read_text() for package in ("actors", "serve_app") for file in (ROOT / package).rglob("*.py")
    )
    assert len(named) > 12
    assert [name for name in sorted(named) if f'"{name}"' not in sources] == []


#: words of command lines that stand for something
PLACEHOLDERS = {"DAG_ID", "RUN_ID", "INSTANCE_ID", "JOB_ID", "PIPELINE_ID"}


def test_the_settings_table_has_the_options_of_up_and_the_true_defaults() -> None:
    up = typer.main.get_command(app).commands["up"]  # type: ignore[attr-defined] # a group
    options = {name for parameter in up.params for name in parameter.opts}
    rows = [row for row in settings_rows() if len(row) >= 3 and "_" in row[1]]
    more = [["", *cells_of(line)] for line in GUIDE.splitlines() if re.match(r"\| `[A-Z]\w+`", line)]
    assert rows
    assert more
    for option, variable, default, *_ in (*rows, *more):
        assert set(quoted(option)) <= options, option
        names = [name.partition("=")[0] for name in quoted(variable.partition("(")[0])]
        for name, told in zip(names, quoted(default), strict=False):
            assert name in VARIABLES, name
            assert float_or_text(told) == float_or_text(VARIABLES[name].default), name


def test_the_rhythm_of_runners_is_as_told() -> None:
    asks = f"ask for one every {POLL_S:g} s (in the cluster every {IN_CLUSTER_POLL_S:g} s)"
    assert f"{asks}, say every {HEARTBEAT_S:g} s that they live" in GUIDE
    assert f"is tried {REGISTER_TRIES} times" in GUIDE


def float_or_text(value: Any) -> float | str:
    try:
        return float(value)
    except ValueError:
        return str(value)


def test_what_a_contributor_is_pointed_to_is_there() -> None:
    section = CONTRIBUTING.partition("## Where work outside")[2]
    packages = [ROOT / name for name in ("orchestrator", "actors", "serve_app")]
    files = [file for package in packages for file in package.rglob("*.py")]
    known = set(re.findall(r"\w+", "".join(file.read_text() for file in files))) | {file.stem for file in files}
    pointed = [name for name in quoted(section) if re.fullmatch(r"[\w.]+", name)]
    assert len(pointed) > 40
    assert [name for name in pointed if not set(name.split(".")) <= known] == []
    links = re.findall(r"\]\(([^)]+)\)", CONTRIBUTING)
    assert [target for target in links if not (ROOT / target).exists()] == []


def anchors() -> set[str]:
    headings = re.findall(r"^#+ (.*)$", PROSE, re.M)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)]+)\)", PROSE))))
def test_internal_links_resolve(target: str) -> None:
    if "://" in target:
        return
    path, _, anchor = target.partition("#")
    assert not path or (ROOT / path).exists()
    assert not anchor or anchor in anchors()


def test_it_can_be_read_in_one_sitting() -> None:
    assert len(README.splitlines()) <= 320


# ---------------------------------------------------------------- figures


def test_its_figures_are_those_measured_last() -> None:
    """When this fails: `python -m tests.benchmarks.readme_figures`."""
    shown = readme_figures.rendered(readme_figures.latest())
    assert readme_figures.replaced(README, shown) == README


def test_a_figure_stands_beside_that_of_plain_ray() -> None:
    ours = Record(OURS, "chain of 50", 50, 0.125, 400.0, 2.5, "5 x")
    text = readme_figures.rendered([ours, Record(PLAIN, "chain of 50", 50, 0.1, 500.0, 2.0)])
    assert text.splitlines()[-1] == "| chain of 50 | 50 | 0.12 | 400 | 2.50 | 500 | 5 x |"


def test_what_the_system_costs_at_rest_is_a_table_of_its_own() -> None:
    records = [
        Record(OURS, "idle CPU", 1, 0.18, 5.6, 180.0),
        Record("Ray and Serve", "idle CPU", 1, 0.15, 6.7, 150.0),
    ]
    assert readme_figures.rendered(records).splitlines()[-1] == "| idle CPU | 18.0% of a core | 15.0% of a core |"


def test_a_text_without_both_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="once each"):
        readme_figures.replaced("no marks", "figures")
