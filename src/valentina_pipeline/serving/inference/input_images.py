"""Input images of a request: initial image, mask and control images."""

import base64
import io
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from dataclasses import field as data_field
from typing import Any, Literal, NamedTuple

from PIL import Image, ImageOps
from pydantic import Field

from valentina_pipeline.image.generate.controlnet import Kind
from valentina_pipeline.image.io import png
from valentina_pipeline.image.io.decode import RejectedImageError, decode
from valentina_pipeline.serving.inference.package import Strict

FORMATS = ("PNG", "JPEG", "WEBP")

LARGEST_PICTURE = 24 << 20
"""Limit in bytes, of one file and of a request with all of its images."""

MAX_SIDE = 4096
"""Side of the largest square input image, in pixels."""

MAX_TOTAL_PIXELS = 2 * MAX_SIDE**2
"""Limit of all images of a request together."""


class Limits(NamedTuple):
    """Size limits of one input image."""

    max_pixels: int = MAX_SIDE**2
    min_side: int = 64


class Steer(Strict):
    """A control image of a request."""

    kind: Kind = Field(description="one of the controls of /v1/capabilities")
    image: str = Field(description="base64 of a PNG, JPEG or WebP")
    scale: float | None = Field(
        default=None, ge=0, le=2, description="conditioning scale; null: the configured one"
    )
    preprocess: bool = Field(
        default=True,
        description="canny: detect the edges first; false, and other kinds: the image is used as it is",
    )


@dataclass(frozen=True)
class Control:
    """A resolved `Steer`; `image_sha256` is the hash of its PNG file."""

    kind: str
    scale: float
    preprocess: bool
    image_sha256: str


@dataclass(frozen=True)
class Inputs:
    """Image inputs of a generation. Images are named by the sha256 of their PNG files.

    Attributes:
        image: the initial image; "" starts from noise.
        strength: the share of the sampler's steps that run, 1 without `image`.
        mask: white marks the part of `image` to regenerate; "" regenerates all of it.
        controls: the control images.
        own: those images whose uploaded files this installation had signed, unchanged since.
    """

    image: str = ""
    strength: float = 1.0
    mask: str = ""
    controls: tuple[Control, ...] = ()
    own: tuple[str, ...] = data_field(default=(), repr=False)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Inputs":
        """Return the inputs from a mapping that `dataclasses.asdict` or JSON made."""
        controls = tuple(Control(**control) for control in values.get("controls", ()))
        return cls(**{**values, "controls": controls, "own": tuple(values.get("own", ()))})

    def marks(self) -> dict[str, object]:
        """Return the metadata for an image's file, without keys of absent inputs."""
        metadata: dict[str, object] = {}
        if self.image:
            metadata |= {"image_sha256": self.image, "strength": self.strength}
        if self.mask:
            metadata["mask_sha256"] = self.mask
        if self.controls:
            metadata["controls"] = [asdict(control) for control in self.controls]
        return metadata


class Given(NamedTuple):
    """An uploaded file, its field in the request, and the mode to convert it to."""

    field: str
    content: bytes
    mode: Literal["RGB", "L"] = "RGB"


class Fitted(NamedTuple):
    """An uploaded image as a PNG file of the requested size; `own`: this installation signed the upload."""

    content: bytes
    own: bool


class UnsuitableImageError(Exception):
    """An input image cannot be used; has its field and the reason."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(field, why)  # unpickling in another process calls this signature
        self.field = field
        self.why = why


def missing(texts: Mapping[str, str], given: frozenset[str]) -> tuple[str, str] | None:
    """Return the first missing input of an image that is generated again: (field, expected file), or None.

    Args:
        texts: the texts of the image's PNG file; see `Inputs.marks`.
        given: the image fields of the request.
    """
    for field in ("image", "mask"):
        if f"{field}_sha256" in texts and field not in given:
            return field, f"sha256 {texts[f'{field}_sha256'][:12]}"
    if "controls" in texts and "controls" not in given:
        controls = [f"{c['kind']}, sha256 {c['image_sha256'][:12]}" for c in json.loads(texts["controls"])]
        return "controls", "; ".join(controls)
    return None


def content(text: str) -> bytes:
    """Return the bytes of a base64 field, which may be a data URL.

    Raises:
        RejectedImageError: the text is not base64, or the file is too large.
    """
    head, comma, tail = text.partition(",")
    encoded = tail if comma and head.startswith("data:") else text
    if len(encoded) > LARGEST_PICTURE * 4 // 3:
        raise RejectedImageError("too large", f"more than {LARGEST_PICTURE >> 20} MiB")
    try:
        return base64.b64decode(encoded, validate=True)
    except ValueError as err:
        raise RejectedImageError("not an image", f"invalid base64: {err}") from err


Recognizer = Callable[[bytes], bool]


def _is_unknown(content: bytes) -> bool:
    return False


def fit(given: Sequence[Given], size: tuple[int, int], is_own: Recognizer = _is_unknown) -> list[Fitted]:
    """Return a request's images as PNG files of the requested size.

    The headers are checked against the total limit first; then one image is decoded at a time.

    Args:
        given: the uploaded files.
        size: width and height in pixels.
        is_own: recognizes files that this installation signed, such as `c2pa.is_own`; default: none.

    Raises:
        UnsuitableImageError: a file is not an image, or exceeds a limit.
    """
    if (pixels := sum(_num_pixels(upload.content) for upload in given)) > MAX_TOTAL_PIXELS:
        reason = (
            f"the images of the request have {pixels:,} pixels together: must be at most {MAX_TOTAL_PIXELS:,}"
        )
        raise UnsuitableImageError(given[-1].field, reason)
    sizes, resized = dict[str, tuple[int, int]](), []
    for upload in given:
        try:
            image = decode(upload.content, Limits(), FORMATS).image
        except RejectedImageError as err:
            raise UnsuitableImageError(upload.field, str(err)) from err
        sizes[upload.field] = image.size
        initial_size = sizes.get("image", image.size)
        if upload.field == "mask" and image.size != initial_size:
            reason = (
                f"is {_format_size(image.size)}: must be as large as `image`, {_format_size(initial_size)}"
            )
            raise UnsuitableImageError("mask", reason)
        resized.append(Fitted(_resize(image, size, upload.mode), is_own(upload.content)))
    return resized


def _num_pixels(content: bytes) -> int:
    """Return the number of pixels from a file's header; 0 where it is unreadable, which decoding reports."""
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(content), formats=FORMATS) as opened:
            warnings.simplefilter("ignore")
            return opened.width * opened.height
    except Exception:  # decoders fail in many ways on broken files
        return 0


def _format_size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _resize(image: Image.Image, size: tuple[int, int], mode: str) -> bytes:
    """Return an image as a PNG file of this size, cropped to its center."""
    return png.encode(ImageOps.fit(image.convert(mode), size, Image.Resampling.LANCZOS))
