"""The progress bar of imports and exports: rate, time left, sources. On a terminal only."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

from gossipcache.units import format_size

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class ProgressBar:
    """Draws what it is told; `rich` is loaded with the first event."""

    def __init__(self, title: str, *, enabled: bool) -> None:
        self._title = title
        self._enabled = enabled
        self._bar: Progress | None = None
        self._row: TaskID | None = None

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, event: dict[str, Any]) -> None:
        """Shows one progress event of the control API."""
        if not self._enabled:
            return
        if self._bar is None:
            self._start()
        assert self._bar is not None
        assert self._row is not None
        sources = len(event.get("sources") or ())
        self._bar.update(
            self._row,
            description=event.get("phase") or self._title,
            completed=event["done_bytes"],
            total=event.get("total_bytes") or None,
            sources=f"{sources} source{'' if sources == 1 else 's'}" if sources else "",
        )

    def _start(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            ProgressColumn,
            Task,
            TextColumn,
            TimeRemainingColumn,
        )
        from rich.text import Text

        class RateColumn(ProgressColumn):
            """In the units that sizes have; rich's own counts in powers of 1000."""

            def render(self, task: Task) -> Text:
                speed = task.finished_speed or task.speed
                return Text(f"{format_size(speed)}/s" if speed else "")

        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(binary_units=True),
            RateColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[sources]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._row = self._bar.add_task(self._title, total=None, sources="")
        self._bar.start()
