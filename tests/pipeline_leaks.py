"""Secrets given to a pipeline, and everything that can be done with a job: each step tries to leak them."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from urllib.parse import quote

from orchestrator.idempotency import Idempotency
from orchestrator.pipeline_views import CompletionWanted, JobResult, PipelineConfig, PipelineWanted
from tests.pipelines_stage import TENANT, Stage, entry, script

SECRETS = ("s3cret-Tok3n/+&=\"'\\x", "-----BEGIN-----\nMIIEowIBAAKCAQEAx\nu8Q1k7\n-----END-----", "PIN-8472910")
TOKEN, PRIVATE, PIN = SECRETS


def spellings(secret: str) -> list[bytes]:
    """What must not be there: a secret's lines, in the ways in which this test leaks them."""
    lines = [line for line in secret.splitlines() if not line.startswith("-----")]
    return [
        spelling.encode()
        for line in lines
        for spelling in (line, json.dumps(line)[1:-1], quote(line, safe=""), line.encode().hex())
    ] + [base64.b64encode(secret.encode()).rstrip(b"=")]


async def leak(stage: Stage) -> str:
    """Everything that can be done with a job, each with all the secrets in it."""
    said = [*SECRETS, json.dumps(SECRETS), quote(TOKEN, safe=""), TOKEN.encode().hex()]
    said += [base64.b64encode(secret.encode()).decode() for secret in SECRETS]
    config = PipelineConfig(None, 2, {"PLAIN": "x"}, {"PRIVATE": PRIVATE})
    text = script(inputs={"token": {"secret": True, "required": True}, "pin": {"secret": True}, "url": {}})
    key = Idempotency("default:create:k", hashlib.sha256(b"the body, secrets included").hexdigest())
    pipeline = await stage.port.create(TENANT, PipelineWanted(text, config=config), key)
    given = {"token": TOKEN, "pin": PIN, "url": f"https://{quote(TOKEN, safe='')}@host/{PIN}", f"x{PIN}": [PIN]}
    body = hashlib.sha256(json.dumps(given).encode()).hexdigest()
    job = await stage.port.launch(TENANT, pipeline.id, given, Idempotency(f"default:launch:{PIN}", body))
    claimed = await stage.port.claim(TENANT, job.id, "r1", Idempotency("default:claim:k", body))
    assert (claimed.parameters, claimed.env_vars) == (given, {"PLAIN": "x", "PRIVATE": PRIVATE})
    failed = CompletionWanted(JobResult(False, 1, {each: said for each in said}, " ".join(said)))
    await stage.port.add_logs(TENANT, job.id, [entry(each) for each in said])
    await stage.port.complete(TENANT, job.id, failed)
    await stage.port.complete(TENANT, job.id, failed)
    await stage.port.claim(TENANT, job.id, "r2", None)
    await stage.port.add_logs(TENANT, job.id, [entry("\n".join(said))])
    await stage.port.delete_runner(TENANT, "r2")
    await asyncio.sleep(0.1)
    stage.restart()
    await stage.port.add_logs(TENANT, job.id, [entry(f"late: {each}") for each in said])
    await stage.port.claim(TENANT, job.id, "r3", None)
    await stage.port.complete(TENANT, job.id, failed)
    stage.restart()
    await stage.port.add_logs(TENANT, job.id, [entry(f"later: {each}") for each in said])
    return job.id
