"""Control planes as metrics: is the one that answers in charge, and is anybody?

Every replica of every plane tells the age of the one lease there is, so whoever scrapes any of them learns that nobody
is in charge. A journal that only one plane can have has a lease that need not be renewed: its age is not told.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric

from orchestrator.planes import PlaneView


def families(view: PlaneView | None) -> Iterator[Metric]:
    """None = the journal did not tell."""
    if view is None:
        return
    yield GaugeMetricFamily(
        "orchestrator_plane_in_charge",
        "1 = the control plane that answers is in charge, 0 = it stands by",
        value=float(view.in_charge),
    )
    if view.age_s is not None:
        yield GaugeMetricFamily(
            "orchestrator_plane_lease_age_seconds",
            "Since whoever is in charge renewed its lease; while nobody is, since then",
            value=view.age_s,
        )
