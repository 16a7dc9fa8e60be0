"""Conditioning on input images: check their content and load the control networks."""

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

MAX_LOADED_NETWORKS = 2
"""The least recently used network is unloaded beyond this number."""


class InputRefusedError(Exception):
    """An input image is refused; the message names the field and the reason."""


def check_input_images(
    inputs: Inputs,
    pictures: "Mapping[str, Image]",
    about: PackageInfo,
    content_filter: ContentFilter,
    scorer: IdentityScorer | None,
) -> None:
    """Refuse images that are unsafe or show the face of somebody else.

    Args:
        inputs: how the images are used.
        pictures: the images by sha256.
        about: the package of the only character whose face is allowed.
        content_filter: detects nudity.
        scorer: compares faces with the character; None counts any image as showing another face.

    Raises:
        InputRefusedError: for the first such image.
    """
    is_canny = [control.kind == "canny" for control in inputs.controls]  # edges carry no face over
    checks = [("image", inputs.image, True)] if inputs.image else []
    checks += [
        (f"controls.{place}.image", control.image_sha256, not is_canny[place])
        for place, control in enumerate(inputs.controls)
    ]
    for field, name, check_face in checks:
        reason = content_filter.unsafe(pictures[name]) or (
            foreign_face(pictures[name], about, scorer, name in inputs.own) if check_face else ""
        )
        if reason:
            raise InputRefusedError(f"{field}: {reason}")


def foreign_face(
    picture: "Image", about: PackageInfo, scorer: IdentityScorer | None, own: bool = False
) -> str:
    """Return the reason why an image counts as showing another face than the character's, or "".

    With our signature (`own`) or the watermark, half of the gate is enough, since not every generated face
    comes out well. PNG texts do not count, since anybody can write them. Fails closed: an image that
    cannot be checked is refused.
    """
    if scorer is None or about.identity is None:
        return f"it cannot be compared with {about.name}'s portraits here and may show another face"
    try:
        similarities = scorer.all_of(picture)
        threshold = about.identity.gate
        below = any(similarity < threshold for similarity in similarities)
        if below and (own or detect(picture).found):
            threshold /= 2
        other_faces = [similarity for similarity in similarities if similarity < threshold]
    except Exception as err:  # an image that could not be checked must not pass
        return f"face detection failed: {type(err).__name__}: {err}"
    if other_faces:
        return f"it shows a face that is not known to be {about.name}'s: face swaps are not allowed"
    return ""


class ControlModels:
    """Control networks; the most recently used ones stay loaded.

    Args:
        unet: the U-Net that they control.
        networks: by kind of control image.
    """

    def __init__(self, unet: Any, networks: Mapping[str, Network]) -> None:
        self._unet = unet
        self._networks = networks
        self._loaded: OrderedDict[str, Any] = OrderedDict()

    def controls(self, inputs: Inputs, pictures: "Mapping[str, Image]") -> list[Control]:
        """Return the loaded controls for generation.

        Raises:
            InvalidAdapterError: a network cannot be loaded, is for another base model, or does not support
                this size.
        """
        kinds = [control.kind for control in inputs.controls]
        for control in inputs.controls:
            self._load(control.kind)
            # T2I-Adapters start with a pixel unshuffle by this factor; ControlNets have no factor
            factor = getattr(self._loaded[control.kind], "downscale_factor", 1)
            if any(side % factor for side in pictures[control.image_sha256].size):
                raise InvalidAdapterError(f"{control.kind}: width and height must be multiples of {factor}")
        while len(self._loaded) > max(MAX_LOADED_NETWORKS, len(set(kinds))):
            oldest, _ = self._loaded.popitem(last=False)
            logger.info("unloaded the control network for %s", oldest)
        return [
            Control(
                self._loaded[control.kind],
                _preprocess(control, pictures[control.image_sha256]),
                control.scale,
            )
            for control in inputs.controls
        ]

    def _load(self, kind: str) -> None:
        if kind not in self._loaded:
            network = self._networks[kind]
            try:
                self._loaded[kind] = load(network.folder, network.network, self._unet)
            except (ValueError, OSError, RuntimeError, KeyError) as err:
                raise InvalidAdapterError(f"{kind}: {network.folder.name}: {str(err)[:300]}") from err
        self._loaded.move_to_end(kind)


def open_images(pictures: Mapping[str, bytes]) -> "dict[str, Image]":
    """Return the decoded images by sha256."""
    return {name: png.decode(content) for name, content in pictures.items()}


def start(inputs: Inputs, pictures: "Mapping[str, Image]") -> InitImage | None:
    """Return the initial image with its mask, or None to start from noise."""
    if not inputs.image:
        return None
    mask = pictures[inputs.mask].convert("L") if inputs.mask else None
    return InitImage(pictures[inputs.image], inputs.strength, mask)


def _preprocess(control: Any, picture: "Image") -> "Image":
    """Return the control image in the form that the network expects."""
    if control.preprocess and control.kind in PREPROCESSORS:
        return PREPROCESSORS[control.kind](picture)
    if control.kind == "canny":  # keep white lines only: nothing else of the image may pass
        return picture.convert("L").point(lambda level: 255 * (level > 127)).convert("RGB")
    return picture
