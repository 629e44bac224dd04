"""Kinds and keys of the small documents that stand in the journal beside the runs (`ports.Journal.put_records`).

What each holds is said where it is made; other kinds are named by the modules of their documents.
"""

from __future__ import annotations

#: kind of the records of what DAGs have gathered (`awaited.Gathered`), by `gathered_key`
GATHERED = "gathered"

#: kind of the records that hold tenants' weights (`codec.encode_share`), by tenant
TENANT_SHARES = "tenant_shares"


def approvals_of(tenant: str) -> str:
    """Kind of the records of a tenant's open approvals (`views.ApprovalView`): hints, see actors/approval_board.py."""
    return f"approvals/{tenant}"


def approval_key(run_id: str, task: str, attempt: int) -> str:
    """Key of such a record."""
    return f"{run_id}/{task}/{attempt}"


def assets_of(tenant: str) -> str:
    """Kind of the records of a tenant's assets (`awaited.AssetLog`), by asset."""
    return f"assets/{tenant}"


def gathered_key(tenant: str, dag_id: str) -> str:
    """Key of the record of what a DAG has gathered."""
    return f"{tenant}|{dag_id}"
