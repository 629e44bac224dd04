"""Plain `ray.remote` no-op tasks of the same numbers, in a process and a cluster of their own.

    python -m tests.benchmarks.plain_ray REPEAT WORKLOAD:KIND:N ...   ->  {workload: [seconds of each repetition]}

KIND is `fan` (n independent tasks, one `ray.get` of them all), `chain` (each takes the last one's
reference) or `chains` (n/3 chains of three).
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any


def main() -> None:
    """Runs the workloads named on the command line and prints what they took."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    import ray

    ray.init("local", num_cpus=os.cpu_count(), include_dashboard=False, log_to_driver=False, configure_logging=False)

    def nothing(*_: object) -> None:
        return None

    noop: Any = ray.remote(nothing)

    def fan(n: int) -> None:
        ray.get([noop.remote() for _ in range(n)])

    def chain(n: int) -> None:
        last = noop.remote()
        for _ in range(n - 1):
            last = noop.remote(last)
        ray.get(last)

    def chains(n: int) -> None:
        ray.get([noop.remote(noop.remote(noop.remote())) for _ in range(n // 3)])

    kinds = {"fan": fan, "chain": chain, "chains": chains}
    fan(500)
    answer: dict[str, list[float]] = {}
    for item in sys.argv[2:]:
        workload, kind, n = item.rsplit(":", 2)
        answer[workload] = []
        for _ in range(int(sys.argv[1])):
            start = time.perf_counter()
            kinds[kind](int(n))
            answer[workload].append(time.perf_counter() - start)
    ray.shutdown()
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
