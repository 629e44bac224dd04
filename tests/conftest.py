"""What every test stands on: the environment, before anybody imports Ray."""

from __future__ import annotations

import os

# A test starts a cluster on purpose or not at all, and none of them talks to the world.
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_DEDUP_LOGS", "0")
# What the developer has set for a server of their own must not leak into the tests.
for _name in ("ORCHESTRATOR_URL", "ORCHESTRATOR_TOKEN", "ORCHESTRATOR_HOME", "REDIS_URL"):
    os.environ.pop(_name, None)
