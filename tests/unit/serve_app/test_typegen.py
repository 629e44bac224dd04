"""From a description to TypeScript, without Node: names, types, and what the types' generator is told."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import Invalid
from serve_app import cli, typegen
from serve_app.app import describe
from serve_app.typegen import types
from serve_app.typegen.client import client_text, runtime_text
from serve_app.typegen.operations import NAMES, camel, operations_of
from tests.stand_in import StandIn
from tests.unit.serve_app.conftest import Connect

Json = dict[str, Any]


def description(paths: Json, **schemas: Json) -> Json:
    return {"openapi": "3.1.0", "info": {}, "paths": paths, "components": {"schemas": schemas}}


def operation(id_: str | None = None, **more: Any) -> Json:
    return {"responses": {"200": {"description": "ok"}}, **({} if id_ is None else {"operationId": id_}), **more}


def answer(schema: Json, media: str = "application/json", status: str = "200") -> Json:
    return {"responses": {status: {"description": "ok", "content": {media: {"schema": schema}}}}}


def ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def method(paths: Json, **schemas: Json) -> str:
    """The one method that is made of it, on one line, without its comment."""
    text = client_text(description(paths, **schemas))
    body = text[text.index("  return {\n", text.index("export function createApiClient")) :]
    lines = [line.strip() for line in body.splitlines()[1:-2]]
    return " ".join(line for line in lines if not line.startswith("/**"))


# -- names


def test_an_operation_is_called_after_its_id() -> None:
    found = operations_of(
        description(
            {
                "/a": {"get": operation("dags_get_run"), "post": operation("b_a_post")},
                "/api/plans/{plan_name}": {"get": operation("list_plans_api_plans__plan_name__get")},
                "/n/{x}": {"delete": operation()},
            }
        )
    )
    assert [each.name for each in found] == ["dagsGetRun", "b", "listPlans", "deleteNX"]


def test_what_would_be_called_alike_has_its_whole_id() -> None:
    paths = {f"/{x}": {"get": operation(f"get_job_{x}_get")} for x in "ab"} | {"/runs": {"post": operation("get_job")}}
    assert [each.name for each in operations_of(description(paths))] == ["getJobAGet", "getJobBGet", "createRun"]
    with pytest.raises(Invalid, match="several operations are called x"):
        operations_of(description({"/a": {"get": operation("x")}, "/b": {"get": operation("x")}}))


def test_the_seeds_names_are_by_method_and_path() -> None:
    paths = {"/api/orchestrators/{anything}/skip-task": {"post": operation("whatever")}}
    assert operations_of(description(paths))[0].name == NAMES["POST /api/orchestrators/{}/skip-task"] == "skipTask"


def test_every_name_of_the_seed_is_a_method_of_the_client() -> None:
    text = client_text(StandIn().description)
    hand_written = {"connectEvents", "connectActivity", "connectEventsSse", "followRun", "followOrchestrator"}
    #: the stand-in leaves these out
    missing = {"getPlanStatus", "getPlanTasks", "listPlanFindings"}
    for name in {*NAMES.values(), *hand_written} - missing:
        assert re.search(rf"^    {name}: \(", text, re.M), name


def test_every_operation_of_the_application_is_a_method() -> None:
    whole = describe()
    ids = [each["operationId"] for item in whole["paths"].values() for each in item.values()]
    names = [each.name for each in operations_of(whole)]
    assert len(names) == len(set(names)) == len(ids)
    text = client_text(whole)
    assert [name for name in names if f"\n    {name}: (" not in text] == []


def test_words_become_camel_case() -> None:
    given = ("dags_get_run", "_public_metrics", "runId", "X-Y z")
    assert [camel(name) for name in given] == ["dagsGetRun", "publicMetrics", "runId", "xYZ"]


# -- methods


def test_a_method_takes_path_body_and_options() -> None:
    body = {"requestBody": {"required": True, "content": {"application/json": {"schema": ref("Body")}}}}
    told = operation("do_it", **body, **answer(ref("Done"), status="201"))
    assert method({"/a/{run_id}/{class}": {"post": told}}, Body={}, Done={}) == (
        "doIt: (runId: string, class_: string, body: Body, options?: CallOptions): Promise<Done> => "
        'http.call("POST", `/a/${segment(runId)}/${segment(class_)}`, { ...options, body }),'
    )


def test_a_query_is_typed_and_required_when_one_of_its_parameters_is() -> None:
    named = {"name": "q", "in": "query"}
    optional = method({"/a": {"get": operation("x", parameters=[named])}})
    assert optional.startswith('x: (options?: CallOptions<QueryOf<"/a", "get">>): Promise<void> =>')
    required = method({"/a": {"get": operation("x"), "parameters": [{**named, "required": True}]}})
    assert 'x: (options: CallOptions<QueryOf<"/a", "get">> & { query: QueryOf<"/a", "get"> })' in required


@pytest.mark.parametrize(
    ("told", "result"),
    [
        (answer(ref("Run")), "Run"),
        (answer({"type": "array", "items": ref("Run")}), "Run[]"),
        (answer({"anyOf": [ref("Run"), ref("Plan")]}), "Run | Plan"),
        (answer({"type": "array", "items": {"oneOf": [ref("Run"), ref("Plan")]}}), "(Run | Plan)[]"),
        (answer({"anyOf": [ref("Run"), {"type": "null"}]}),
         'paths["/a"]["get"]["responses"][200]["content"]["application/json"]'),
        (answer(ref("Run"), "application/problem+json"), "Run"),
        (answer({"type": "string"}, "text/plain"), "string"),
        (answer({}, "application/zip"), "Blob"),
        ({"responses": {"204": {"description": "nothing"}, "404": answer(ref("Run"))["responses"]["200"]}}, "void"),
        ({"responses": {**answer(ref("Plan"))["responses"], **answer(ref("Run"), status="201")["responses"]}},
         "Plan | Run"),
    ],
)  # fmt: skip
def test_an_answer_has_the_type_of_its_successes(told: Json, result: str) -> None:
    assert f"): Promise<{result}> =>" in method({"/a": {"get": operation("x", **told)}}, Run={}, Plan={})


def test_a_body_that_is_no_json_is_sent_as_it_is() -> None:
    def sent(*media: str) -> str:
        content = {each: {"schema": ref("Body")} for each in media}
        return method({"/a": {"put": operation("x", requestBody={"content": content})}}, Body={})

    assert 'http.call("PUT", "/a", { ...options, body, media: "application/zip" })' in sent("application/zip")
    assert "body?: Blob" in sent("application/zip")
    assert "body?: string" in sent("text/x-lua")
    assert "body?: Body" in sent("text/x-lua", "application/json")


def test_a_stream_is_an_iterator() -> None:
    told = answer({}, "text/event-stream")
    assert method({"/api/jobs/{id}/log": {"get": operation("jobs_log", **told)}}) == (
        "jobsLog: (id: string, options?: FollowOptions): AsyncGenerator<ServerEvent> => "
        "follow(http, `/api/jobs/${segment(id)}/log`, options ?? {}),"
    )


def test_a_component_that_means_something_else_already_gets_a_longer_name() -> None:
    text = client_text(description({}, Error={}, ServerEvent={}, Run={}, **{"a.b": {}}))
    aliases = re.findall(r"^export type (\w+) = components\[\"schemas\"\]\[\"(.*)\"\];$", text, re.M)
    assert aliases == [("ErrorSchema", "Error"), ("ServerEventSchema", "ServerEvent"), ("Run", "Run")]


def test_a_comment_does_not_end_early() -> None:
    text = client_text(description({"/a": {"get": operation("x", summary="all */ of it")}}))
    assert "/** all * / of it. `GET /a` */" in text


def test_without_a_surface_its_hand_written_methods_are_not_there() -> None:
    text = client_text(describe() | {"paths": {}})
    assert "connectEvents: (" not in text
    assert text.startswith("/* Written by `orchestrator generate-types`")
    assert runtime_text() in text


# -- the types' generator


def test_keys_with_a_default_may_be_left_out_of_requests_and_are_there_in_answers() -> None:
    def schema() -> Json:
        return {"type": "object", "properties": {"n": {"default": 5}, "x": {"default": None}, "y": {}}}

    body = {"requestBody": {"content": {"application/json": {"schema": {"allOf": [ref("Asked")]}}}}}
    given = description({"/a": {"post": operation("x", **body, **answer(ref("Told")))}},
                        Asked={"properties": {"inner": {"items": ref("Inner")}, "n": {"default": 5}}},
                        Inner=schema(), Told=schema(), Loop={"properties": {"l": ref("Loop")}})  # fmt: skip
    before = json.dumps(given)
    found = types.prepared(given)["components"]["schemas"]
    assert found["Told"]["properties"] == {"n": {"default": 5}, "x": {}, "y": {}}
    assert found["Inner"]["properties"] == {"n": {}, "x": {}, "y": {}}
    assert found["Asked"]["properties"]["n"] == {}
    assert json.dumps(given) == before


def test_without_node_the_rest_is_written_and_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(types.shutil, "which", lambda _: None)
    out = tmp_path / "a" / "b"
    with pytest.raises(SystemExit) as ended:
        cli.main(["generate-types", "--out", str(out)])
    assert ended.value.code == 1
    assert {each.name for each in out.iterdir()} == {"openapi.json", "api-client.ts"}
    assert json.loads((out / "openapi.json").read_text()) == describe()
    said = capsys.readouterr().err
    assert "api-types.ts needs Node.js 18 or newer with npm" in said
    assert "npx openapi-typescript@" in said


def test_a_failure_of_the_generator_is_told_with_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.CompletedProcess(["npx"], 1, "", "npm error network")
    monkeypatch.setattr(types.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(types.subprocess, "run", lambda *_, **__: done)
    with pytest.raises(
        Invalid, match=r"(?s)openapi-typescript failed; is npm's registry reachable\?.*npm error network"
    ):
        typegen.generate(describe(), tmp_path)


def test_the_generator_is_run_in_pinned_versions_and_its_files_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[list[str]] = []

    def ran(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(types.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(types.subprocess, "run", ran)
    with pytest.raises(SystemExit) as ended:
        cli.main(["generate-types", "--out", str(tmp_path), "--json"])
    assert ended.value.code == 0
    names = ("openapi.json", "api-types.ts", "api-client.ts")
    assert json.loads(capsys.readouterr().out) == {"files": [str(tmp_path / name) for name in names]}
    assert asked[0][0] == "/bin/npx"
    assert asked[0][-1] == str(tmp_path / "api-types.ts")
    assert all(re.fullmatch(r"[a-z-]+@\d+\.\d+\.\d+", each) for each in types.PACKAGES)
    assert set(types.PACKAGES) <= set(asked[0])


async def test_the_description_needs_no_server_and_is_what_a_server_answers(connect: Connect) -> None:
    assert (await connect(None).get("/openapi.json")).json() == describe()
