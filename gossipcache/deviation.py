"""Which rates fall out of line: by deviation from the others, not by a fixed limit.

A rate is *slow* where it lies further below the median than the others scatter around it, and is a
fraction of it as well. Median and median absolute deviation (Hampel, 1974) rather than mean and
standard deviation: one in ten that are ten times slower would stretch three standard deviations so
far that none of them falls out of line.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

MIN_SAMPLES = 5
"""Of fewer rates none is called slow, unless the caller is content with less."""
DEVIATIONS = 3.0
SIGMA_OF_MAD = 1.4826
"""What makes the median absolute deviation of a normal distribution its standard deviation."""
SLOW_SHARE = 1 / 3
"""Of the median: where all are nearly alike, a slightly slower one is good enough."""


def slow_below(rates: Collection[float], least: int = MIN_SAMPLES) -> float:
    """The rate under which one of `rates` is slow; 0 if there are fewer than `least`. Less than
    half of them are below it, whatever they are."""
    if len(rates) < max(1, least):
        return 0.0
    ordered = sorted(rates)
    return min(_out_of_line(ordered), SLOW_SHARE * _median(ordered))


def behind_below(counts: Collection[float]) -> float:
    """The same for what grows alike everywhere, such as the pieces that each has: the count under
    which one of `counts` is behind the others."""
    if len(counts) < MIN_SAMPLES:
        return 0.0
    return _out_of_line(sorted(counts))


def _out_of_line(ascending: Sequence[float]) -> float:
    middle = _median(ascending)
    scatter = SIGMA_OF_MAD * _median(sorted(abs(value - middle) for value in ascending))
    return max(0.0, middle - DEVIATIONS * scatter)


def _median(ascending: Sequence[float]) -> float:
    half = len(ascending) // 2
    return ascending[half] if len(ascending) % 2 else (ascending[half - 1] + ascending[half]) / 2
