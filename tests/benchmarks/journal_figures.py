"""What the journal's steps cost: `python -m tests.benchmarks.journal_figures` prints one line per figure.

An embedded Valkey on a Unix socket, fsync on every write, one client process.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable

from actors.journal import Journal
from orchestrator.rows import RunFilter
from orchestrator.steps import Creation
from tests.conformance.journal_builders import (
    Owner,
    append,
    create,
    create_windows,
    days,
    new_backfill,
    new_id,
    new_run,
    put,
)
from tests.conformance.servers import Server, valkey_binary


def say(name: str, spans_s: list[float], cpu_s: float = 0.0) -> None:
    middle, high = statistics.median(spans_s), sorted(spans_s)[int(len(spans_s) * 0.99)]
    print(
        f"{name:<52} p50 {middle * 1e3:9.2f} ms  p99 {high * 1e3:9.2f} ms  client cpu {cpu_s * 1e3:7.2f} ms", flush=True
    )


async def timed(name: str, n: int, step: Callable[[int], Awaitable[object]]) -> None:
    spans, cpu = [], time.process_time()
    for i in range(n):
        begun = time.perf_counter()
        await step(i)
        spans.append(time.perf_counter() - begun)
    say(name, spans, (time.process_time() - cpu) / n)


async def appends(journal: Journal, owner: Owner) -> None:
    [run] = await create(journal, new_run())
    await timed(
        "append of 2 events", 1000, lambda i: owner.commit(append(run, 1 + 2 * i, 2, tasks=(("a", "d"), ("b", "r"))))
    )
    [run] = await create(journal, new_run())
    letters = tuple((f"task{i}", "d") for i in range(200))
    await timed(
        "commit of 200 task transitions of one run",
        50,
        lambda i: owner.commit(append(run, 1 + 200 * i, 200, tasks=letters)),
    )


async def bulk(journal: Journal, owner: Owner) -> None:
    batches = [[new_run() for _ in range(2000)] for _ in range(3)]
    await timed("create_runs of 2,000", 3, lambda i: journal.create_runs([Creation(tuple(batches[i]))]))
    for name, version, state in (("start", 1, "running"), ("finish", 2, "succeeded")):
        steps = [
            owner.step(
                *(append(run.run_id, version, state=state, tasks=(("a", "d"),)) for run in batches[0][i : i + 200])
            )
            for i in range(0, 2000, 200)
        ]
        await timed(f"commit: {name} 200 runs", 10, lambda i, steps=steps: journal.commit(steps[i]))  # type: ignore[misc]  # a default binds the loop's variable
    await timed("create_runs of 1", 300, lambda _: journal.create_runs([Creation((new_run(),))]))


async def backfills(journal: Journal, owner: Owner) -> None:
    for n, times in ((365, 5), (100_000, 1)):
        made = [new_backfill(create_windows(days(n)), dag_id=f"b{n}{i}", run_id=new_id()) for i in range(times)]
        for backfill in made:
            await journal.put_dag(put(backfill.dag_id))
        await timed(f"create_backfill of {n:,} windows", times, lambda i, made=made: journal.create_backfill(made[i]))  # type: ignore[misc]  # a default binds the loop's variable
        await timed(f"children of {n:,}", times, lambda i, made=made: journal.children(made[i].run_id))  # type: ignore[misc]  # a default binds the loop's variable
        if n == 365:
            runs = [w.run_id for w in made[0].windows]
            step = owner.step(
                *(append(run, 1, 4, state="succeeded", tasks=(("a", "d"), ("b", "d"), ("c", "d"))) for run in runs)
            )
            await timed("commit: end 365 windows of 3 tasks", 1, lambda _, step=step: journal.commit(step))  # type: ignore[misc]  # a default binds the loop's variable
    await timed("queued_and_active of 100,000", 1, lambda _: journal.queued_and_active())


async def reads(journal: Journal) -> None:
    rows = (await journal.summaries(RunFilter(tenant="t", dag_id="d"), None, 200)).rows
    await timed("page of 50", 200, lambda _: journal.summaries(RunFilter(tenant="t"), None, 50))
    await timed("summary", 500, lambda i: journal.summary(rows[i % 200].run_id))
    ids = [r.run_id for r in await journal.queued_and_active()][:10_000]
    await timed("load of 10,000 runs", 1, lambda _: journal.load(ids))


async def main() -> None:
    server = Server(valkey_binary())
    journal = Journal(server.url, deadline_s=60)
    try:
        owner = await Owner(journal).start()
        await appends(journal, owner)
        await bulk(journal, owner)
        await reads(journal)
        await backfills(journal, owner)
    finally:
        await journal.close()
        server.stop()


if __name__ == "__main__":
    asyncio.run(main())
