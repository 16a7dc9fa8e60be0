"""Means with bootstrap confidence intervals (Efron 1979; percentile method)."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
"""The share of resamples that an interval holds."""


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval."""

    mean: float
    low: float
    high: float

    def plain(self) -> dict[str, float]:
        """Return it as JSON's mapping: mean, low, high."""
        return {"mean": self.mean, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Bootstrap:
    """Resamples of groups, the same for whatever is asked of them, so that differences are paired.

    Images of one prompt resemble each other: resampling single images would make the intervals too
    narrow. So whole groups are drawn, with replacement (cluster bootstrap).

    Attributes:
        groups: every group once.
        draws: int64 (resamples, groups): positions in `groups`.
    """

    groups: tuple[Hashable, ...]
    draws: np.ndarray

    @classmethod
    def over(cls, groups: Sequence[Hashable], resamples: int, seed: int) -> "Bootstrap":
        """Return `resamples` resamples of the different values in `groups`, in their first order."""
        different = tuple(dict.fromkeys(groups))
        if not different:
            raise ValueError("nothing to resample: no group")
        rng = np.random.default_rng(seed)
        return cls(different, rng.integers(len(different), size=(resamples, len(different))))

    def means(self, values: np.ndarray, groups: Sequence[Hashable]) -> np.ndarray:
        """Return each resample's mean of the values that it draws.

        Args:
            values: float (n,); NaN stands for a value that there is not.
            groups: n groups, one a value.

        Returns:
            float64 (resamples,), NaN where a resample draws no value.
        """
        places = {group: place for place, group in enumerate(self.groups)}
        where = np.array([places[group] for group in groups], dtype=np.int64)
        there = ~np.isnan(values)
        size = len(self.groups)
        sums = np.bincount(where[there], np.asarray(values)[there], minlength=size)
        counts = np.bincount(where[there], minlength=size)
        drawn = counts[self.draws].sum(axis=1)
        total = sums[self.draws].sum(axis=1)
        return np.divide(total, drawn, out=np.full(len(drawn), np.nan), where=drawn > 0)

    def interval(self, values: np.ndarray, groups: Sequence[Hashable]) -> Interval:
        """Return the mean of all values with its interval; all 0 where there is no value."""
        there = values[~np.isnan(values)]
        if not there.size:
            return Interval(0.0, 0.0, 0.0)
        return interval(float(there.mean()), self.means(values, groups))


def interval(mean: float, resampled: np.ndarray) -> Interval:
    """Return a figure with the percentile interval of its resamples; NaNs among them do not count."""
    kept = resampled[~np.isnan(resampled)]
    if not kept.size:
        return Interval(mean, mean, mean)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(kept, [tail, 1 - tail])
    return Interval(mean, float(low), float(high))
