"""Means with bootstrap confidence intervals (Efron 1979; percentile method)."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE_LEVEL = 0.95
"""Share of the resamples inside an interval."""


@dataclass(frozen=True)
class Interval:
    """Mean and its confidence interval."""

    mean: float
    ci_low: float
    ci_high: float

    def as_json(self) -> dict[str, float]:
        """Return a mapping for JSON: mean, ci_low, ci_high."""
        return {"mean": self.mean, "ci_low": self.ci_low, "ci_high": self.ci_high}


@dataclass(frozen=True)
class Bootstrap:
    """Cluster bootstrap: resamples of groups, the same for all values, so that differences are paired.

    Images of one prompt resemble each other, so that resampling single images would make the intervals too
    narrow. Whole groups are drawn with replacement instead.

    Attributes:
        groups: every group once.
        draws: positions in `groups`, int64 (resamples, groups).
    """

    groups: tuple[Hashable, ...]
    draws: np.ndarray

    @classmethod
    def draw(cls, groups: Sequence[Hashable], resamples: int, seed: int) -> "Bootstrap":
        """Draw `resamples` resamples of the distinct groups, in order of first occurrence."""
        distinct = tuple(dict.fromkeys(groups))
        if not distinct:
            raise ValueError("the bootstrap needs at least one group")
        rng = np.random.default_rng(seed)
        return cls(distinct, rng.integers(len(distinct), size=(resamples, len(distinct))))

    def resample_means(self, values: np.ndarray, groups: Sequence[Hashable]) -> np.ndarray:
        """Return the mean of each resample.

        Args:
            values: float (n,); NaN is a missing value.
            groups: group of each value (n).

        Returns:
            float64 (resamples,), NaN for a resample without values.
        """
        places = {group: place for place, group in enumerate(self.groups)}
        where = np.array([places[group] for group in groups], dtype=np.int64)
        present = ~np.isnan(values)
        size = len(self.groups)
        sums = np.bincount(where[present], np.asarray(values)[present], minlength=size)
        counts = np.bincount(where[present], minlength=size)
        drawn = counts[self.draws].sum(axis=1)
        total = sums[self.draws].sum(axis=1)
        return np.divide(total, drawn, out=np.full(len(drawn), np.nan), where=drawn > 0)

    def mean_with_interval(self, values: np.ndarray, groups: Sequence[Hashable]) -> Interval:
        """Return the mean of all values with its interval; 0 for all three if there are no values."""
        present = values[~np.isnan(values)]
        if not present.size:
            return Interval(0.0, 0.0, 0.0)
        return percentile_interval(float(present.mean()), self.resample_means(values, groups))


def paired_difference(
    differences: np.ndarray, groups: Sequence[Hashable], resamples: int, seed: int
) -> Interval:
    """Return the mean of paired differences with its interval.

    Each resample draws groups with replacement, then as many values of each drawn group, so that it varies in
    both. Images of one prompt resemble each other: resampling single images would make it too narrow.

    Args:
        differences: float (n,) without NaN, at least one.
        groups: group of each value (n).
        resamples: number of resamples.
        seed: seed of the resampling.
    """
    places = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    where = np.array([places[group] for group in groups])
    counts = np.bincount(where)
    values = np.zeros((len(counts), counts.max()))
    for place in range(len(counts)):
        values[place, : counts[place]] = differences[where == place]
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(counts), size=(resamples, len(counts)))
    members = (rng.random((*drawn.shape, values.shape[1])) * counts[drawn][..., None]).astype(int)
    present = np.arange(values.shape[1]) < counts[drawn][..., None]
    sums = (values[drawn[..., None], members] * present).sum(axis=(1, 2))
    return percentile_interval(float(differences.mean()), sums / present.sum(axis=(1, 2)))


def percentile_interval(mean: float, resampled: np.ndarray) -> Interval:
    """Return a metric with the percentile interval of its resamples, NaN excluded."""
    present = resampled[~np.isnan(resampled)]
    if not present.size:
        return Interval(mean, mean, mean)
    tail = (1 - CONFIDENCE_LEVEL) / 2
    low, high = np.quantile(present, [tail, 1 - tail])
    return Interval(mean, float(low), float(high))


def format_interval(figure: Mapping[str, float]) -> str:
    """Return the text of an `Interval.as_json()`, such as "0.700 (0.650 to 0.750)"."""
    return f"{figure['mean']:.3f} ({figure['ci_low']:.3f} to {figure['ci_high']:.3f})"
