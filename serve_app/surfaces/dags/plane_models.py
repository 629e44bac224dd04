"""What the endpoints about control planes give, as models for the OpenAPI: see `models.py`."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from serve_app.surfaces.dags.models import Instant


class DagsPlane(BaseModel):
    """A control plane, and who is in charge of the journal."""

    plane: str = Field(description="that answers: its Ray cluster's session; empty when there can be no other")
    in_charge: bool = Field(description="false: it stands by, and the holder does what it accepts")
    holder: str | None = Field(description="the plane in charge")
    holder_url: str | None = Field(description="where that one answers")
    since: Instant | None = Field(description="by the clock of the journal's server")
    term: int = Field(description="grows whenever somebody comes to be in charge, or is not any more")
    wanted: str | None = Field(description="the plane that asked to take over")
    lease_age_s: float | None = Field(
        description="since the plane in charge renewed its lease, every 3 s, or since nobody is in charge; above 10 "
        "nobody may be; null when it need not be renewed"
    )


_PLANE: dict[str, Any] = {
    "plane": "session_2026-01-02_03-04-05_678901_4242",
    "in_charge": False,
    "holder": "session_2025-12-03_03-04-05_678901_17",
    "holder_url": "http://10.0.0.7:8000",
    "since": "2025-12-03T03:04:07.000Z",
    "term": 5,
    "wanted": None,
    "lease_age_s": 1.204,
}

#: example of each answer
ANSWERS: dict[type[BaseModel], dict[str, Any]] = {DagsPlane: _PLANE}
