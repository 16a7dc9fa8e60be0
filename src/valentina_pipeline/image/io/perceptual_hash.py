"""How alike pictures are by their perceptual hashes, each compared with all before it."""

import numpy as np


class PerceptualHashIndex:
    """Perceptual hashes of 64 bits, in the order in which they are added.

    Args:
        most: hashes that will be added at most.
    """

    def __init__(self, most: int) -> None:
        self._hashes = np.zeros(most, np.uint64)
        self._count = 0

    def distances(self, phash: str) -> np.ndarray:
        """Return the bits, (n,) of 0 to 64, in which each hash so far differs from one given as hex."""
        return np.bitwise_count(self._hashes[: self._count] ^ np.uint64(int(phash, 16)))

    def add(self, phash: str) -> None:
        """Add a hash given as hex."""
        self._hashes[self._count] = int(phash, 16)
        self._count += 1
