"""Check that tensors are finite before they are saved."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class NotFiniteError(ArithmeticError):
    """Tensors are infinite or NaN; the message names one of them."""


def refuse_not_finite(tensors: "Mapping[str, Tensor]", what: str) -> None:
    """Raise NotFiniteError if a tensor has an infinite or NaN value.

    Args:
        tensors: tensors by name; integer tensors always pass.
        what: their source for the message, such as "the checkpoint".
    """
    bad = [name for name, t in tensors.items() if t.is_floating_point() and not t.isfinite().all()]
    if bad:
        raise NotFiniteError(
            f"{len(bad)} of {len(tensors)} tensors of {what} are not finite, such as {bad[0]}"
        )
