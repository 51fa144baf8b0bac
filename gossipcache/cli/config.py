"""The settings of this home and where each came from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from gossipcache.cli.context import Shared, pass_shared, shared_options, table
from gossipcache.launch import read_settings

if TYPE_CHECKING:
    from gossipcache.settings import Setting


@click.group("config")
def config_group() -> None:
    """Look at the configuration."""


@config_group.command("show")
@shared_options
@pass_shared
def show_command(shared: Shared) -> None:
    """Print each setting's value and origin: flag, environment, file or default."""
    home = shared.home
    rows = [_plain(setting) for setting in read_settings(home, {})]
    columns = ("key", "value", "origin", "source")
    shared.show(
        {"home": str(home.path), "config_file": str(home.config_path), "settings": rows},
        lambda: table(
            tuple(map(str.upper, columns)),
            (tuple(_text(row[column]) for column in columns) for row in rows),
        ),
    )


def _plain(setting: Setting) -> dict[str, Any]:
    value: Any = setting.value
    if isinstance(value, (tuple, frozenset)):
        value = sorted(map(str, value))
    elif value is not None and not isinstance(value, (str, bool, int, float)):
        value = str(value)
    return {
        "key": setting.key,
        "value": value,
        "origin": setting.origin,
        "source": setting.source,
    }


def _text(value: Any) -> str:
    text = ",".join(value) if isinstance(value, list) else str(value)
    return "-" if value is None or not text else text
