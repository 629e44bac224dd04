"""What the journal knows of bundles: that they are kept, and which DAGs were deployed from them.

    kind `bundles`       <id>             BundleRecord: how large, and when somebody last sent or deployed it
    kind `bundle_uses`   <id>/<dag_id>    a version of that DAG names the bundle

A use is written before the version that it is about, and each has a record of its own, so whatever is written twice or
half leads to nothing but a bundle that is kept for longer.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import msgspec

RECORDS = "bundles"
USES = "bundle_uses"


class BundleRecord(msgspec.Struct, frozen=True):
    """One bundle that is kept."""

    #: bytes, packed
    size_bytes: int
    files: int
    #: epoch ms; what was sent or deployed a short while ago is not removed
    touched_ms: int


class BundleView(msgspec.Struct, frozen=True):
    """One bundle, as people see it."""

    bundle: str
    size_bytes: int
    files: int
    touched_at: datetime
    #: DAGs that were deployed from it
    dags: tuple[str, ...] = ()
    #: those among them whose current version names it
    current: tuple[str, ...] = ()


class BundleStored(msgspec.Struct, frozen=True):
    """What came of sending one."""

    bundle: str
    size_bytes: int
    files: int
    #: False = it was there already
    created: bool


def use_key(bundle: str, dag_id: str) -> str:
    """Key of the record of a use."""
    return f"{bundle}/{dag_id}"


def uses_of(keys: Iterable[str]) -> dict[str, list[str]]:
    """Bundle -> DAGs that were deployed from it, by id."""
    found: dict[str, list[str]] = {}
    for key in sorted(keys):
        bundle, _, dag_id = key.partition("/")
        found.setdefault(bundle, []).append(dag_id)
    return found
