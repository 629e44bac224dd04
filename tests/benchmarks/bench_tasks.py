"""User code of the benchmarks, imported by workers as `bench_tasks`."""

import time
from pathlib import Path


def numbers(n: int) -> list[int]:
    """What is mapped over."""
    return list(range(n))


def double(item: int) -> int:
    """One instance."""
    return 2 * item


def total(results: list[int]) -> int:
    """What all instances have returned."""
    return sum(results)


def stamp(path: str) -> None:
    """Leaves the time of its first line in the file `path`."""
    now = time.time_ns()
    Path(path).write_text(str(now))
