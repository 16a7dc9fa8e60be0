"""Tensors that are about to be kept hold finite numbers only."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class NotFiniteError(ArithmeticError):
    """Numbers that are to be kept are infinite or NaN; the message says which."""


def refuse_not_finite(tensors: "Mapping[str, Tensor]", what: str) -> None:
    """Raise NotFiniteError where a tensor has a number that is not finite.

    Args:
        tensors: by name; those of whole numbers are always right.
        what: their place, for the message, such as "the checkpoint".
    """
    bad = [name for name, each in tensors.items() if each.is_floating_point() and not each.isfinite().all()]
    if bad:
        raise NotFiniteError(
            f"{len(bad)} of {len(tensors)} tensors of {what} are not finite, such as {bad[0]}"
        )
