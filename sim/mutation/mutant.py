"""A bug as data, and how it is planted: the import system compiles one module from its source
with a small patch. No file changes.

Nothing here imports the code under test, so that a process can plant before it loads any.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import decode_source
from pathlib import Path
from types import CodeType, ModuleType

ROOT = Path(__file__).resolve().parent.parent.parent


class MutantError(Exception):
    """A patch that does not fit the code any more, or comes too late."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One bug: `old`, which stands exactly once in the source of `module`, becomes `new`."""

    name: str
    breaks: str
    """What a user or an operator would report."""
    module: str
    old: str
    new: str
    scenarios: tuple[str, ...]
    """Those that should find it, the likeliest first."""

    @property
    def path(self) -> Path:
        """The source of its module."""
        return (ROOT / self.module.replace(".", "/")).with_suffix(".py")

    def patched(self, source: str) -> str:
        """`source` with the bug. Raises `MutantError` unless `old` stands in it once."""
        found = source.count(self.old)
        if found != 1:
            raise MutantError(f"{self.name}: its text stands {found} times in {self.module}")
        return source.replace(self.old, self.new)


def plant(mutant: Mutant) -> None:
    """Has this process import the patched module. Raises `MutantError` if it has one already."""
    if mutant.module in sys.modules:
        raise MutantError(f"{mutant.module} is loaded already")
    sys.meta_path.insert(0, _Finder(mutant))


class _Finder(MetaPathFinder):
    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._mutant.module:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.origin is None:
            raise MutantError(f"{self._mutant.name}: there is no module {fullname}")
        spec.loader = _Loader(self._mutant, spec.origin)
        return spec


class _Loader(SourceFileLoader):
    def __init__(self, mutant: Mutant, path: str) -> None:
        super().__init__(mutant.module, path)
        self._mutant = mutant

    def get_code(self, fullname: str) -> CodeType:
        # Not the inherited one, which would take, or leave behind, a compiled file.
        path = self.get_filename(fullname)
        source = self._mutant.patched(decode_source(self.get_data(path)))
        return compile(source, path, "exec", dont_inherit=True)
