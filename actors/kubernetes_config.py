"""Which Kubernetes cluster, if any, runs with `mode=k8s` go to.

    ORCHESTRATOR_K8S_API_URL      a plain address, such as that of `kubectl proxy`
    KUBECONFIG, ~/.kube/config    as `kubectl` reads them
    in a pod                      its service account

The first one that is there counts, and nothing does without the official client (extra `k8s`). Looking costs a few
`stat` calls: no network, and the client is not imported.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from actors.settings import Settings

#: where `kubectl` looks when it is not told
KUBECONFIG = Path("~/.kube/config")
#: what the cluster gives to every pod with a service account
SERVICE_ACCOUNT_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")

Source = Literal["url", "kubeconfig", "service account"]


def configured(settings: Settings) -> bool:
    """Is there a cluster to send Jobs to, and the client to do it with?"""
    return source(settings, os.environ) is not None and find_spec("kubernetes") is not None


def source(settings: Settings, environ: Mapping[str, str]) -> Source | None:
    """What says where the cluster is; None when nothing does."""
    if settings.k8s_api_url:
        return "url"
    if any(path.is_file() for path in kubeconfigs(settings)):
        return "kubeconfig"
    if environ.get("KUBERNETES_SERVICE_HOST") and SERVICE_ACCOUNT_TOKEN.is_file():
        return "service account"
    return None


def kubeconfigs(settings: Settings) -> list[Path]:
    """The files to read, whether or not they are there."""
    named = [Path(part) for part in settings.kubeconfig.split(os.pathsep) if part]
    return [path.expanduser() for path in named or [KUBECONFIG]]
