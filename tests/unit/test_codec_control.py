"""What scheduler and RunActors say to each other survives the wire; what is not ours is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator import actor_codec
from orchestrator.control import Admission, Hosting, Roster, Standing
from orchestrator.errors import Broken

HOSTING = Hosting(
    3,
    (Admission("run_1", number=(7 << 32) + 1, since=9), Admission("run_2", True)),
    (("w0", "i1", 7),),
    (("w1", 4),),
    ((("t", "manual"), 0.5),),
    (("t", 2.0),),
    (7,),
    (("w0", "node-1"),),
    (("w0", "i1"),),
)
STANDING = Standing(
    "run-actor-0",
    2,
    ((("t", "manual", "d"), 5), (("t", "backfill", "d"), 300)),
    released=(("w0", 7),),
    lost=(("w1", "i1"),),
    refused=(("run_1", (7 << 32) + 1),),
    hosted=12,
    held=(("w2", 9),),
    served=((("t", "manual", "d"), 0.25),),
)
ROSTER = Roster(("run-actor-0",), (("w0", "default"), ("w1", "gpu")), draining=("w1",))


def test_a_hosting_survives_the_wire() -> None:
    assert actor_codec.decode_hosting(actor_codec.encode_control(HOSTING)) == HOSTING


def test_a_standing_survives_the_wire() -> None:
    assert actor_codec.decode_standing(actor_codec.encode_control(STANDING)) == STANDING


def test_a_roster_survives_the_wire() -> None:
    assert actor_codec.decode_roster(actor_codec.encode_control(ROSTER)) == ROSTER


def test_nothing_held_is_not_the_same_as_not_told() -> None:
    told, not_told = (actor_codec.encode_control(Standing("A", 1, held=held)) for held in ((), None))
    assert actor_codec.decode_standing(told).held == ()
    assert actor_codec.decode_standing(not_told).held is None


def test_defaults_may_be_left_out_on_the_wire() -> None:
    assert actor_codec.decode_hosting(b"[3]") == Hosting(3)
    assert actor_codec.decode_standing(b'["A",1]') == Standing("A", 1)


def test_states_of_slots_survive_the_wire() -> None:
    states = {"w0": "idle", "w1": "draining_busy"}
    assert actor_codec.decode_states(actor_codec.encode_states(states)) == states


@pytest.mark.parametrize("decode", [actor_codec.decode_hosting, actor_codec.decode_standing, actor_codec.decode_roster])
@pytest.mark.parametrize("blob", [b"", b"{}", b"[", b'["x","y","z"]', b"\xff"])
def test_foreign_bytes_are_broken(decode: Callable[[bytes], object], blob: bytes) -> None:
    with pytest.raises(Broken):
        decode(blob)
