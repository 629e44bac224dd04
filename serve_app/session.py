"""One invocation of the command line against one server: which server, as whom, answering in which form.

Precedence: `--url` and `--token`, then ORCHESTRATOR_URL and ORCHESTRATOR_TOKEN, then credentials.json of the
data directory. `command` gives every command these options, so that none of them has to list them.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from actors.settings import read_settings
from orchestrator.errors import Invalid
from serve_app import screen
from serve_app.api_client import Api, Json
from serve_app.home import read_credentials

T = TypeVar("T")

#: exit status
INTERRUPTED = 130

_UrlOption = Annotated[str | None, typer.Option("--url", help="Server, default: the one of the data directory.")]
_TokenOption = Annotated[str | None, typer.Option("--token", help="Token, default: admin of the data directory.")]
_HomeOption = Annotated[
    Path | None, typer.Option("--data-dir", help="Data directory, default $ORCHESTRATOR_HOME or ~/.orchestrator.")
]
_JsonOption = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]


@dataclass(frozen=True, slots=True)
class Target:
    """A server and the token to use there."""

    url: str
    token: str | None
    #: the server reads the same data directory as we do
    local: bool


@dataclass(frozen=True, slots=True)
class Session:
    """What the common options say."""

    target_url: str | None
    target_token: str | None
    home: Path
    as_json: bool

    def target(self) -> Target:
        """The server meant. Raises Invalid when nothing says which."""
        return find_target(self.target_url, self.target_token, self.home, os.environ)

    def api(self) -> Api:
        """A client of the server meant."""
        target = self.target()
        return Api(target.url, target.token)

    def send(self, path: str, line: Callable[[Json], str], body: Json | None = None) -> None:
        """Sends a command and prints its answer, by `line` for people."""
        with self.api() as api:
            answer = api.post(path, body)
        self.tell(answer, line(answer))

    def tell(self, answer: Mapping[str, Any], line: str) -> None:
        """Prints an answer: all of it for programs, the line for people."""
        if self.as_json:
            screen.print_json(answer)
        else:
            screen.print_line(line)

    def show(self, answer: Mapping[str, Any], names: Sequence[str]) -> None:
        """Prints an answer: all of it for programs, what stands under `names` for people."""
        if self.as_json:
            screen.print_json(answer)
        else:
            screen.print_facts({name: answer[name] for name in names})

    def show_list(self, found: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
        """Prints what was found: all of it for programs, a table with `columns` for people."""
        self.show_rows(found, columns, lambda each: [each[column] for column in columns])

    def show_rows(self, found: Sequence[T], titles: Sequence[str], row: Callable[[T], Sequence[Any]]) -> None:
        """The same with a row of the table for each."""
        if self.as_json:
            screen.print_json({"items": found})
        else:
            screen.print_table(titles, map(row, found))

    @contextmanager
    def watching(self, name: str, how: str = "") -> Iterator[None]:
        """Ctrl-C within the block ends this command, but not what it watches; `how` tells where that is seen."""
        try:
            yield
        except KeyboardInterrupt:
            screen.say(f"{name} goes on{how}")
            raise typer.Exit(INTERRUPTED) from None


def find_target(url: str | None, token: str | None, home: Path, environ: Mapping[str, str]) -> Target:
    """The server meant by options, environment and data directory, in this order. Raises Invalid."""
    url = url or environ.get("ORCHESTRATOR_URL") or None
    if url is not None and not url.startswith(("http://", "https://")):
        raise Invalid(f"{url}: http://HOST:PORT expected")
    token = token or environ.get("ORCHESTRATOR_TOKEN") or None
    known = read_credentials(home)
    local = known is not None and (url is None or url.rstrip("/") == known["url"])
    if known is not None and local:
        return Target(known["url"], token or known["tokens"].get("admin"), local=True)
    if url is None:
        raise Invalid(
            f"no server known: {home} holds no credentials.json; start one with `orchestrator up` or give --url"
        )
    return Target(url.rstrip("/"), token, local=False)


def group(about: str) -> typer.Typer:
    """A group of commands. Errors are ours to show: no tracebacks by typer."""
    return typer.Typer(help=about, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)


def command(app: typer.Typer, name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Registers a function whose first parameter is a Session as a command with the common options."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        options = [
            _option("url", _UrlOption, None),
            _option("token", _TokenOption, None),
            _option("data_dir", _HomeOption, None),
            _option("as_json", _JsonOption, False),
        ]

        def run(**given: Any) -> None:
            home = read_settings(os.environ, home=_text(given.pop("data_dir"))).home
            session = Session(given.pop("url"), given.pop("token"), Path(home), given.pop("as_json"))
            with screen.readers():
                function(session, **given)

        run.__doc__ = function.__doc__
        keyword_only = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in (*own, *options)]
        run.__signature__ = inspect.Signature(keyword_only)  # type: ignore[attr-defined]  # what `inspect` looks at first
        run.__annotations__ = {each.name: each.annotation for each in keyword_only}
        app.command(name)(run)
        return function

    return register


def _option(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
