"""`api-client.ts`: the runtime, the components by their names, and one typed method for each operation.

    runtime/*.ts       requests, streams, sockets: written by hand, as modules, put together into one
    + aliases          export type OrchestratorInfo = components["schemas"]["OrchestratorInfo"]
    + methods          generated, one each, from a table of operations

A method takes the path's parameters in their order, then the body, then `{query, headers, signal}`. What OpenAPI
cannot say (WebSockets, when a stream is over) has lines of its own in `_BY_HAND`, beside the operation it belongs to,
so it is there when its surface is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files
from types import MappingProxyType

from serve_app.typegen.operations import Content, Json, Operation, camel, operations_of

_HEADER = """/* Written by `orchestrator generate-types` from the server's OpenAPI description. Do not edit. */
/* eslint-disable */
"""

#: operation -> its methods, in place of a generated one
_BY_HAND = MappingProxyType(
    {
        "GET /runs/{}/events": (
            "/** What happens to a run, from its beginning or after an event on, until it has ended. */",
            "followRun: (runId: string, options?: FollowOptions) => followRun(http, runId, options),",
        ),
        "GET /api/orchestrators/{}/events-sse": (
            "/** What happens to an orchestrator, until it has stopped. */",
            "followOrchestrator: (instanceId: string, options?: FollowOptions) =>",
            "  followOrchestrator(http, instanceId, options),",
            "/** The same as a socket that outlives its connections; `event.data` is an OrchestratorEvent as JSON. */",
            'connectEvents: (instanceId: string): LiveSocket => connectSocket(http, instanceId, "events"),',
            "/** Its tool calls only, as a socket. */",
            'connectActivity: (instanceId: string): LiveSocket => connectSocket(http, instanceId, "activity"),',
            "/** The same as an EventSource: `addEventListener('task_changed', …)`. */",
            "connectEventsSse: (instanceId: string): EventSourceLike => connectEventsSse(http, instanceId),",
        ),
    }
)

#: in the order in which they need each other
_RUNTIME = ("requests", "streams", "sockets")
_OWN_IMPORT = re.compile(r'^import \{[^}]*\} from "\./\w+\.js";\n\n?', re.M)
_IDENTIFIER = re.compile(r"[A-Za-z_$][\w$]*", re.ASCII)
#: words that cannot name a parameter
_RESERVED = frozenset(
    """break case catch class const default delete do else enum export extends for function if import in new null return
    super switch this throw try typeof var void while with yield http body options""".split()  # noqa: SIM905 # words
)
#: types that the runtime takes from the language
_LANGUAGE = frozenset(
    """AbortController AbortSignal Array AsyncGenerator Blob Error Event EventTarget Generator JSON Map MessageEvent
    Number Object Promise Record Required Response ReturnType Set String SyntaxError TypeError""".split()  # noqa: SIM905
)


def client_text(description: Json) -> str:
    """The whole file."""
    runtime = runtime_text()
    aliases = _aliases(description.get("components", {}).get("schemas", {}), runtime)
    lines = [f'export type {alias} = components["schemas"]["{name}"];' for name, alias in aliases.items()]
    return "\n".join((_HEADER + runtime, _section("components"), *lines, "", *_factory(description, aliases)))


def runtime_text() -> str:
    """The part that is the same for every server: modules in one, so without imports of each other."""
    folder = files(__package__).joinpath("runtime")
    text = "\n".join(folder.joinpath(f"{name}.ts").read_text(encoding="utf-8") for name in _RUNTIME)
    return _OWN_IMPORT.sub("", text).replace("export /* internal */ ", "")


def _aliases(schemas: Iterable[str], runtime: str) -> dict[str, str]:
    """Component -> name of its type; one that means something else in this file already gets a longer name."""
    taken = {*_LANGUAGE, *re.findall(r"^(?:export )?(?:class|interface|type) (\w+)", runtime, re.M)}
    return {
        name: f"{name}Schema" if name in taken else name
        for name in schemas
        if _IDENTIFIER.fullmatch(name) and name not in _RESERVED
    }


def _factory(description: Json, aliases: Mapping[str, str]) -> Iterator[str]:
    yield _section("the client")
    yield "export type ApiClient = ReturnType<typeof createApiClient>;"
    yield ""
    yield "/** A client of the server at `baseUrl`. Methods reject with an ApiError when the server refuses. */"
    yield "export function createApiClient(baseUrl: string, options: ClientOptions = {}) {"
    yield "  const http = new Http(baseUrl, options);"
    yield "  return {"
    for operation in operations_of(description):
        yield from (f"    {line}" for line in _BY_HAND.get(operation.key) or _method(operation, aliases))
    yield "  };"
    yield "}"
    yield ""


def _method(operation: Operation, aliases: Mapping[str, str]) -> Iterator[str]:
    names = [_parameter(name) for name in operation.names]
    parameters = [f"{name}: string" for name in names]
    query = f'<QueryOf<"{operation.path}", "{operation.method}">>' if operation.has_query else ""
    options = f"{'FollowOptions' if operation.streams else 'CallOptions'}{query}"
    if operation.body is not None and not operation.streams:
        parameters.append(f"body{'' if operation.body_required else '?'}: {_type(operation.body, aliases)}")
    if operation.query_required:
        parameters.append(f"options: {options} & {{ query: {query[1:-1]} }}")
    else:
        parameters.append(f"options?: {options}")
    path = _path(operation.path, dict(zip(operation.names, names, strict=True)))
    about = f"{operation.summary}. ".replace("*/", "* /") if operation.summary else ""
    yield f"/** {about}`{operation.method.upper()} {operation.path}` */"
    yield f"{operation.name}: ({', '.join(parameters)}){_result(operation, aliases)} =>"
    yield f"  {_call(operation, path)},"


def _result(operation: Operation, aliases: Mapping[str, str]) -> str:
    if operation.streams:
        return ": AsyncGenerator<ServerEvent>"
    types = dict.fromkeys(_type(each, aliases) for each in operation.answers)
    return f": Promise<{' | '.join(types) or 'void'}>"


def _call(operation: Operation, path: str) -> str:
    if operation.streams:
        return f"follow(http, {path}, options ?? {{}})"
    if operation.body is None:
        return f'http.call("{operation.method.upper()}", {path}, options)'
    media = "" if operation.body.is_json else f', media: "{operation.body.media}"'
    return f'http.call("{operation.method.upper()}", {path}, {{ ...options, body{media} }})'


def _type(content: Content, aliases: Mapping[str, str]) -> str:
    """The TypeScript type of a body."""
    if content.is_json:
        return _named(content.schema, aliases) or content.place
    return "string" if content.media.startswith("text/") else "Blob"


def _named(schema: Json, aliases: Mapping[str, str]) -> str | None:
    """A component's name, an array or a choice of such; None for what only the generated types can say."""
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        names = [_named(each, aliases) for each in choices]
        return None if None in names else " | ".join(map(str, names))
    if schema.get("type") == "array":
        inner = _named(schema.get("items", {}), aliases)
        return None if inner is None else f"{inner}[]" if inner.isidentifier() else f"({inner})[]"
    return aliases.get(str(schema.get("$ref", "")).rpartition("/")[2])


def _path(path: str, parameters: Mapping[str, str]) -> str:
    """A template literal."""
    filled = re.sub(r"{([^}]*)}", lambda found: f"${{segment({parameters[found[1]]})}}", path)
    return f"`{filled}`" if parameters else f'"{path}"'


def _parameter(name: str) -> str:
    word = camel(name)
    return f"{word}_" if word in _RESERVED else word


def _section(title: str) -> str:
    return f"// {'-' * 64} {title}\n"
