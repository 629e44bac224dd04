"""Stubs for Lua editors: one file for each module that the stages of a pipeline may use, with LuaCATS annotations.

They describe what the in-cluster runner gives (contract, section 5), which is what external runners give as well.
Whoever edits a pipeline puts them where a Lua language server looks for libraries.
"""

from __future__ import annotations

from importlib.resources import files

from orchestrator.errors import NotFound

#: in the order in which they are listed
NAMES = ("log", "input", "output", "process", "container")


def stub(name: str) -> tuple[str, str]:
    """Name and content of the file about the module `name`. Raises NotFound."""
    if name not in NAMES:
        raise NotFound("stub", name[:100])
    file = f"{name}.lua"
    return file, files(__package__).joinpath("stubs", file).read_text(encoding="utf-8")
