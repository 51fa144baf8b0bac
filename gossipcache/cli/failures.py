"""How an error reaches the user: one line on stderr, JSON if asked for, and an exit code."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from itertools import pairwise

import click

from gossipcache.cli.context import printable, tell
from gossipcache.errors import GossipcacheError, Interrupted, UsageError, from_os_error


def report(error: GossipcacheError, arguments: Sequence[str]) -> int:
    """Prints `error: WHAT (cause). TRY: next step.` and returns the exit code."""
    what, hint = (_sentence(text) for text in (error.message, error.hint or error.default_hint))
    if not what.endswith(")"):
        what += f" ({error.code.replace('_', ' ')})"
    tell(f"error: {what}. TRY: {hint}.")
    if _asks_for_json(arguments):
        fields = {"code": error.code, "message": error.message, "hint": error.hint}
        tell(json.dumps({"error": fields}))
    return error.exit_code


def as_typed(error: BaseException) -> GossipcacheError:
    """Any exception as one of ours; none is shown with a traceback."""
    if isinstance(error, GossipcacheError):
        return error
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return Interrupted("the command was broken off")
    if isinstance(error, click.ClickException):
        return _usage(error)
    if isinstance(error, OSError):
        return from_os_error(error)
    return GossipcacheError(f"this is a bug ({type(error).__name__}: {error})", "report it")


def _usage(error: click.ClickException) -> UsageError:
    path = "gossipcache"
    if isinstance(error, click.UsageError) and error.ctx is not None:
        path = error.ctx.command_path
    return UsageError(error.format_message(), f"`{path} --help` shows what it takes")


def _sentence(text: str) -> str:
    return printable(" ".join(text.split())).rstrip(".")


def _asks_for_json(arguments: Sequence[str]) -> bool:
    """Read from the raw arguments: they may be what the error is about."""
    words = list(arguments)
    if "--format=json" in words or ("--format", "json") in pairwise(words):
        return True
    given = any(word.partition("=")[0] == "--format" for word in words)
    return not given and os.environ.get("GOSSIPCACHE_FORMAT") == "json"


def leave_quietly() -> int:
    """The reader of stdout went away: nothing more can be said to it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def forget_unwritten() -> None:
    """Drops what stdout and stderr could not take: Python would try again at exit, and a full
    disk under either would then change the exit code."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
