"""The Ray shells: what the pure core decides, made durable and carried out.

Each shell recovers, decides, persists, applies, performs, in that order. `spawn.py` alone applies
`ray.remote`; `journal.py` alone speaks to the journal; `clock.py` alone asks the time.
"""
