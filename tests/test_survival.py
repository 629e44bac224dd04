"""The table of what survives what, and its tests, are together: each row names tests that exist and are collected."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "survival.md").read_text(encoding="utf-8")


def table(first: str, second: str) -> list[list[str]]:
    """Cells of each row of the table whose header begins like that."""
    _, header, rest = TEXT.partition(f"| {first} | {second}")
    assert header, f"no table of {first} and {second}"
    _, _, body = rest.partition("|\n|---")
    lines = body.splitlines()[1:]
    rows = lines[: next(n for n, line in enumerate(lines) if not line.startswith("|"))]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


LOST = table("what is lost", "what survives")
PROOFS = {lost: re.findall(r"`(tests/[^`]+)`", proofs) for lost, proofs in table("what is lost", "tests")}


def test_every_row_has_its_proof_in_the_same_order() -> None:
    assert [row[0] for row in LOST] == list(PROOFS)
    assert all(PROOFS.values())
    assert {len(row) for row in LOST} == {4}
    assert all(all(cell for cell in row) for row in LOST)


@pytest.fixture(scope="module")
def collected() -> set[str]:
    """Every test of the files that the table names, as pytest knows them."""
    files = sorted({name.partition("::")[0] for names in PROOFS.values() for name in names})
    options = ["--collect-only", "-q", "-n0", "-p", "no:cacheprovider", "-p", "no:schemathesis", "-o", "addopts="]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *files], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return set(done.stdout.splitlines())


@pytest.mark.parametrize("lost", PROOFS)
def test_the_tests_of_a_row_are_there(lost: str, collected: set[str]) -> None:
    assert [name for name in PROOFS[lost] if name not in collected] == []
