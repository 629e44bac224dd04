"""The commands on pools of workers."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

import typer

from orchestrator.client import pools as scripts
from orchestrator.client.shapes.cluster import DagsPoolView
from orchestrator.errors import Invalid
from serve_app.session import Session, command, group

pools = group("Pools of workers.")

Name = Annotated[str, typer.Argument(metavar="NAME")]

_COLUMNS = ("name", "min", "max", "wanted", "workers", "starting", "busy", "draining", "waiting", "shape")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@command(pools, "list")
def pools_list(session: Session) -> None:
    """List pools that are defined or have workers, and what is so now."""
    with session.api() as api:
        found = api.run(scripts.list_pools())
    session.show_rows(found, _COLUMNS, lambda each: [_shown(each)[column] for column in _COLUMNS])


@command(pools, "set")
def pools_set(
    session: Session,
    name: Name,
    most: Annotated[int, typer.Option("--max", min=0, help="Workers at most.")],
    least: Annotated[int, typer.Option("--min", min=0, help="Workers at least; as --max: always as many.")] = 0,
    num_cpus: Annotated[float, typer.Option(min=0, help="CPUs of each worker.")] = 0.0,
    num_gpus: Annotated[float, typer.Option(min=0, help="GPUs of each worker.")] = 0.0,
    memory: Annotated[str, typer.Option(metavar="SIZE", help="Memory of each worker: 512M, 4G.")] = "0",
    resource: Annotated[
        list[str] | None, typer.Option(metavar="NAME=AMOUNT", help="Custom resource of each worker; repeatable.")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Label that its node must have; repeatable.")
    ] = None,
    idle_timeout: Annotated[float, typer.Option(min=0, help="Seconds until surplus workers end.")] = 60.0,
    tasks_per_worker: Annotated[int, typer.Option(min=1, help="One more for so many tasks that wait.")] = 1,
    scale_up_wait: Annotated[float, typer.Option(min=0, help="Seconds that tasks wait before there are more.")] = 1.0,
    step: Annotated[int, typer.Option(min=1, help="So many more at a time.")] = 10,
) -> None:
    """Define a pool, or change it; what is not given is as the default says."""
    amounts = {key: _amount(key, text) for key, text in _pairs("--resource", resource).items()}
    for option, number in (
        ("--num-cpus", num_cpus),
        ("--num-gpus", num_gpus),
        ("--idle-timeout", idle_timeout),
        ("--scale-up-wait", scale_up_wait),
    ):
        _check_finite(f"{option} {number}", number)
    with session.api() as api:
        view = api.run(
            scripts.set_pool(
                name,
                max=most,
                min=least,
                num_cpus=num_cpus,
                num_gpus=num_gpus,
                memory_bytes=_bytes(memory),
                resources=amounts,
                labels=_pairs("--label", label),
                idle_timeout_s=idle_timeout,
                tasks_per_worker=tasks_per_worker,
                scale_up_wait_s=scale_up_wait,
                step=step,
            )
        )
    session.show(view if session.as_json else _shown(view), _COLUMNS)


@command(pools, "rm")
def pools_rm(session: Session, name: Name) -> None:
    """Forget a pool: its workers finish what they do and end."""
    with session.api() as api:
        answer = api.run(scripts.delete_pool(name))
    session.tell(answer, f"{name} deleted")


def _shown(view: DagsPoolView) -> dict[str, Any]:
    parts = [f"{view['num_cpus']:g} CPU"] if view["num_cpus"] else []
    parts += [f"{view['num_gpus']:g} GPU"] if view["num_gpus"] else []
    parts += [f"{view['memory_bytes'] / 2**20:.0f} MiB"] if view["memory_bytes"] else []
    parts += [f"{amount:g} {name}" for name, amount in view["resources"].items()]
    parts += [f"{name}={value}" for name, value in view["labels"].items()]
    return {**view, "shape": ", ".join(parts) or "–"}


def _pairs(option: str, given: list[str] | None) -> dict[str, str]:
    found: dict[str, str] = {}
    for each in given or ():
        key, equals, text = each.partition("=")
        if not key or not equals:
            raise Invalid(f"{option} {each!r}: NAME=VALUE expected")
        found[key] = text
    return found


def _amount(name: str, text: str) -> float:
    try:
        amount = float(text)
    except ValueError:
        amount = math.nan
    _check_finite(f"--resource {name}={text!r}", amount)
    return amount


def _check_finite(option: str, number: float) -> None:
    """JSON has no other numbers."""
    if not math.isfinite(number):
        raise Invalid(f"{option}: a number expected")


def _bytes(text: str) -> int:
    found = re.fullmatch(r"(\d+)([KMGT]?)i?B?", text.strip())
    if found is None:
        raise Invalid(f"--memory {text!r}: a size expected, like 512M or 4G")
    return int(found[1]) * _UNITS[found[2]]
