"""What an operator watches with: metrics are complete, dashboard and alert rules ask for what there is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from orchestrator import events as e
from orchestrator.ports import LATENCY_BOUNDS, METRICS_MAX
from orchestrator.task import TERMINAL
from tests.watched import promtool, scrape, watched

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "orchestrator.json").read_text(encoding="utf-8"))
RULES_FILE = DEPLOY / "prometheus" / "alerts.yml"
RULES = [rule for group in yaml.safe_load(RULES_FILE.read_text())["groups"] for rule in group["rules"]]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
SHOWN = [target["expr"] for panel in PANELS for target in panel["targets"]]
ASKED = [*SHOWN, *(rule["expr"] for rule in RULES)]
#: what Prometheus itself knows
ITS_OWN = {"up": {"job"}}
WORDS = {"and", "or", "unless", "by", "on", "sum", "rate", "increase", "histogram_quantile", "topk", "absent", "deriv"}
WORDS |= {"min", "offset", "vector"}


def samples(text: str) -> Iterator[tuple[str, dict[str, str], float]]:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            yield sample.name, sample.labels, sample.value


def values(text: str, name: str) -> dict[tuple[str, ...], float]:
    return {tuple(labels.values()): value for found, labels, value in samples(text) if found == name}


def labels_by_name() -> dict[str, set[str]]:
    found: dict[str, set[str]] = dict(ITS_OWN)
    for name, labels, _ in samples(watched().text):
        found.setdefault(name, set()).update(labels)
    return found


# ---------------------------------------------------------------- metrics


def test_tasks_maps_waits_and_votes_of_a_run_are_counted() -> None:
    text = watched().text
    assert values(text, "orchestrator_tasks_total") == {
        ("d", "succeeded"): 9,  # six tasks, and three instances of one
        ("below", "succeeded"): 1,
    }
    assert values(text, "orchestrator_task_retries_total") == {("d", "error"): 1}
    assert values(text, "orchestrator_maps_total") == {("d",): 1}
    assert values(text, "orchestrator_map_instances_total") == {("d",): 3}
    assert values(text, "orchestrator_signals_total") == values(text, "orchestrator_votes_total") == {("d",): 1}
    began = {("d", "time"): 1, ("d", "signal"): 1, ("d", "approval"): 1, ("d", "run"): 1}
    assert values(text, "orchestrator_task_waits_total") == began
    ended = values(text, "orchestrator_task_wait_seconds_count")
    assert ended == {("time",): 1, ("signal",): 1, ("approval",): 1, ("run",): 1}, "so none waits"


def test_an_attempt_is_measured_from_its_start_and_waits_are_measured_apart() -> None:
    text = watched().text
    assert values(text, "orchestrator_task_duration_seconds_count") == {("d",): 5, ("below",): 1}, "one of d failed"
    assert 0.5 <= values(text, "orchestrator_task_duration_seconds_sum")["d",] < 0.6
    assert 2.0 <= values(text, "orchestrator_task_wait_seconds_sum")["time",] < 2.1


def test_every_state_in_which_a_task_ends_is_told_by_an_event_that_is_counted() -> None:
    from actors.run_counts import counts_of

    at = watched().events[0].at
    ends = {
        "succeeded": e.TaskSucceeded(at, "t", 0),
        "failed": e.TaskFailed(at, "t", 0, "Boom"),
        "timed_out": e.TaskFailed(at, "t", 0, "late", timed_out=True, reason="queued"),
        "skipped": e.TaskSkipped(at, "t"),
        "upstream_failed": e.TaskUpstreamFailed(at, "t"),
        "cancelled": e.TaskCancelled(at, "t"),
    }
    assert set(ends) == {str(state) for state in TERMINAL}
    for state, event in ends.items():
        assert counts_of([(_NoSuchTask(), [event], {})]) == {f"orchestrator_tasks_total|d|{state}": 1}  # type: ignore[list-item]  # a part of it will do


class _NoSuchTask:
    """Of a run, what is looked at for a task that it has not."""

    dag_id = "d"
    compiled = type("C", (), {"graph": type("G", (), {"index": {}})})


def test_inline_plans_are_counted_under_their_kind() -> None:
    from actors.run_counts import label_of

    assert (label_of("@flow/0123abcd"), label_of("@run"), label_of("etl")) == ("@flow", "@run", "etl")


def test_a_metric_has_no_label_that_grows_with_runs() -> None:
    grows = {"run", "run_id", "task", "task_id", "attempt", "instance", "worker", "window", "id", "path"}
    assert {name: labels & grows for name, labels in labels_by_name().items() if labels & grows} == {}


def test_more_runs_of_a_dag_make_no_more_series() -> None:
    counters = watched().counters
    assert len(list(samples(scrape({name: 10_000 * n for name, n in counters.items()})))) == len(
        list(samples(watched().text))
    )


def test_every_metric_says_what_it_is_in_its_name_and_its_help() -> None:
    for family in text_string_to_metric_families(watched().text):
        assert family.documentation, family.name
        assert family.type in ("counter", "gauge", "histogram"), family.name
        assert family.samples, f"{family.name} is not shown by this scrape, so that nothing is known of it"
        assert re.fullmatch(r"[a-z][a-z_]*[a-z]", family.name), family.name
        assert family.type != "histogram" or family.name.endswith("_seconds"), family.name


def test_the_guides_tell_every_metric_and_none_that_there_is_not() -> None:
    known = set(labels_by_name())
    guide = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| (`[^|]*) \|", guide.partition("## Traces")[0], re.M)
    told = {name for names in table for name in re.findall(r"`(\w+)`", names)}
    assert len(told) > 30
    for name in told:
        assert name in known or f"{name}_count" in known, f"{name} is no metric of ours"
    everywhere = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "docs").glob("*.md"))
    everywhere += (ROOT / "README.md").read_text(encoding="utf-8")
    plain = {re.sub(r"_(bucket|count|sum)$", "", name) for name in known - ITS_OWN.keys()}
    assert [name for name in sorted(plain) if name not in everywhere] == []


def test_the_guide_tells_the_labels_of_each_metric() -> None:
    known = {re.sub(r"_(bucket|count|sum)$", "", name): labels - {"le"} for name, labels in labels_by_name().items()}
    guide = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
    for names, labels in re.findall(r"^\| (`[^|]*) \| ([^|]*)\|", guide.partition("## Traces")[0], re.M):
        told = set(re.findall(r"`(\w+)`", labels))
        own = [known[name] for name in re.findall(r"`(\w+)`", names)]
        assert told == set().union(*own), names
        assert re.search(r"[(;]", labels) or all(each == told for each in own), f"of {names} not each has {labels}"


def test_the_most_series_that_the_guide_promises_follow_from_what_is_kept() -> None:
    guide = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
    shown = len(LATENCY_BOUNDS) + 3
    assert f"Once there are {METRICS_MAX:,} numbers" in guide
    assert (
        f"three numbers is shown as {shown} series, so there are at most {METRICS_MAX // 3 * shown:,}"
        in guide.replace("\n", " ")
    )


def test_promtool_has_nothing_to_say_against_the_metrics() -> None:
    promtool("check", "metrics", given=watched().text)


# ---------------------------------------------------------------- dashboard and rules


def asked_of(expression: str) -> dict[str, set[str]]:
    """Metric -> labels that the expression selects by."""
    plain = re.sub(r'"[^"]*"', '""', expression)
    plain = re.sub(r"\b(by|on)\s*\([^)]*\)", " ", re.sub(r"\[[^\]]*\]", "", plain))
    found: dict[str, set[str]] = {}
    for name, selectors in re.findall(r"\b([a-z_]+)\b(?:\{([^}]*)\})?", re.sub(r"\b\d\S*", " ", plain)):
        if name not in WORDS and not re.search(rf"[{{,]\s*{name}\s*(=|!)", plain):
            found.setdefault(name, set()).update(re.findall(r"([a-z_]+)\s*(?:=~|!~|!=|=)", selectors))
    return found


@pytest.mark.parametrize("expression", ASKED)
def test_what_is_asked_for_exists_with_its_labels(expression: str) -> None:
    known = labels_by_name()
    asked = asked_of(expression)
    assert asked, expression
    for name, labels in asked.items():
        assert name in known, f"{name} is no metric of ours"
        assert labels <= known[name], f"{name} has labels {known[name]}"
    grouped = {label.strip() for group in re.findall(r"\bby \(([^)]*)\)", expression) for label in group.split(",")}
    assert grouped <= set().union(*(known[name] for name in asked)), expression


def test_every_metric_of_ours_is_shown_on_the_dashboard() -> None:
    shown = {re.sub(r"_(bucket|count|sum|total)$", "", name) for each in SHOWN for name in asked_of(each)}
    ours = {family.name for family in text_string_to_metric_families(watched().text)}
    assert ours - shown == set()


def test_the_dashboard_has_what_grafana_needs_to_load_it() -> None:
    assert (DASHBOARD["uid"], DASHBOARD["title"], DASHBOARD["schemaVersion"]) == (
        "ray-orchestrator",
        "Orchestrator",
        39,
    )
    assert "id" not in DASHBOARD, "an id is of one Grafana only"
    assert [variable["name"] for variable in DASHBOARD["templating"]["list"]] == ["datasource", "dag"]
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in PANELS:
        assert panel["title"], panel["id"]
        assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs), panel["title"]


def test_no_panel_lies_over_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + dx, at["y"] + dy) for dx in range(at["w"]) for dy in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        taken |= cells


def test_every_alert_says_what_is_wrong_and_how_bad_it_is() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names) > 10
    for rule in RULES:
        assert rule["labels"]["severity"] in ("critical", "warning", "info"), rule["alert"]
        assert set(rule["annotations"]) == {"summary", "description"}, rule["alert"]


def test_promtool_has_nothing_to_say_against_the_rules() -> None:
    promtool("check", "rules", str(RULES_FILE))


def test_promtool_can_read_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    plain = [each.replace("$__rate_interval", "5m").replace("$dag", ".*") for each in SHOWN]
    rules = [{"record": f"shown:{n}", "expr": each} for n, each in enumerate(plain)]
    file = tmp_path / "shown.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "shown", "rules": rules}]}))
    promtool("check", "rules", str(file))


def test_alerts_fire_when_nobody_is_in_charge_and_not_because_a_plane_stands_by(tmp_path: Path) -> None:
    rules = {rule["alert"]: rule for rule in RULES}
    up, charge = 'up{job="orchestrator",instance="%s"}', 'orchestrator_plane_in_charge{instance="%s"}'
    series = {
        up % "new": "1x40",
        up % "old": "1x40",
        charge % "new": "0x40",
        charge % "old": "1x40",
        'orchestrator_plane_lease_age_seconds{instance="new"}': "0 3 1 12 0+15x36",
    }
    silent, nobody = "OrchestratorSchedulerSilent", "OrchestratorNobodyInCharge"
    fired = {
        (silent, "1m"): [],
        (silent, "5m"): [{"instance": "old", "job": "orchestrator"}],
        (nobody, "1m"): [],
        (nobody, "5m"): [{}],
    }
    checks = [
        {
            "alertname": name,
            "eval_time": at,
            "exp_alerts": [
                {
                    "exp_labels": labels | rules[name]["labels"],
                    "exp_annotations": {
                        key: text.replace("{{ $value | humanizeDuration }}", "4m 0s")
                        for key, text in rules[name]["annotations"].items()
                    },
                }
                for labels in alerts
            ],
        }
        for (name, at), alerts in fired.items()
    ]
    given = [{"series": name, "values": told} for name, told in series.items()]
    file = tmp_path / "fired.yml"
    tests = [{"interval": "15s", "input_series": given, "alert_rule_test": checks}]
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES_FILE)], "evaluation_interval": "15s", "tests": tests}))
    promtool("test", "rules", str(file))
