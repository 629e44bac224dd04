"""examples/deadlines.py means what it says: its own classes, as a worker reports them, against its policies."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from orchestrator import dags_in
from orchestrator.failures import names_of
from orchestrator.messages import Report
from orchestrator.retry import allowance

EXAMPLE = Path(__file__).parents[2] / "examples" / "deadlines.py"


class Attempt:
    """A context that knows its number."""

    def __init__(self, attempt: int) -> None:
        self.attempt = attempt


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(EXAMPLE.parent))
    return importlib.import_module(EXAMPLE.stem)


def failed(error: BaseException | None, outcome: str = "error") -> Report:
    return Report("run_1", "fetch", 1, outcome, raised=names_of(error) if error else ())


def test_it_tries_again_what_is_refused_and_what_is_silent_and_nothing_else(module: Any) -> None:
    (dag,) = dags_in(module)
    fetch, crunch, report = dag.definition().tasks
    with pytest.raises(module.Refused) as refused:
        module.fetch(Attempt(2))
    assert module.fetch(Attempt(3)) == 7
    assert allowance(fetch, failed(refused.value)) == (5, 0.1)
    assert allowance(fetch, failed(KeyError("x")))[0] == 0
    assert allowance(crunch, failed(None, "stalled")) == (1, 0.1)
    assert allowance(crunch, failed(ValueError("x")))[0] == 0
    assert (crunch.heartbeat_timeout_s, report.sla_s, report.queue_timeout_s) == (1, 1, 60)
