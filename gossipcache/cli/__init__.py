"""The `gossipcache` command. Its contract is in `docs/cli.md`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from gossipcache import __version__
from gossipcache.cli.cluster import cluster_group, members_command, ring_command
from gossipcache.cli.config import config_group
from gossipcache.cli.context import shared_options
from gossipcache.cli.demo import demo_command
from gossipcache.cli.doctor import doctor_command
from gossipcache.cli.failures import as_typed, forget_unwritten, leave_quietly, report
from gossipcache.cli.node import node_group
from gossipcache.cli.store import gc_command, ls_command, pin_command, unpin_command, verify_command
from gossipcache.cli.verbs import delete_command, export_command, import_command, stat_command
from gossipcache.errors import Interrupted


class Commands(click.Group):
    """The commands; Ctrl-C ends one as a typed error, without click's empty line."""

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


for _command in (
    import_command,
    stat_command,
    export_command,
    delete_command,
    ls_command,
    pin_command,
    unpin_command,
    gc_command,
    verify_command,
    node_group,
    members_command,
    ring_command,
    cluster_group,
    config_group,
    doctor_command,
    demo_command,
):
    cli.add_command(_command)


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
