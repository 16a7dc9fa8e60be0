"""Index of perceptual hashes: compares each image with all earlier ones."""

import numpy as np


class PerceptualHashIndex:
    """Perceptual hashes of 64 bits, in the order of addition.

    Args:
        capacity: maximum number of hashes.
    """

    def __init__(self, capacity: int) -> None:
        self._hashes = np.zeros(capacity, np.uint64)
        self._count = 0

    def distances(self, phash: str) -> np.ndarray:
        """Return the Hamming distances, (n,) in [0, 64], of the n hashes so far to `phash`, given as hex."""
        return np.bitwise_count(self._hashes[: self._count] ^ np.uint64(int(phash, 16)))

    def add(self, phash: str) -> None:
        """Add a hash given as hex."""
        self._hashes[self._count] = int(phash, 16)
        self._count += 1
