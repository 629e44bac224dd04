"""Writes the figures of `latest.json` between the marks in the README: `python -m tests.benchmarks.readme_figures`.

    <!-- figures -->  two tables: workloads beside plain Ray tasks, and what the system costs at rest  <!-- /figures -->

A number stands in the README only because it stands in `latest.json`; `tests/test_readme.py` checks that.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.benchmarks.records import LATEST, OURS, PLAIN, Record

README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- figures -->", "<!-- /figures -->"
BASELINE = "Ray and Serve"

#: workloads that are not a number of things done in a time -> how their value reads
AT_REST: Mapping[str, Callable[[Record], str]] = {
    "up to ready": lambda r: f"{r.seconds:.1f} s",
    "idle CPU": lambda r: f"{r.seconds:.1%} of a core",
    "idle memory": lambda r: f"{r.n:,} MB of PSS",
}


def main() -> None:
    """The README holds the figures of `latest.json`."""
    README.write_text(replaced(README.read_text(encoding="utf-8"), rendered(latest())), encoding="utf-8")


def latest() -> list[Record]:
    """What was measured last."""
    return [Record(**entry) for entry in json.loads(LATEST.read_text())]


def replaced(text: str, figures: str) -> str:
    """`text` with `figures` between its marks. Raises ValueError when it does not have both marks once."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in after:
        raise ValueError(f"{BEGIN} and {END} are expected once each, in this order")
    return f"{before}{BEGIN}\n{figures}\n{END}{after}"


def rendered(records: Sequence[Record]) -> str:
    """The tables as Markdown; the second only when it has rows."""
    return "\n\n".join(filter(None, (_workloads(records), _at_rest(records))))


def _workloads(records: Sequence[Record]) -> str:
    plain = {r.workload: r for r in records if r.system == PLAIN}
    rows = [
        _timed(r, plain.get(r.workload.removesuffix(", streamed")))
        for r in records
        if r.system == OURS and r.workload not in AT_REST and not _is_left_out(r.workload)
    ]
    return _table(
        ("workload", "n", "s", "per s", "ms each", "plain Ray, per s", "repetitions, spread"), "lrrrrrl", rows
    )


def _is_left_out(workload: str) -> bool:
    """Smaller sizes, and the same with every event read, which costs a few percent: `latest.json` has them."""
    return workload in {"fan-out of 500", "backfill 30 x 3"} or workload.endswith(", streamed")


def _timed(r: Record, plain: Record | None) -> tuple[str, ...]:
    beside = f"{plain.per_second:,.0f}" if plain else ""
    if _is_single(r):
        return (r.workload, f"{r.n:,}", "", "", f"{r.ms_each:,.1f}" if r.ms_each else "", beside, r.notes)
    each = f"{r.ms_each:.2f}" if r.ms_each else ""
    return (r.workload, f"{r.n:,}", f"{r.seconds:.2f}", f"{r.per_second:,.0f}", each, beside, r.notes)


def _is_single(r: Record) -> bool:
    """Was it measured for one piece, as a percentile is, rather than for all `n`?"""
    return r.n > 1 and abs(r.seconds * 1000 - r.ms_each) < 0.1


def _at_rest(records: Sequence[Record]) -> str:
    found = {(r.system, r.workload): AT_REST[r.workload](r) for r in records if r.workload in AT_REST}
    rows = [
        (workload, found.get((OURS, workload), ""), found.get((BASELINE, workload), ""))
        for workload in AT_REST
        if any(name == workload for _, name in found)
    ]
    return _table(("at rest", "all processes", "Ray and Serve alone"), "lrr", rows)


def _table(names: Sequence[str], sides: str, rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; `sides` has l or r for each column. Empty without rows."""
    if not rows:
        return ""
    rule = ["---" if side == "l" else "---:" for side in sides]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (names, rule, *rows))


if __name__ == "__main__":
    main()
