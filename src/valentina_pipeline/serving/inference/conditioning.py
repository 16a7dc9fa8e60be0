"""Opens an order's pictures: looks at what they show, and loads the networks that keep to them."""

import logging
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from valentina_pipeline.image.generate.controlnet import PREPROCESSORS, Control, load
from valentina_pipeline.image.generate.img2img import InitImage
from valentina_pipeline.image.io import png
from valentina_pipeline.image.provenance.watermark import detect
from valentina_pipeline.image.safety.content_filter import ContentFilter
from valentina_pipeline.serving.inference.adapters import InvalidAdapterError
from valentina_pipeline.serving.inference.control_models import Network
from valentina_pipeline.serving.inference.identity import IdentityScorer
from valentina_pipeline.serving.inference.input_images import Inputs
from valentina_pipeline.serving.inference.package import PackageInfo

if TYPE_CHECKING:
    from PIL.Image import Image

logger = logging.getLogger(__name__)

KEPT_NETWORKS = 2
"""That stay loaded; the one that was not used for longest makes room."""


class InputRefusedError(Exception):
    """A picture that nothing is drawn from; the message names the field and says why."""


def check_input_images(
    inputs: Inputs,
    pictures: "Mapping[str, Image]",
    about: PackageInfo,
    seen: ContentFilter,
    her: IdentityScorer | None,
) -> None:
    """Refuse pictures that are unsafe, or show the face of somebody else.

    Args:
        inputs: what they are for.
        pictures: by sha256.
        about: whose face may be shown.
        seen: looks for nudity.
        her: tells her face from others; None: any face counts as somebody else's.

    Raises:
        InputRefusedError: at the first such picture.
    """
    edges = [each.kind == "canny" for each in inputs.controls]  # no face is carried over by them
    shown = [("image", inputs.image, True)] if inputs.image else []
    shown += [
        (f"control.{place}.image", each.picture, not edges[place])
        for place, each in enumerate(inputs.controls)
    ]
    for field, name, has_looks in shown:
        reason = seen.unsafe(pictures[name]) or (
            foreign_face(pictures[name], about, her) if has_looks else ""
        )
        if reason:
            raise InputRefusedError(f"{field}: {reason}")


def foreign_face(picture: "Image", about: PackageInfo, her: IdentityScorer | None) -> str:
    """Return why a picture counts as showing another face than the character's, or "".

    Where it bears the watermark, half of the gate is enough: not each face that was drawn comes out well. Its
    texts say nothing, anybody can write them. Fails closed: a picture that cannot be looked at shows one.
    """
    if her is None or about.identity is None:
        return f"it cannot be compared with {about.name}'s portraits here, and may show another's face"
    try:
        likeness = her.all_of(picture)
        least = about.identity.gate
        if any(each < least for each in likeness) and detect(picture).found:
            least /= 2
        strangers = [each for each in likeness if each < least]
    except Exception as err:  # whatever breaks in here, the picture has not been looked at
        return f"it could not be searched for faces: {type(err).__name__}: {err}"
    if strangers:
        return f"it shows a face that is not known to be {about.name}'s: faces are not put onto anybody"
    return ""


class ControlModels:
    """The networks that keep to pictures, the latest of them loaded.

    Args:
        unet: that they steer.
        networks: by kind of picture.
    """

    def __init__(self, unet: Any, networks: Mapping[str, Network]) -> None:
        self._unet = unet
        self._networks = networks
        self._kept: OrderedDict[str, Any] = OrderedDict()

    def controls(self, inputs: Inputs, pictures: "Mapping[str, Image]") -> list[Control]:
        """Return what a drawing keeps to.

        Raises:
            InvalidAdapterError: a network cannot be loaded, is for another base, or does not read this size.
        """
        kinds = [each.kind for each in inputs.controls]
        for each in inputs.controls:
            self._load(each.kind)
            # T2I-Adapters begin by folding so many pixels into one; ControlNets follow the U-Net
            factor = getattr(self._kept[each.kind], "downscale_factor", 1)
            if any(side % factor for side in pictures[each.picture].size):
                raise InvalidAdapterError(f"{each.kind}: width and height have to be multiples of {factor}")
        while len(self._kept) > max(KEPT_NETWORKS, len(set(kinds))):
            oldest, _ = self._kept.popitem(last=False)
            logger.info("the network for %s made room", oldest)
        return [
            Control(self._kept[each.kind], _shown(each, pictures[each.picture]), each.scale)
            for each in inputs.controls
        ]

    def _load(self, kind: str) -> None:
        if kind not in self._kept:
            network = self._networks[kind]
            try:
                self._kept[kind] = load(network.folder, network.network, self._unet)
            except (ValueError, OSError, RuntimeError, KeyError) as err:
                raise InvalidAdapterError(f"{kind}: {network.folder.name}: {str(err)[:300]}") from err
        self._kept.move_to_end(kind)


def open_images(pictures: Mapping[str, bytes]) -> "dict[str, Image]":
    """Return an order's pictures."""
    return {name: png.decode(content) for name, content in pictures.items()}


def start(inputs: Inputs, pictures: "Mapping[str, Image]") -> InitImage | None:
    """Return what a drawing begins from, None for noise."""
    if not inputs.image:
        return None
    mask = pictures[inputs.mask].convert("L") if inputs.mask else None
    return InitImage(pictures[inputs.image], inputs.strength, mask)


def _shown(control: Any, picture: "Image") -> "Image":
    """Return a control's picture as its network reads it."""
    if control.preprocess and control.kind in PREPROCESSORS:
        return PREPROCESSORS[control.kind](picture)
    if control.kind == "canny":  # lines, and nothing else of what is given
        return picture.convert("L").point(lambda level: 255 * (level > 127)).convert("RGB")
    return picture
