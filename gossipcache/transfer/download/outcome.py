"""What a download tells of itself, while it runs and at its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gossipcache.ids import NodeId


@dataclass(frozen=True, slots=True)
class DownloadProgress:
    """How far a download is, in bytes; `resumed_bytes` stood in the store before it began."""

    done_bytes: int
    resumed_bytes: int
    bytes_by_source: Mapping[NodeId, int]


@dataclass(frozen=True, slots=True)
class DownloadOutcome:
    """Where the bytes of a complete download came from."""

    bytes_by_source: dict[NodeId, int] = field(default_factory=dict)
    resumed_bytes: int = 0


OnProgress = Callable[[DownloadProgress], None]
OnWritten = Callable[[DownloadOutcome], None]
