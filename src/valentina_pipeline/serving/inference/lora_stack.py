"""Which LoRAs are at work in a base: several at once, loaded and unloaded while the base stays."""

import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from valentina_pipeline.serving.inference.adapters import Adapter, InvalidAdapterError

if TYPE_CHECKING:
    from valentina_pipeline.image.models.base_model import BaseModel

logger = logging.getLogger(__name__)

KEPT_ADAPTERS = 4
"""LoRAs beside the character's that stay loaded; the one that was not used for longest makes room."""

OWN = "default"
"""What peft knows the character's LoRA by."""


class LoraStack:
    """The LoRAs of a base.

    Args:
        base: with the character's LoRA loaded.
        own: the name that the character's LoRA goes by.
        shelf: further LoRAs by name.
    """

    def __init__(self, base: "BaseModel", own: str, shelf: Mapping[str, Adapter]) -> None:
        self._base = base
        self._own = own
        self._shelf = shelf
        self._kept: OrderedDict[str, None] = OrderedDict()

    def compose(self, adapters: Sequence[tuple[str, float]]) -> None:
        """Have these LoRAs at their weights, and no others, at work.

        Raises:
            InvalidAdapterError: one does not fit the base.
        """
        from valentina_pipeline.image.lora.loading import unload_adapter

        beside = [name for name, _ in adapters if name != self._own]
        for name in beside:
            self._load(name)
        while len(self._kept) > max(KEPT_ADAPTERS, len(beside)):
            oldest, _ = self._kept.popitem(last=False)
            unload_adapter(self._base, _known_as(oldest))
            logger.info("the LoRA %s made room", oldest)
        # of a DoRA at weight 0 peft would leave the magnitudes at work
        weights = {
            OWN if name == self._own else _known_as(name): weight for name, weight in adapters if weight
        }
        if weights:
            self._base.pipe.enable_lora()
            self._base.pipe.set_adapters(list(weights), list(weights.values()))
        else:
            self._base.pipe.disable_lora()

    def _load(self, name: str) -> None:
        from valentina_pipeline.image.lora.loading import load_adapter, unload_adapter

        if name in self._kept:
            self._kept.move_to_end(name)
            return
        file = self._shelf[name].file
        try:
            load_adapter(self._base, file, _known_as(name))
        except (ValueError, RuntimeError, KeyError) as err:
            unload_adapter(self._base, _known_as(name))
            said = str(err).replace(f"{file}", file.name)[:300]  # which clients see: no paths of this machine
            raise InvalidAdapterError(f"{name}: {file.name} does not fit this base: {said}") from err
        self._kept[name] = None


def _known_as(name: str) -> str:
    """Return an adapter's name for peft; `OWN` is not among them."""
    return f"beside_{name}"
