"""A running server, watched with the tools that people have: promtool, Prometheus, a collector of traces.

`promtool` and `prometheus` come with Debian's package `prometheus`, or are named by PROMTOOL and PROMETHEUS; without
them those checks are skipped and say so.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from prometheus_client.parser import text_string_to_metric_families

from orchestrator.ports import LATENCY_BOUNDS, METRICS_MAX
from tests.dags_api import Api, answered, task
from tests.live import Server, free_port, serving
from tests.watched import promtool

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "alerts.yml"
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "orchestrator.json").read_text(encoding="utf-8"))
#: (title of a panel, what it asks)
PANELS = [(panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
#: DAGs and windows of each: more numbers than are kept by name, and more than 10,000 runs
DAGS, WINDOWS = 5000, 2
pytestmark = [pytest.mark.ray, pytest.mark.slow]


class Collector:
    """Takes spans over OTLP/HTTP, as an OpenTelemetry collector does."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    collector.spans += [span for scope in resource.scope_spans for span in scope.spans]
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    found = Collector()
    yield found
    found.close()


@pytest.fixture(scope="module")
def server(collector: Collector) -> Iterator[Server]:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    with serving(("--workers", "2"), environ=environ) as started:
        yield started


def scraped(server: Server) -> str:
    answer = httpx.get(f"{server.url}/metrics", timeout=30)
    answer.raise_for_status()
    return answer.text


def series(text: str) -> Counter[str]:
    """Metric -> how many series it has."""
    return Counter(re.match(r"\w+", line)[0] for line in text.splitlines() if line and line[0] != "#")  # type: ignore[index]  # each such line begins with a name


def within(seconds: float, holds: Any) -> Any:
    """What `holds()` gives once it is true."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return found


def chain(api: Api, dag_id: str) -> None:
    """a → b → c, of which b fails once."""
    flaky = {"id": "b", "entrypoint": "live_tasks:fail_once", "retries": 2, "retry_delay_s": 0.1, "depends_on": ["a"]}
    api.define(dag_id, task("a"), flaky, {"id": "c", "entrypoint": "live_tasks:speak", "depends_on": ["b"]})


# ---------------------------------------------------------------- traces


def test_one_trace_leads_from_the_request_over_three_tasks_to_every_attempt(
    server: Server, collector: Collector
) -> None:
    api = server.api()
    chain(api, "traced")
    body = {"dag_id": "traced"}
    run_id = answered(api.post("/runs", body, traceparent=f"00-{TRACE}-{CALLER}-01"))["run_id"]
    assert api.wait(run_id)["state"] == "success"

    def ours() -> list[Span]:
        found = [span for span in collector.spans if span.trace_id.hex() == TRACE]
        return found if any(span.parent_span_id.hex() == CALLER for span in found) and len(found) >= 9 else []

    spans = {span.span_id.hex(): span for span in within(30, ours)}
    assert not [each for each in collector.spans if each.trace_id.hex() != TRACE], "one trace id"
    tops = [span for span in spans.values() if span.parent_span_id.hex() not in spans]
    assert [span.parent_span_id.hex() for span in tops] == [CALLER], "all the others hang below the request"
    depths = Counter(depth(span, spans) for span in spans.values())
    assert depths == {0: 1, 1: 1, 2: 3, 3: 4}, "request, run, three tasks, four attempts of which one failed"
    assert sum(span.status.code == 2 for span in spans.values()) == 1


def depth(span: Span, spans: dict[str, Span]) -> int:
    above = spans.get(span.parent_span_id.hex())
    return 0 if above is None else 1 + depth(above, spans)


# ---------------------------------------------------------------- metrics


def test_promtool_and_prometheus_have_nothing_to_say_against_what_a_server_tells(server: Server) -> None:
    api = server.api()
    chain(api, "counted")
    assert api.wait(api.trigger("counted")["run_id"])["state"] == "success"
    answered(api.post("/archive", {"older_than_s": 3600}))
    within(30, lambda: 'orchestrator_archive_sweeps_total{end="done"} 1.0' in scraped(server))
    text = scraped(server)
    assert 'orchestrator_task_retries_total{dag="counted",reason="error"} 1.0' in text
    families = {family.name for family in text_string_to_metric_families(text)}
    shown = {each for _, expr in PANELS for each in re.findall(r"\b(?:orchestrator|http|runs?|limit|pool)_\w+", expr)}
    for name in shown - {"orchestrator_plane_lease_age_seconds"}:  # only where servers may share a journal
        assert re.sub(r"_(bucket|count|sum|total)$", "", name) in families, name
    promtool("check", "metrics", given=text)
    promtool("check", "rules", str(RULES))


def test_prometheus_scrapes_it_evaluates_every_rule_and_answers_every_panel(server: Server, tmp_path: Path) -> None:
    with prometheus(server, tmp_path) as ask:
        within(30, lambda: [each for each in ask("query", query='up{job="orchestrator"} == 1')["result"]])
        groups = within(30, lambda: _evaluated(ask("rules")["groups"]))
        rules = [rule for group in groups for rule in group["rules"]]
        assert {rule["health"] for rule in rules} == {"ok"}, [rule.get("lastError") for rule in rules]
        assert len(rules) == len(yaml.safe_load(RULES.read_text())["groups"][0]["rules"])
        within(30, lambda: ask("query", query="count_over_time(up[1m]) > 4")["result"])
        drawn = {title for title, expr in PANELS if ask("query", query=_plain(expr))["result"]}
        assert drawn >= {"Active runs", "Worker slots", "Runs that ended", "Tasks that ended", "Requests", "Sweeps"}


def _evaluated(groups: list[Any]) -> list[Any]:
    return groups if groups and all(rule["health"] != "unknown" for each in groups for rule in each["rules"]) else []


def _plain(expression: str) -> str:
    return expression.replace("$__rate_interval", "5m").replace("$dag", ".*")


@contextlib.contextmanager
def prometheus(server: Server, folder: Path) -> Iterator[Any]:
    """Prometheus itself, scraping every second; asks its API."""
    found = shutil.which(os.environ.get("PROMETHEUS", "prometheus"))
    if found is None:
        pytest.skip("prometheus is not installed")
    port = free_port()
    told = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [
            {"job_name": "orchestrator", "static_configs": [{"targets": [server.url.removeprefix("http://")]}]}
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(told))
    command = [found, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    command.append(f"--web.listen-address=127.0.0.1:{port}")
    with contextlib.ExitStack() as ends:
        log = ends.enter_context((folder / "log").open("w"))
        client = ends.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1/"))
        process = ends.enter_context(subprocess.Popen(command, stdout=log, stderr=log))
        ends.callback(process.kill)

        def ask(path: str, **query: str) -> Any:
            try:
                answer = client.get(path, params=query)
            except httpx.TransportError:
                return {"result": [], "groups": []}  # it is starting
            assert answer.status_code in (200, 503), answer.text
            return answer.json()["data"] if answer.status_code == 200 else {"result": [], "groups": []}

        yield ask


# ---------------------------------------------------------------- cardinality


def test_ten_thousand_runs_of_many_dags_make_no_more_series_than_are_promised(server: Server) -> None:
    api = server.api()
    before = series(scraped(server)).total()
    ids = [f"many_{number}" for number in range(DAGS)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda dag_id: api.define(dag_id, task("a")), ids))
        span = {"run_type": "backfill", "start": "2025-01-01", "end": f"2025-01-{WINDOWS:02d}"}
        started = [found["run_id"] for found in pool.map(lambda dag_id: api.trigger(dag_id, **span), ids)]
    within(600, lambda: api.run(started[-1])["state"] == "success" and _ended(scraped(server)) >= DAGS * WINDOWS)
    began = time.monotonic()
    text = scraped(server)
    took_s = time.monotonic() - began
    after = series(text)
    print(
        f"{before} series before, {after.total()} after {_ended(text):.0f} runs of {DAGS} DAGs; scrape: {took_s:.1f} s"
    )
    assert after["runs_total"] < DAGS, "later DAGs are counted together"
    assert 'runs_total{dag="other",state="success"}' in text
    # a histogram of three numbers (a bucket, sum, count) is shown with all its buckets
    assert after.total() < (METRICS_MAX + 1000) / 3 * (len(LATENCY_BOUNDS) + 3)
    slowest = max(timed(server) for _ in range(5))
    assert slowest < 2.0, "others are answered during a scrape"
    promtool("check", "metrics", given=text)


def timed(server: Server) -> float:
    """Seconds until `GET /health` is answered in the middle of a scrape."""
    with ThreadPoolExecutor(1) as pool:
        scrape = pool.submit(scraped, server)
        time.sleep(0.2)
        began = time.monotonic()
        httpx.get(f"{server.url}/health", timeout=30).raise_for_status()
        took = time.monotonic() - began
        scrape.result()
    return took


def _ended(text: str) -> float:
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith("runs_total{"))
