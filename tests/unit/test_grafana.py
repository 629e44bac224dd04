"""The dashboard as Grafana and Prometheus read it: by Grafana's own types, and by a parser of PromQL."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.test_watched import ASKED, DASHBOARD, PANELS, labels_by_name

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
