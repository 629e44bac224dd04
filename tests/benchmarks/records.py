"""What a benchmark measured: one record a workload, as a table for people and as JSON for comparison."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

LATEST = Path(__file__).with_name("latest.json")
OURS, PLAIN = "orchestrator", "ray.remote"


@dataclass(frozen=True, slots=True)
class Record:
    """One line of `latest.json`."""

    system: str
    workload: str
    #: tasks, runs or samples: what `per_second` counts
    n: int
    seconds: float
    per_second: float
    ms_each: float
    notes: str = ""


def record(system: str, workload: str, n: int, seconds: Sequence[float], notes: str = "") -> Record:
    """The record of the median of `seconds`, with the spread in its notes."""
    middle = statistics.median(seconds)
    spread = f"{len(seconds)} x, {min(seconds):.3f}..{max(seconds):.3f} s"
    return Record(
        system,
        workload,
        n,
        round(middle, 4),
        round(n / middle, 1),
        round(middle / n * 1000, 3),
        f"{spread}; {notes}".strip("; "),
    )


def single(system: str, workload: str, n: int, value_s: float, notes: str = "") -> Record:
    """The record of one value that is already per piece, for instance a percentile."""
    return Record(
        system,
        workload,
        n,
        round(value_s, 4),
        round(1 / value_s, 1) if value_s else 0.0,
        round(value_s * 1000, 3),
        notes,
    )


def repeated(times: int, once: Callable[[], float]) -> list[float]:
    """Seconds of each of `times` repetitions."""
    return [once() for _ in range(times)]


def save(records: Sequence[Record]) -> None:
    """`latest.json` holds `records`, and older ones only of workloads that were not measured now."""
    measured = {(r.system, r.workload) for r in records}
    old = json.loads(LATEST.read_text()) if LATEST.exists() else []
    kept = [entry for entry in old if (entry["system"], entry["workload"]) not in measured]
    LATEST.write_text(json.dumps([*kept, *map(asdict, records)], indent=1) + "\n")


def show(records: Sequence[Record]) -> None:
    """Prints the table; ours beside plain Ray where both were measured."""
    plain = {r.workload: r for r in records if r.system == PLAIN}
    table = Table(title="medians, no-op tasks, fsync always, completion seen over HTTP")
    for name in ("system", "workload", "n", "seconds", "per second", "ms each", "x plain Ray", "notes"):
        table.add_column(name, justify="left" if name in {"system", "workload", "notes"} else "right", overflow="fold")
    for r in records:
        beside = plain.get(r.workload.removesuffix(", streamed"))
        ratio = f"{r.per_second / beside.per_second:.1f}" if beside and r is not beside else ""
        table.add_row(
            r.system,
            r.workload,
            f"{r.n:,}",
            f"{r.seconds:.3f}",
            f"{r.per_second:,.0f}",
            f"{r.ms_each:.2f}",
            ratio,
            r.notes,
        )
    Console(width=160).print(table)
