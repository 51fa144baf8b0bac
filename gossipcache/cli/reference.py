"""The command reference, made from the commands: `python -m gossipcache.cli.reference`."""

from __future__ import annotations

from collections.abc import Iterator

import click

from gossipcache.cli import COMMANDS, cli
from gossipcache.cli.context import Shared
from gossipcache.errors import GossipcacheError

_SHARED = ("--home", "--format", "--quiet", "--no-progress", "--help")


def reference() -> str:
    """The whole of `docs/cli.md`."""
    lines = [
        "# Command reference",
        "",
        "Made from the code by `python -m gossipcache.cli.reference`; do not edit.",
        "",
        "## For all commands",
        "",
        "These may stand before or after the command's name.",
        "",
        *_options(cli, hidden=("--version", "--help")),
        "- `-h, --help`: Show what the command takes.",
        "",
        *_EXIT_CODES,
    ]
    context = click.Context(cli, info_name="gossipcache", obj=Shared())
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        lines += _command(command, click.Context(command, context, name))
    return "\n".join(lines) + "\n"


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from _command(inner, click.Context(inner, context, name))
        return
    yield from ("", f"## {context.command_path}", "", "```")
    yield " ".join((context.command_path, *command.collect_usage_pieces(context)))
    yield from ("```", "", " ".join((command.help or "").split()))
    options = list(_options(command, hidden=_SHARED))
    if options:
        yield from ("", *options)


def _options(command: click.Command, *, hidden: tuple[str, ...]) -> Iterator[str]:
    context = click.Context(command)
    for parameter in command.get_params(context):
        if isinstance(parameter, click.Option) and parameter.opts[-1] not in hidden:
            record = parameter.get_help_record(context)
            assert record is not None
            spelling, text = record
            yield f"- `{spelling}`: {' '.join(text.split())}".rstrip(": ")


def _exit_codes() -> Iterator[str]:
    yield from ("## Exit codes", "", "| code | means |", "|---|---|", "| 0 | done |")
    named = {kind.exit_code: kind for kind in _kinds(GossipcacheError)}
    for code, kind in sorted(named.items()):
        text = "other failure" if code == 1 else (kind.__doc__ or "").splitlines()[0].rstrip(".")
        yield f"| {code} | {text} |"


def _kinds(kind: type[GossipcacheError]) -> Iterator[type[GossipcacheError]]:
    yield kind
    for inner in kind.__subclasses__():
        yield from _kinds(inner)


_EXIT_CODES = tuple(_exit_codes())

if __name__ == "__main__":
    click.echo(reference(), nl=False)
