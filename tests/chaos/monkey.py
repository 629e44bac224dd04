"""A monkey with a seed: kills processes of one kind at random moments while something runs.

    with Monkey(server, "worker", seed).at_work(kills=2, within_s=3): ...

SIGKILL only: the victim has no chance to say or save anything. The seed decides which process dies and when;
what the system was doing at that moment is left to it.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.live import Process, Server


def titled(*titles: str) -> Callable[[Server], list[Process]]:
    """Processes whose title has one of `titles`."""
    return lambda server: [process for process in server.processes() if any(title in process.title for title in titles)]


#: kind -> its processes now
KINDS: dict[str, Callable[[Server], list[Process]]] = {
    "run actor": titled("ray::RunActorProcess"),
    "worker": titled("ray::WorkerProcess"),
    "scheduler": titled("ray::SchedulerProcess"),
    "supervisor": titled("ray::SupervisorProcess"),
    "API replica": titled("ray::ServeReplica"),
    "journal": titled("valkey-server"),
}


@dataclass(slots=True)
class Monkey:
    """Kills processes of one kind of one server."""

    server: Server
    kind: str
    seed: int
    #: (seconds after the start, pid) of what it killed
    killed: list[tuple[float, int]] = field(default_factory=list)

    @contextlib.contextmanager
    def at_work(self, kills: int, within_s: float) -> Iterator[None]:
        """In the background, `kills` times: waits a random part of `within_s / kills`, then kills one process."""
        chance = random.Random(self.seed)
        stop = threading.Event()
        thread = threading.Thread(target=self._work, args=(chance, stop, kills, within_s / kills), daemon=True)
        thread.start()
        try:
            yield
            thread.join(timeout=within_s + 60)
        finally:
            stop.set()
            print(f"monkey with seed {self.seed} killed {self.kind}: {self.killed}")
        assert len(self.killed) == kills, f"no {self.kind} came back to be killed: {self.killed}"

    def _work(self, chance: random.Random, stop: threading.Event, kills: int, span_s: float) -> None:
        start = time.monotonic()
        for _ in range(kills):
            if stop.wait(chance.uniform(0.05, span_s)):
                return
            victim = self._victim(chance, stop)
            if victim is None:
                return
            victim.kill()
            self.killed.append((round(time.monotonic() - start, 3), victim.pid))

    def _victim(self, chance: random.Random, stop: threading.Event) -> Process | None:
        """A process of the kind that was not killed before; waits until there is one."""
        dead = {pid for _, pid in self.killed}
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and not stop.is_set():
            alive = [process for process in KINDS[self.kind](self.server) if process.pid not in dead]
            if alive:
                return chance.choice(alive)
            time.sleep(0.05)
        return None
