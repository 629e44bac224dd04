"""What became of the attempts that ran when the former incarnation of an actor died.

Workers say what they still hold for it (`holding`): reports are settled, live attempts waited for, the others are lost.
One that is not reached, and is not known to have died, is asked for as long as it may be silent.
Kubernetes Jobs are ordered again, and adopted.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping

from actors.crew import Crew, Gone, Key, Limit
from actors.hosted import Hosted, HostedRun
from actors.kubernetes_seat import KubernetesSeat
from actors.names import KUBERNETES
from actors.peers import Peers, WorkerGone, WorkerUnreachable
from orchestrator import actor_codec, run_duties
from orchestrator.messages import Holding, Need

_log = logging.getLogger(__name__)

#: seconds before a worker that was not reached is asked again
_AGAIN_S = 0.2


class FormerAttempts:
    """Finds them, once, when runs were read back."""

    def __init__(
        self, name: str, epoch: int, peers: Peers, crew: Crew, jobs: KubernetesSeat, post: Callable[[Gone], None]
    ) -> None:
        self._name = name
        self._epoch = epoch
        self._peers = peers
        self._crew = crew
        self._jobs = jobs
        self._post = post

    async def find(self, hosted: Mapping[str, Hosted]) -> None:
        """Ask every worker that had one; what it says comes as messages."""
        waiting: dict[tuple[str, str], dict[Key, Limit]] = defaultdict(dict)
        for each in hosted.values():
            if isinstance(each, HostedRun):
                run = each.run
                for effect in run_duties.owed(run):
                    if isinstance(effect, run_duties.Await) and effect.worker == KUBERNETES:
                        self._jobs.order(run, [run.position(effect.task)])
                    elif isinstance(effect, run_duties.Await):
                        spec = run.compiled.specs[run.position(effect.task)]
                        limit = Limit(spec.timeout_s, spec.heartbeat_timeout_s)
                        waiting[effect.worker, effect.incarnation][run.run_id, effect.task, effect.attempt] = limit
        await asyncio.gather(*(self._claim_from(w, i, keys, hosted) for (w, i), keys in waiting.items()))

    async def _claim_from(
        self, worker: str, incarnation: str, keys: dict[Key, Limit], hosted: Mapping[str, Hosted]
    ) -> None:
        try:
            holding = await self._ask(worker)
        except WorkerGone as gone:
            _log.warning("%s", gone)
            self._post(Gone(worker, incarnation, tuple(keys), ()))
            return
        reported = {(r.run_id, r.task, r.attempt) for r in holding.reports}
        known = reported | set(holding.live)
        missing = tuple(key for key in keys if key not in known)
        here = {key: limit for key, limit in keys.items() if key in known}
        if here:  # the empty batch brings the kept reports and waits for the live attempts; older reports tell no need
            self._crew.collect(worker, holding.incarnation, 0, here, _need_of(hosted, next(iter(here))))
        if missing:
            self._post(Gone(worker, incarnation, missing, ()))

    async def _ask(self, worker: str) -> Holding:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + self._crew.lease_s
        while True:
            try:
                blob = await self._peers.control(worker, "holding", self._name, self._epoch)
                return actor_codec.decode_holding(blob)
            except WorkerUnreachable as failed:
                if loop.time() >= until_s or await self._peers.is_dead(worker):
                    raise
                _log.info("%s", failed)
            await asyncio.sleep(_AGAIN_S)


def _need_of(hosted: Mapping[str, Hosted], key: Key) -> Need | None:
    """What the attempt needs beside its slot; those on one worker at a time need the same."""
    it = hosted[key[0]]
    if not isinstance(it, HostedRun) or it.run.aside is None:
        return None
    return it.run.aside.needs[it.run.position(key[1])]
