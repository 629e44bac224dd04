"""YAML read as the JSON it stands for: what is not plainly a number, true, false or null is text.

YAML 1.1 makes other values of `yes`, `on`, `12:30`, `0777` and `2026-01-02`; here they are the text they look like, as
in YAML 1.2. A key that comes twice in one object is refused, since the first would be lost in silence.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from orchestrator.errors import Invalid

_TAG = "tag:yaml.org,2002:"
#: tag -> (what such a scalar looks like, the characters it begins with)
_SCALARS = {
    "null": (r"null|~|", "n~"),
    "bool": (r"true|false", "tf"),
    "int": (r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    "float": (r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+", "-+.0123456789"),
    "merge": (r"<<", "<"),
}


def read_yaml(text: str) -> Any:
    """The one document in `text`. Raises Invalid."""
    import yaml

    try:
        return yaml.load(text, _loader())
    except Exception as error:  # PyYAML lets through whatever its constructors run into
        raise Invalid(f"malformed YAML: {error}") from None


@lru_cache(maxsize=1)
def _loader() -> Any:
    """Not CSafeLoader: deep nesting crashes the process."""
    import yaml

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers = {}  # PyYAML's own way to be told

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen = set()
            for key, _ in node.value:
                if key.tag == f"{_TAG}merge":
                    continue
                if key.value in seen:
                    raise yaml.MarkedYAMLError(None, None, f"the key {key.value!r} comes twice", key.start_mark)
                if isinstance(key.value, str):
                    seen.add(key.value)
            return super().construct_mapping(node, deep)

    for name, (form, first) in _SCALARS.items():
        letters: list[Any] = [*first, ""] if name == "null" else list(first)
        Loader.add_implicit_resolver(f"{_TAG}{name}", re.compile(f"(?:{form})$"), letters)
    return Loader
