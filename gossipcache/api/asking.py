"""What a program's arguments mean: the same words in the synchronous and the Trio library."""

from __future__ import annotations

import os
from pathlib import Path, PurePath

from gossipcache.home import Home

AnyPath = str | os.PathLike[str]


def home_of(home: AnyPath | None) -> Home:
    """The home given, that of `GOSSIPCACHE_HOME`, or the platform's user data folder."""
    given = os.fspath(home) if home is not None else os.environ.get("GOSSIPCACHE_HOME")
    if not given:
        import platformdirs

        given = platformdirs.user_data_dir("gossipcache", appauthor=False)
    return Home(Path(given))


def absolute(path: AnyPath) -> PurePath:
    """`path` from the root on, as a node in another folder needs it; links are kept."""
    return PurePath(os.path.abspath(path))


def own_umask() -> int:
    """This process's umask."""
    umask = os.umask(0o077)
    os.umask(umask)
    return umask
