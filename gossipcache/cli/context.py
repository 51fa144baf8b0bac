"""What every command shares: the home, the output format, and how results are printed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from gossipcache.client import ControlClient
from gossipcache.errors import UsageError
from gossipcache.home import Home
from gossipcache.units import parse_duration, parse_rate, parse_size

F = TypeVar("F", bound=Callable[..., Any])
FORMATS = ("auto", "human", "json")


@dataclass(slots=True)
class Shared:
    """The options that every command takes, before or after its name."""

    home_path: str | None = None
    format: str | None = None
    quiet: bool = False
    no_progress: bool = False

    @property
    def home(self) -> Home:
        """The home folder: `--home`, `GOSSIPCACHE_HOME`, or the platform's user data folder."""
        path = self.home_path or os.environ.get("GOSSIPCACHE_HOME")
        if not path:
            import platformdirs

            path = platformdirs.user_data_dir("gossipcache", appauthor=False)
        return Home(Path(path))

    @property
    def wants_json(self) -> bool:
        """`auto` is human text on a terminal and JSON elsewhere."""
        if self.asked_format == "auto":
            return not sys.stdout.isatty()
        return self.asked_format == "json"

    @property
    def asked_format(self) -> str:
        """`--format`, or `GOSSIPCACHE_FORMAT`, or `auto`."""
        asked = self.format or os.environ.get("GOSSIPCACHE_FORMAT", "auto")
        if asked not in FORMATS:
            raise UsageError(f"GOSSIPCACHE_FORMAT is {asked!r}", f"use {', '.join(FORMATS)}")
        return asked

    @property
    def shows_progress(self) -> bool:
        """Whether a progress bar is drawn: on a terminal only."""
        return sys.stderr.isatty() and not self.quiet and not self.no_progress

    def client(self, *, may_start: bool = False) -> ControlClient:
        """The node of this home. `may_start`: a lone node is started if the home names no
        cluster. Raises `NodeUnreachable`."""
        home = self.home
        client = ControlClient(home)
        if client.is_listening():
            return client
        from gossipcache.launch import find_node, may_start_lone  # not needed as a rule

        return find_node(
            client,
            may_start=lambda: may_start and may_start_lone(home),
            announce=self.say,
        )

    def say(self, message: str) -> None:
        """A message for the user on stderr, unless `--quiet`."""
        if not self.quiet:
            tell(printable(message))

    def show(self, value: dict[str, Any], human: Callable[[], Iterable[str]]) -> None:
        """Prints a result on stdout: `value` as JSON, or the lines of `human`."""
        if self.wants_json:
            click.echo(json.dumps(value))
        else:
            for line in human():
                click.echo(printable(line))


def tell(line: str) -> None:
    """A line on stderr; the command's outcome does not hang on whether it can be written."""
    with suppress(OSError):
        click.echo(line, err=True)


def printable(text: str) -> str:
    """`text` without control characters: a cid of a stranger cannot steer the terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def table(header: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> list[str]:
    """Aligned columns under a header."""
    lines = [header, *(tuple(map(str, row)) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


class SizeType(click.ParamType[int]):
    """`64KiB`, `1.5GB`."""

    name = "size"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        """Bytes."""
        return value if isinstance(value, int) else _read(parse_size, value, self, param, ctx)


class DurationType(click.ParamType[float]):
    """`30s`, `10m`, `2h`, `7d`."""

    name = "duration"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """Seconds."""
        return value if isinstance(value, float) else _read(parse_duration, value, self, param, ctx)


class RateType(click.ParamType[int]):
    """`100MiB/s`; `none` is 0."""

    name = "rate"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        """Bytes a second."""
        return value if isinstance(value, int) else _read(parse_rate, value, self, param, ctx)


def _read(
    parse: Callable[[str], Any], value: Any, kind: click.ParamType[Any], param: Any, ctx: Any
) -> Any:
    try:
        return parse(str(value))
    except UsageError as error:
        kind.fail(f"{error.message} ({error.hint})", param, ctx)


SIZE = SizeType()
DURATION = DurationType()
RATE = RateType()


def shared_options(command: F) -> F:
    """Adds the options of `Shared`; they may stand before or after the command's name."""
    for decorate in reversed((
        click.option("--home", type=click.Path(), metavar="DIR", **_kept("home_path"),
                     help="Folder of the node: configuration, key, store, control socket."),
        click.option("--format", type=click.Choice(FORMATS), **_kept("format"),
                     help="auto: text on a terminal, JSON elsewhere."),
        click.option("-q", "--quiet", is_flag=True, default=None, **_kept("quiet"),
                     help="No messages and no progress on stderr."),
        click.option("--no-progress", is_flag=True, default=None, **_kept("no_progress"),
                     help="No progress bar."),
    )):  # fmt: skip
        command = decorate(command)
    return command


def _kept(name: str) -> dict[str, Any]:
    def keep(ctx: click.Context, _param: click.Parameter, value: Any) -> None:
        shared = ctx.ensure_object(Shared)
        if value is not None:
            setattr(shared, name, value)

    return {"expose_value": False, "callback": keep}


def task_name(task: dict[str, Any]) -> str:
    """How a task of a result stands in text: its cid, or else its id, and its tag if it has one."""
    return f"{task['cid'] or task['task_id']}" + (f" tag {task['tag']}" if task["tag"] else "")


def task_options(command: F) -> F:
    """Adds `-t/--tag`, `--digest` and `--publisher`, which with the cid name a task."""
    for decorate in reversed((
        click.option("-t", "--tag", default="", help="Tells tasks of one cid apart."),
        click.option("--digest", metavar="ALGORITHM:HEX", help="Accept this content only."),
        click.option("--publisher", metavar="NODE", help="Accept what this node published only."),
    )):  # fmt: skip
        command = decorate(command)
    return command


def cid_option(command: F) -> F:
    """Adds `-i/--cid`."""
    option = click.option("-i", "--cid", help="Content id; also accepted as a positional.")
    return option(command)


def no_start_option(command: F) -> F:
    """Adds `--no-start`."""
    option = click.option(
        "--no-start", is_flag=True, help="Fail with exit 4 instead of starting a lone node."
    )
    return option(command)


def positionals(values: tuple[str, ...], **named: str | None) -> tuple[str | None, ...]:
    """The values named by option, the others filled from the positionals in order."""
    left = list(values)
    filled = tuple(
        value if value is not None else (left.pop(0) if left else None) for value in named.values()
    )
    if left:
        raise click.UsageError(f"Got unexpected extra argument ({left[0]})")
    return filled


def required(value: str | None, what: str, spelling: str) -> str:
    """`value`, which must have been given."""
    if not value:
        raise click.UsageError(f"Missing {what}: give {spelling}.")
    return value


def named_task(name: tuple[str, ...], cid: str | None) -> str:
    """The cid, by option or as the only positional, which must have been given."""
    (given,) = positionals(name, cid=cid)
    return required(given, "the task", "-i CID")


def task_fields(tag: str, digest: str | None, publisher: str | None) -> dict[str, object]:
    """What `task_options` took, as the control API wants it."""
    return {"tag": tag, "digest": digest, "publisher": publisher}


pass_shared = click.make_pass_decorator(Shared, ensure=True)
