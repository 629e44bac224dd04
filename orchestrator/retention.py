"""What stays of a run that ended long ago.

    whole history ── older than the retention ──▶ first event, HistoryRemoved, row          (`removal`)
                     of a kind that is nobody's DAG, and not shown any more ──▶ nothing

The row keeps what a run is shown by, its states of tasks among it, and a window's run stands for its window for ever.
It can be restarted, by reprocessing; single tasks of it can be neither retried nor skipped, since what the others came
to is gone. Backfills keep their histories, which count windows that may go on again. Source: contracts/dags.md,
section 8 (180 days), contracts/runs.md, section 6, and instances.md, section 2 (what is not shown any more).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from orchestrator import events as e
from orchestrator.checkpoints import Checkpoints
from orchestrator.live_run_views import CheckpointView
from orchestrator.run_state import ENDED, Run


def removal(run: Run, history: Sequence[e.Event], now: datetime) -> e.HistoryRemoved:
    """Stands for every event of an ended run but the first. `run` is the fold of `history`."""
    assert run.state in ENDED, f"run {run.run_id} is {run.state}"
    checkpoints = Checkpoints(run.run_id, lambda _: None)
    told = [each.at for event in history for each in checkpoints.tell(event) if isinstance(each, CheckpointView)]
    last = {name: task.attempt for name, task in zip(run.compiled.graph.names, run.tasks, strict=True) if task.attempt}
    return e.HistoryRemoved(
        at=now,
        through=run.version,
        until=told[-1] if told else history[-1].at,
        state=str(run.state),
        attempts=run.attempts,
        task_attempts=run.past_attempts | last,
    )
