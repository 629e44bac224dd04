"""actors.handles: handles are kept, but not without bound."""

from __future__ import annotations

from actors.handles import Handles


def test_those_kept_longest_go() -> None:
    handles = Handles(2)
    for name in ("a", "b", "a", "c"):
        assert handles.keep(name, name.upper()) == name.upper()
    assert [handles.get(name) for name in "abc"] == [None, "B", "C"]


def test_a_name_that_was_dropped_is_looked_up_again() -> None:
    handles = Handles()
    handles.keep("a", "A")
    handles.drop("a")
    handles.drop("never kept")
    assert handles.get("a") is None
