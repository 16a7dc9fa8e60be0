"""LoRA stack: activate several LoRAs at once, and load and unload them while the base model stays."""

import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from valentina_pipeline.serving.inference.adapters import Adapter, InvalidAdapterError

if TYPE_CHECKING:
    from valentina_pipeline.image.models.base_model import BaseModel

logger = logging.getLogger(__name__)

MAX_LOADED_ADAPTERS = 4
"""Limit without the character's LoRA; the least recently used one is unloaded beyond it."""

CHARACTER_ADAPTER = "default"
"""Name of the character's LoRA in peft."""


class LoraStack:
    """The LoRAs of a base model.

    Args:
        base: the base model with the character's LoRA loaded.
        own: the name of the character's LoRA in requests.
        shelf: further LoRAs by name.
    """

    def __init__(self, base: "BaseModel", own: str, shelf: Mapping[str, Adapter]) -> None:
        self._base = base
        self._own = own
        self._shelf = shelf
        self._loaded: OrderedDict[str, None] = OrderedDict()

    def compose(self, adapters: Sequence[tuple[str, float]]) -> None:
        """Activate exactly these LoRAs at their weights.

        Raises:
            InvalidAdapterError: a LoRA does not fit the base model.
        """
        from valentina_pipeline.image.lora.loading import unload_adapter

        further = [name for name, _ in adapters if name != self._own]
        for name in further:
            self._load(name)
        while len(self._loaded) > max(MAX_LOADED_ADAPTERS, len(further)):
            oldest, _ = self._loaded.popitem(last=False)
            unload_adapter(self._base, _peft_name(oldest))
            logger.info("unloaded the LoRA %s", oldest)
        # leave out weight 0: peft would still apply the magnitudes of a DoRA
        weights = {
            CHARACTER_ADAPTER if name == self._own else _peft_name(name): weight
            for name, weight in adapters
            if weight
        }
        if weights:
            self._base.pipe.enable_lora()
            self._base.pipe.set_adapters(list(weights), list(weights.values()))
        else:
            self._base.pipe.disable_lora()

    def _load(self, name: str) -> None:
        from valentina_pipeline.image.lora.loading import load_adapter, unload_adapter

        if name in self._loaded:
            self._loaded.move_to_end(name)
            return
        file = self._shelf[name].file
        try:
            load_adapter(self._base, file, _peft_name(name))
        except (ValueError, RuntimeError, KeyError) as err:
            unload_adapter(self._base, _peft_name(name))
            # clients see this message: remove paths of this machine
            reason = str(err).replace(f"{file}", file.name)[:300]
            raise InvalidAdapterError(f"{name}: {file.name} does not fit this base model: {reason}") from err
        self._loaded[name] = None


def _peft_name(name: str) -> str:
    """Return an adapter's name for peft, always different from `CHARACTER_ADAPTER`."""
    return f"beside_{name}"
