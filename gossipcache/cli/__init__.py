"""The `gossipcache` command. Its contract is in `docs/cli.md`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

import click

from gossipcache import __version__
from gossipcache.cli.context import shared_options
from gossipcache.cli.failures import as_typed, forget_unwritten, leave_quietly, report
from gossipcache.errors import Interrupted

COMMANDS = {
    "import": "verbs",
    "stat": "verbs",
    "export": "verbs",
    "delete": "verbs",
    "ls": "store",
    "pin": "store",
    "unpin": "store",
    "gc": "store",
    "verify": "store",
    "limits": "limits",
    "node": "node",
    "members": "cluster",
    "ring": "cluster",
    "cluster": "cluster",
    "config": "config",
    "doctor": "doctor",
    "demo": "demo",
}
"""Each command and the module that has it."""
_GROUPS = frozenset(("node", "cluster", "config"))


class Commands(click.Group):
    """The commands, each loaded when it is asked for, so that a short one starts fast; Ctrl-C
    ends one as a typed error, without click's empty line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        module = COMMANDS.get(cmd_name)
        if module is None:
            return None
        kind = "group" if cmd_name in _GROUPS else "command"
        command: click.Command = getattr(
            import_module(f"gossipcache.cli.{module}"), f"{cmd_name}_{kind}"
        )
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise Interrupted("the command was broken off") from error


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog='Shell completion: eval "$(_GOSSIPCACHE_COMPLETE=bash_source gossipcache)"',
)
@shared_options
@click.version_option(__version__, prog_name="gossipcache")
def cli() -> None:
    """A peer-to-peer file cache: import a file on one machine, export it on any other."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; errors end as one line on stderr."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = cli.main(given, prog_name="gossipcache", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else "", err=True)
        return 2
    except BrokenPipeError:
        return leave_quietly()
    except (Exception, KeyboardInterrupt) as error:
        code = report(as_typed(error), given)
    forget_unwritten()
    return code if isinstance(code, int) else 0
