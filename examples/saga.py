"""A trip is booked step by step; when a step fails, what the steps before it did is undone, the last first.

    python examples/saga.py

The hotel has no room, so `pay` is refunded, and then the seat is given back. Nothing else has to be undone: a step that
failed did nothing, and one that never ran neither. With `--param rooms=1` the run succeeds and keeps everything.
"""

import subprocess
import sys
from pathlib import Path

from orchestrator import dag, task


@task
def reserve_seat() -> str:
    print("seat 12A reserved")
    return "12A"


@task
def give_back(seat: str) -> None:
    print(f"seat {seat} given back")


@task
def pay(seat: str, amount: int) -> dict:
    print(f"{amount} paid for seat {seat}")
    return {"payment": 4711, "amount": amount}


@task(retries=5, retry_delay_s=1)
def refund(payment: dict) -> None:
    print(f"payment {payment['payment']}: {payment['amount']} refunded")


@task
def book_hotel(rooms: int) -> None:
    if not rooms:
        raise RuntimeError("no room is left")


@dag(owner="examples")
def saga(amount: int = 120, rooms: int = 0):
    seat = reserve_seat()
    give_back(seat).compensates(seat)
    payment = pay(seat, amount)
    refund(payment).compensates(payment)
    book_hotel(rooms).after(payment)


if __name__ == "__main__":
    orchestrator = Path(sys.executable).with_name("orchestrator")
    subprocess.run([orchestrator, "dags", "deploy", __file__], check=True)
    subprocess.run([orchestrator, "run", "saga", "--wait"], check=False)  # it fails, and is clean again
    subprocess.run([orchestrator, "run", "saga", "--param", "rooms=1", "--wait"], check=True)
