"""What a server costs while nothing happens: its share of a core and its memory, by kind of process."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.live import Process

#: part of a process title -> whose it is; first match wins
KINDS = (
    ("RunActorProcess", "RunActors"),
    ("WorkerProcess", "workers"),
    ("SchedulerProcess", "scheduler"),
    ("GatewayProcess", "gateway"),
    ("HandlersProcess", "handlers of blueprints"),
    ("SupervisorProcess", "supervisor"),
    ("valkey-server", "journal (Valkey)"),
    ("ServeReplica", "API replica"),
    ("orchestrator", "orchestrator up"),
    ("serve_app", "orchestrator up"),
    ("ServeController", "Ray Serve"),
    ("ProxyActor", "Ray Serve"),
    ("HAProxy", "Ray Serve"),
    ("haproxy", "Ray Serve"),
    ("dashboard", "Ray dashboard"),
    ("gcs_server", "Ray"),
    ("raylet", "Ray"),
    ("ray", "Ray"),
)


def kind(title: str) -> str:
    """Which part of the system a process belongs to."""
    return next((name for part, name in KINDS if part in title), "other")


def cpu_seconds(pid: int) -> float:
    """CPU time a process has used so far; 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pss_bytes(pid: int) -> int:
    """Proportional set size of a process; 0 when it is gone."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def idle_cpu(processes: Callable[[], Sequence[Process]], span_s: float) -> dict[str, float]:
    """Share of one core used by each kind of process over the next `span_s` seconds."""
    before = {p.pid: (p, cpu_seconds(p.pid)) for p in processes()}
    start = time.perf_counter()
    time.sleep(span_s)
    took = time.perf_counter() - start
    shares: dict[str, float] = defaultdict(float)
    for process, used in before.values():
        shares[kind(process.title)] += max(0.0, cpu_seconds(process.pid) - used) / took
    return dict(shares)


def memory(processes: Sequence[Process]) -> dict[str, int]:
    """Proportional set size in bytes by kind of process."""
    sizes: dict[str, int] = defaultdict(int)
    for process in processes:
        sizes[kind(process.title)] += pss_bytes(process.pid)
    return dict(sizes)


def in_words(values: Mapping[str, float], form: str) -> str:
    """ "kind value, …", largest first."""
    return ", ".join(
        f"{name} {format(value, form)}" for name, value in sorted(values.items(), key=lambda item: -item[1])
    )
