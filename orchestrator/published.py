"""Names under which a run answers queries: those that its tasks publish, and those that the system knows itself."""

from __future__ import annotations

import re

#: known of every run
BUILT_IN = frozenset({"progress", "waiting_for"})
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
