"""From the operator's files to DAGs on a server.

A folder becomes a bundle, which the server compiles and which its runs pin. A file is loaded here: a server on this
machine reads code and compiled definitions from its data directory, so what it deploys may use every task type. A
server elsewhere gets the definition over HTTP, with the rules for whoever sends one.

    flows/ ──pack──▶ bundle ─▶ <home>/bundles/offered/ (local), PUT /bundles/<id> (remote); POST /bundles/<id>/deploy

    weather.py ──load──▶ Definitions ─▶ <home>/deployed/<dag_id>.json, POST /dags/<dag_id>/deploy    (local)
        └── sources ──────────────────▶ <home>/dags/                   POST /dags                    (remote)
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from actors import whole_files
from actors.bundle_store import BundleStore
from orchestrator import bundle
from orchestrator.bundle_folder import read_folder
from orchestrator.client import dags
from orchestrator.client.shapes.cluster import DagsBundleDeployed
from orchestrator.definition import Definition
from orchestrator.load import load
from orchestrator.spec import to_json
from serve_app.api_client import Api, ApiRefused, Json

#: folders that never hold the operator's own DAG code
_FOREIGN = frozenset({"site-packages", "dist-packages", "__pycache__", "node_modules"})


def deploy_bundle(api: Api, home: Path | None, folder: Path) -> list[Json]:
    """The DAGs in `folder` are the server's current ones, with the code there. Raises Invalid, ApiRefused.

    `home` is the data directory of a server on this machine, which takes from there what it is offered; None = it gets
    the bundle over HTTP, as it does from whoever is not of the first tenant.
    """
    packed = bundle.pack(read_folder(folder))
    name = bundle.id_of(packed)
    found = None if home is None else _deploy_offered(api, BundleStore(home), name, packed)
    if found is None:
        api.run(dags.put_bundle(packed))
        found = api.run(dags.deploy_bundle(name))
    return [{**each, "bundle": name} for each in found["items"]]


def _deploy_offered(api: Api, store: BundleStore, name: str, packed: bytes) -> DagsBundleDeployed | None:
    """None: the server takes no offers from whom we speak for. Raises ApiRefused."""
    store.offer(name, packed)
    try:
        return api.run(dags.deploy_bundle(name))
    except ApiRefused as refused:
        if refused.status != 404:
            raise
        return None
    finally:
        store.withdraw(name)


def deploy_local(api: Api, home: Path, path: Path) -> list[Json]:
    """The DAGs in `path` are the server's current ones; their code lies where its workers import it. Raises Invalid."""
    before = set(sys.modules)
    definitions = load(path)
    copy_sources(path.resolve(), before, home / "dags")
    return [_deploy(api, home, definition) for definition in definitions]


def deploy_remote(api: Api, path: Path) -> list[Json]:
    """The DAGs in `path` are the server's current ones; their code must be importable over there. Raises Invalid."""
    return [api.post("/dags", to_json(definition)) for definition in load(path)]


def copy_sources(path: Path, before: set[str], target: Path) -> list[Path]:
    """The .py files of the folder `path`, or of the file `path` and what it imported from its own folder.

    They keep their place relative to the folder. `before` holds the modules that were imported before.
    """
    folder = path if path.is_dir() else path.parent
    sources = sorted(_files_of(path) if path.is_dir() else {path, *_imported_from(folder, before)})
    copied = []
    for source in sources:
        if source.suffix != ".py" or source.is_relative_to(target.resolve()):
            continue
        goal = target / source.relative_to(folder)
        goal.parent.mkdir(parents=True, exist_ok=True)
        whole_files.put(goal, source.read_bytes())
        copied.append(goal)
    return copied


def _deploy(api: Api, home: Path, definition: Definition) -> Json:
    whole_files.put(home / "deployed" / f"{definition.dag_id}.json", msgspec.json.encode(definition))
    return api.post(f"/dags/{definition.dag_id}/deploy")


def _files_of(folder: Path) -> Iterator[Path]:
    return (file for file in folder.rglob("*.py") if not _is_foreign(file, folder))


def _imported_from(folder: Path, before: set[str]) -> Iterator[Path]:
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file and (source := Path(file).resolve()).is_relative_to(folder) and not _is_foreign(source, folder):
            yield source


def _is_foreign(source: Path, folder: Path) -> bool:
    parts = source.relative_to(folder).parts
    return bool(_FOREIGN.intersection(parts)) or any(part.startswith(".") for part in parts)
