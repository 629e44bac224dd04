"""TypeScript for the whole API, from its own description: `orchestrator generate-types --out DIR`.

    the application ──▶ openapi.json ─┬─▶ api-types.ts     npm's openapi-typescript (`types`)
                                      └─▶ api-client.ts    the runtime and a method for each operation (`client`)

The client's methods are generated from the operations rather than written by hand, so that a new surface has them
without being told here, and none can drift from what the server takes; only names that a seed prescribes
(`operations.NAMES`) and what OpenAPI cannot describe (`client`) are written down. Its fixed part is TypeScript and not
text in Python, so that an editor sees it.

Seed: "Orchestrator API Server" (instances), "Generated Files" and "Using in Next.js". On purpose, beyond it: both .ts
files belong into one folder, whatever its name; sockets and streams outlive their connections.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serve_app.typegen.client import client_text
from serve_app.typegen.types import write_types

__all__ = ["generate"]


def generate(description: Mapping[str, Any], out: Path) -> list[Path]:
    """The three files are in `out`, which is made. Raises Invalid; then all but `api-types.ts` are there."""
    out.mkdir(parents=True, exist_ok=True)
    openapi, types, client = (out / name for name in ("openapi.json", "api-types.ts", "api-client.ts"))
    openapi.write_text(json.dumps(description, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    client.write_text(client_text(description), encoding="utf-8")
    write_types(description, types)
    return [openapi, types, client]
