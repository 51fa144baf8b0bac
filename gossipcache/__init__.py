"""gossipcache: a peer-to-peer file cache with no central index.

The library's names are loaded when they are first used, so that the command line starts fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gossipcache.api.cache import Cache
    from gossipcache.api.trio_cache import AsyncCache, connect, open_node

__version__ = "0.1.0"

__all__ = ["AsyncCache", "Cache", "__version__", "connect", "open_node"]

_HOMES = {
    "Cache": "gossipcache.api.cache",
    "AsyncCache": "gossipcache.api.trio_cache",
    "connect": "gossipcache.api.trio_cache",
    "open_node": "gossipcache.api.trio_cache",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
