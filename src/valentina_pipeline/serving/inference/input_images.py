"""Pictures that come with a request: where a drawing begins, what of it stays, what it keeps to."""

import base64
import io
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

from PIL import Image, ImageOps
from pydantic import Field

from valentina_pipeline.image.generate.controlnet import Kind
from valentina_pipeline.image.io import png
from valentina_pipeline.image.io.decode import RejectedImageError, decode
from valentina_pipeline.serving.inference.package import Strict

FORMATS = ("PNG", "JPEG", "WEBP")

LARGEST_PICTURE = 24 << 20
"""Bytes of a file, or of a request with all of its pictures."""

MOST_PIXELS = 2 * 4096 * 4096
"""Of all pictures of a request together."""


class Limits(NamedTuple):
    """Of a picture that is given."""

    max_pixels: int = 4096 * 4096
    min_side: int = 64


class Steer(Strict):
    """A picture that the drawing keeps to."""

    kind: Kind = Field(description="one of /v1/capabilities' controls")
    image: str = Field(description="base64 of a PNG, JPEG or WebP")
    scale: float | None = Field(default=None, ge=0, le=2, description="how much it counts; null: as set up")
    preprocess: bool = Field(
        default=True, description="canny: find the edges; false, and other kinds: the picture shows them"
    )


@dataclass(frozen=True)
class Control:
    """As `Steer`, settled; `picture` is the sha256 of its PNG file."""

    kind: str
    scale: float
    preprocess: bool
    picture: str


@dataclass(frozen=True)
class Inputs:
    """What a drawing is given beside words. Pictures are named by the sha256 of their PNG files.

    Attributes:
        image: where it begins; "" is noise.
        strength: share of the sampler's steps that are done, 1 without `image`.
        mask: which part of `image` is drawn anew, white; "" is all of it.
        controls: what it keeps to.
    """

    image: str = ""
    strength: float = 1.0
    mask: str = ""
    controls: tuple[Control, ...] = ()

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Inputs":
        """Return them as `dataclasses.asdict` and JSON leave them."""
        controls = tuple(Control(**each) for each in values.get("controls", ()))
        return cls(**{**values, "controls": controls})

    def marks(self) -> dict[str, object]:
        """Return what an image's file says of them: nothing of those that there are not."""
        said: dict[str, object] = {}
        if self.image:
            said |= {"image_sha256": self.image, "strength": self.strength}
        if self.mask:
            said["mask_sha256"] = self.mask
        if self.controls:
            said["control"] = [asdict(each) for each in self.controls]
        return said


class Given(NamedTuple):
    """A file that came in a field, and the mode in which the drawing takes it."""

    field: str
    content: bytes
    mode: Literal["RGB", "L"] = "RGB"


class UnsuitableImageError(Exception):
    """A picture is not drawn with: its field, and why."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(field, why)  # as it is made again behind a process
        self.field = field
        self.why = why


def missing(texts: Mapping[str, str], given: frozenset[str]) -> tuple[str, str] | None:
    """Return a field that drawing an image again takes and what it has to be, or None.

    Args:
        texts: of the image's PNG file; see `Inputs.marks`.
        given: the fields that there are.
    """
    for field in ("image", "mask"):
        if f"{field}_sha256" in texts and field not in given:
            return field, f"sha256 {texts[f'{field}_sha256'][:12]}"
    if "control" in texts and "control" not in given:
        kinds = [f"{each['kind']}, sha256 {each['picture'][:12]}" for each in json.loads(texts["control"])]
        return "control", "; ".join(kinds)
    return None


def content(text: str) -> bytes:
    """Return the file of a field: base64, be it as a data URL.

    Raises:
        RejectedImageError: it is none, or too large.
    """
    head, comma, behind = text.partition(",")
    encoded = behind if comma and head.startswith("data:") else text
    if len(encoded) > LARGEST_PICTURE * 4 // 3:
        raise RejectedImageError("too large", f"more than {LARGEST_PICTURE >> 20} MiB")
    try:
        return base64.b64decode(encoded, validate=True)
    except ValueError as err:
        raise RejectedImageError("not an image", f"no base64: {err}") from err


def fit(given: Sequence[Given], size: tuple[int, int]) -> list[bytes]:
    """Return the pictures of a request as the drawing takes them: PNG files of its size.

    One is decoded at a time, and none before the headers of all say that they are not too large together.

    Raises:
        UnsuitableImageError: one is no picture, or breaks a limit.
    """
    if (pixels := sum(_pixels(each.content) for each in given)) > MOST_PIXELS:
        said = f"the request's pictures have {pixels:,} pixels together, of at most {MOST_PIXELS:,}"
        raise UnsuitableImageError(given[-1].field, said)
    sizes, fits = dict[str, tuple[int, int]](), []
    for each in given:
        try:
            picture = decode(each.content, Limits(), FORMATS).image
        except RejectedImageError as err:
            raise UnsuitableImageError(each.field, str(err)) from err
        sizes[each.field] = picture.size
        start = sizes.get("image", picture.size)
        if each.field == "mask" and picture.size != start:
            raise UnsuitableImageError("mask", f"is {_sized(picture.size)}, and `image` {_sized(start)}")
        fits.append(_fitted(picture, size, each.mode))
    return fits


def _pixels(content: bytes) -> int:
    """Return how many pixels a file says that it has, 0 where it says nothing: decoding says why then."""
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(content), formats=FORMATS) as opened:
            warnings.simplefilter("ignore")
            return opened.width * opened.height
    except Exception:  # decoders fail in many ways on broken files
        return 0


def _sized(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _fitted(picture: Image.Image, size: tuple[int, int], mode: str) -> bytes:
    """Return a picture as the drawing takes it: a PNG file of its size, the middle of what is too long."""
    return png.encode(ImageOps.fit(picture.convert(mode), size, Image.Resampling.LANCZOS))
