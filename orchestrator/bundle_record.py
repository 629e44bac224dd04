"""What the journal knows of bundles: for whom they are kept, and which DAGs were deployed from them.

    kind `bundles`       <id>             BundleRecord: how large, and when somebody last sent or deployed it
    kind `bundle_uses`   <id>/<dag_id>    a version of that DAG names the bundle

Each tenant that sent a bundle holds it, and knows of no other one's: of tenants other than the first one the keys end
with `/<tenant>`. The file is there for as long as somebody holds it. A use is written before the version that it is
about, and each has a record of its own, so whatever is written twice or half leads to nothing but a bundle that is kept
for longer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

import msgspec

from orchestrator.ids import DEFAULT_TENANT

RECORDS = "bundles"
USES = "bundle_uses"


class BundleRecord(msgspec.Struct, frozen=True):
    """One bundle that is kept, for one tenant."""

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


def record_key(bundle: str, tenant: str) -> str:
    """Key of the record of a bundle that the tenant holds."""
    return _key(bundle, tenant)


def use_key(bundle: str, dag_id: str, tenant: str) -> str:
    """Key of the record of a use."""
    return _key(f"{bundle}/{dag_id}", tenant)


def held(records: Mapping[str, bytes]) -> dict[tuple[str, str], BundleRecord]:
    """(bundle, tenant) -> what the tenant holds, by bundle, then tenant."""
    found = {}
    for key, blob in records.items():
        bundle, _, tenant = key.partition("/")
        found[bundle, tenant or DEFAULT_TENANT] = msgspec.json.decode(blob, type=BundleRecord)
    return dict(sorted(found.items()))


def uses_of(keys: Iterable[str]) -> dict[tuple[str, str], list[str]]:
    """(bundle, tenant) -> DAGs of the tenant that were deployed from it, by id."""
    found: dict[tuple[str, str], list[str]] = {}
    for key in sorted(keys):
        bundle, dag_id, tenant = (*key.split("/", 2), "")[:3]
        found.setdefault((bundle, tenant or DEFAULT_TENANT), []).append(dag_id)
    return found


def _key(key: str, tenant: str) -> str:
    return key if tenant == DEFAULT_TENANT else f"{key}/{tenant}"
