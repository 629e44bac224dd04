"""Counting the words of many texts at once: one task finds them, one task a text counts, one task adds up.

    python examples/fan_out_fan_in.py

A list of task results is an argument like any other: `total` starts when every `count` is done.
"""

import subprocess
import sys
from pathlib import Path

from orchestrator import dag, task

PARTS = 12


@task
def texts() -> list[str]:
    return ["to be or not to be " * (n + 1) for n in range(PARTS)]


@task
def count(all_texts: list[str], number: int) -> int:
    return len(all_texts[number].split())


@task
def total(counts: list[int]) -> int:
    print(f"{sum(counts)} words in {len(counts)} texts")
    return sum(counts)


@dag(owner="examples")
def word_count():
    found = texts()
    total([count(found, number) for number in range(PARTS)])


if __name__ == "__main__":
    orchestrator = Path(sys.executable).with_name("orchestrator")
    subprocess.run([orchestrator, "dags", "deploy", __file__], check=True)
    subprocess.run([orchestrator, "run", "word_count", "--wait"], check=True)
