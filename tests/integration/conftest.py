"""The shared live server."""

from tests.live import api, live

__all__ = ["api", "live"]
