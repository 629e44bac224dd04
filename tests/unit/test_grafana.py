"""The dashboard as Grafana and Prometheus read it: by Grafana's own types, and by a parser of PromQL."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.test_alerts import IDLE, series
from tests.unit.test_watched import ASKED, DASHBOARD, PANELS, RULES, labels_by_name
from tests.watched import promtool

pytest.importorskip("grafana_foundation_sdk", reason="of the extra dev")
promql = pytest.importorskip("promql_parser", reason="of the extra dev")

from tests.grafana_model import faults  # noqa: E402 # needs one of these

#: labels that Prometheus itself puts on what it scrapes
SCRAPED = {"job", "instance"}


def test_grafana_knows_every_field_of_the_dashboard_and_takes_each_for_what_it_is() -> None:
    assert faults(DASHBOARD) == []


def _panel(dashboard: dict[str, Any], kind: str) -> dict[str, Any]:
    found: dict[str, Any] = next(panel for panel in dashboard["panels"] if panel["type"] == kind)
    return found


def _set(*path: str | int, to: object) -> Callable[[dict[str, Any]], None]:
    def change(found: dict[str, Any]) -> None:
        *way, last = path
        for step in way:
            found = found[step]  # type: ignore[index]  # of lists, too
        found[last] = to  # type: ignore[index]

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_set("refreshRate", to="30s"), "/refreshRate: unknown"),
        (_set("editable", to="yes"), "/editable: 'yes'"),
        (_set("schemaVersion", to="39"), "/schema_version: '39'"),
        (_set("templating", "list", 1, "definition", to="x"), "/templating/list/1/definition: unknown"),
        (_set("templating", "list", 1, "type", to="querry"), "/templating/list/1/type: 'querry'"),
    ],
)
def test_a_field_of_the_dashboard_that_is_unknown_or_mistyped_is_found(
    change: Callable[[dict[str, Any]], None], told: str
) -> None:
    broken = copy.deepcopy(DASHBOARD)
    change(broken)
    assert any(told in fault for fault in faults(broken)), faults(broken)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_set("gridPos", "h", to="7"), "/grid_pos/h: '7'"),
        (_set("type", to="timeserie"), "of no panel that is known"),
        (_set("options", "legend", "placement", to="below"), "/options/legend/placement: 'below'"),
        (_set("options", "legends", to={}), "/options/legends: unknown"),
        (_set("options", "tooltip", "mode", to="all"), "/options/tooltip/mode: 'all'"),
        (_set("fieldConfig", "defaults", "min", to="0"), "/defaults/min: '0'"),
        (_set("fieldConfig", "defaults", "unit", to="secs"), "'secs' is no unit"),
        (_set("fieldConfig", "defaults", "custom", "fillOpacity", to="10"), "/custom/fill_opacity: '10'"),
        (_set("fieldConfig", "defaults", "custom", "stacking", "mode", to="stack"), "/stacking/mode: 'stack'"),
        (_set("targets", 0, "expression", to="up"), "/targets/0/expression: unknown"),
        (_set("targets", 0, "range", to="yes"), "/targets/0/range: 'yes'"),
        (_set("datasource", "type", to="promtheus"), "no data source that is known"),
    ],
)
def test_a_field_of_a_panel_that_is_unknown_or_mistyped_is_found(
    change: Callable[[dict[str, Any]], None], told: str
) -> None:
    broken = copy.deepcopy(DASHBOARD)
    change(_panel(broken, "timeseries"))
    assert any(told in fault for fault in faults(broken)), faults(broken)


def test_panels_and_their_queries_name_the_same_data_source() -> None:
    for panel in PANELS:
        assert {target["datasource"]["type"] for target in panel["targets"]} == {panel["datasource"]["type"]}


# ---------------------------------------------------------------- what is asked for


def parsed(expression: str) -> Any:
    """As Prometheus reads it, once Grafana has filled in its variables. Raises ValueError."""
    return promql.parse(expression.replace("$__rate_interval", "5m").replace("$dag", ".*"))


def selectors(expression: str) -> list[Any]:
    """Every place where series are chosen."""
    found: list[Any] = []
    promql.walk(
        parsed(expression), lambda node: found.append(node) if isinstance(node, promql.VectorSelector) else None
    )
    return found


def grouped(expression: str) -> set[str]:
    """Labels by which something is aggregated."""
    found: set[str] = set()

    def visit(node: Any) -> None:
        if isinstance(node, promql.AggregateExpr) and node.modifier is not None:
            found.update(node.modifier.labels)

    promql.walk(parsed(expression), visit)
    return found


@pytest.mark.parametrize("expression", ASKED)
def test_every_expression_is_promql_over_metrics_and_labels_that_there_are(expression: str) -> None:
    known = labels_by_name()
    chosen = selectors(expression)
    assert chosen
    labels: set[str] = set()
    for selector in chosen:
        assert selector.name in known, f"{selector.name} is no metric of ours"
        asked = {matcher.name for matcher in selector.matchers.matchers} - {"__name__"}
        assert asked <= known[selector.name] | SCRAPED, f"{selector.name} has labels {known[selector.name]}"
        labels |= known[selector.name]
    assert grouped(expression) <= labels | SCRAPED


@pytest.mark.parametrize(
    "broken", ["sum(rate(runs_total[5m])", "rate(runs_total)", "runs_total{dag=}", "sum by dag (x)"]
)
def test_what_is_no_promql_is_found(broken: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parsed(broken)


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_legends_name_labels_that_the_result_has(panel: dict[str, Any]) -> None:
    known = labels_by_name()
    for target in panel["targets"]:
        named = set(re.findall(r"{{\s*(\w+)\s*}}", target["legendFormat"]))
        plain = {label for selector in selectors(target["expr"]) for label in known[selector.name]} | SCRAPED
        left = grouped(target["expr"]) if re.search(r"\b(sum|min|max|count)\b", target["expr"]) else plain
        assert named <= left, target["expr"]
        assert len(left - {"le"} - SCRAPED) == 0 or named or panel["type"] == "stat", (
            f"lines of {target['expr']} look alike"
        )


def test_no_counter_is_shown_without_a_rate() -> None:
    for target in (target for panel in PANELS for target in panel["targets"]):
        for selector in selectors(target["expr"]):
            counts = (
                selector.name.endswith(("_total", "_bucket", "_count")) and "wait_seconds_count" not in target["expr"]
            )
            assert not counts or re.search(rf"(rate|increase)\({selector.name}", target["expr"]), target["expr"]


def shown_in(panel: dict[str, Any], target: dict[str, Any]) -> str:
    """The unit behind the numbers of a query: that of the panel, or one of its own."""
    unit: str = panel["fieldConfig"]["defaults"]["unit"]
    for each in panel["fieldConfig"]["overrides"]:
        matcher, told = each["matcher"], {found["id"]: found["value"] for found in each["properties"]}
        applies = {
            "byFrameRefID": lambda options: options == target["refId"],
            "byRegexp": lambda options: re.fullmatch(options, target["legendFormat"]),
        }[matcher["id"]]
        if applies(matcher["options"]):
            unit = told.get("unit", unit)
    return unit


def measured_in(expression: str) -> str:
    """The unit that the names of its metrics tell; "" = it counts something."""
    [name] = {selector.name for selector in selectors(expression)} if "histogram" not in expression else [""]
    if not name or name.endswith("_seconds"):
        return "h" if expression.endswith("/ 3600") else "s"
    if name.endswith(("_bytes", "_bytes_total")):
        return "Bps" if re.search(r"\brate\(", expression) else "bytes"
    return ""


def test_numbers_are_shown_in_the_unit_that_their_metric_has() -> None:
    for panel in (panel for panel in PANELS if panel["type"] != "stat"):
        for target in panel["targets"]:
            unit, told = measured_in(target["expr"]), shown_in(panel, target)
            assert told == unit or (not unit and told in ("short", "ops", "reqps")), f"{panel['title']}: {target}"


def test_lines_of_different_tenants_do_not_look_alike() -> None:
    for target in (target for panel in PANELS for target in panel["targets"]):
        if not re.search(r"\b(sum|min|max|count)\b", target["expr"]):
            for selector in selectors(target["expr"]):
                own = labels_by_name()[selector.name] - SCRAPED
                assert own <= set(re.findall(r"{{\s*(\w+)\s*}}", target["legendFormat"])), target["expr"]


def test_how_long_requests_take_is_told_without_those_that_stay_open() -> None:
    [alert] = [rule["expr"] for rule in RULES if rule["alert"] == "OrchestratorApiSlow"]
    [left_out] = re.findall(r'route!~"[^"]*"', alert)
    for target in (target for panel in PANELS for target in panel["targets"]):
        assert "http_request_duration_seconds_bucket" not in target["expr"] or left_out in target["expr"]


def asked(folder: Path, given: dict[str, str], expression: str, number: float) -> None:
    """It answers that number, ten minutes after the start."""
    told = [{"series": name, "values": values} for name, values in given.items()]
    check = {"expr": expression, "eval_time": "10m", "exp_samples": [{"labels": "{}", "value": number}]}
    file = folder / "asked.yml"
    test = {"interval": "1m", "input_series": told, "promql_expr_test": [check]}
    file.write_text(yaml.safe_dump({"evaluation_interval": "1m", "tests": [test]}))
    promtool("test", "rules", str(file))


STATS = {panel["title"]: panel["targets"][0]["expr"] for panel in PANELS if panel["type"] == "stat"}


@pytest.mark.parametrize("title", STATS)
def test_a_number_of_now_is_there_on_a_server_that_has_done_nothing(tmp_path: Path, title: str) -> None:
    asked(tmp_path, IDLE, f"count({STATS[title]})", 1)


def test_what_waits_is_told_before_anything_has_ended_its_wait(tmp_path: Path) -> None:
    began = series("orchestrator_task_waits_total", "3x60", dag="d", kind="approval")
    asked(tmp_path, IDLE | began, STATS["Tasks that wait for the world"], 3)
    ended = series("orchestrator_task_wait_seconds_count", "1x60", kind="approval")
    asked(tmp_path, IDLE | began | ended, STATS["Tasks that wait for the world"], 2)
    guide = (Path(__file__).parents[2] / "docs" / "observability.md").read_text(encoding="utf-8")
    assert f"`{STATS['Tasks that wait for the world']}`" in guide
