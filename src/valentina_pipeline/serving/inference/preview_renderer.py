"""The portrait renderer in the place of the networks: at once, without them, and labelled as what it is."""

from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from valentina_pipeline.image.generate.prompt_weights import plain
from valentina_pipeline.image.generate.sampling import ImageSpec, request_metadata
from valentina_pipeline.image.provenance.metadata import add_provenance
from valentina_pipeline.serving.inference.package import InvalidPackageError, PackageInfo

LABEL = "rendered, no LoRA"


class PreviewRenderer:
    """Draws a character of the renderer by what prompts say of expression, pose, dress, place and light.

    Args:
        about: the package.

    Raises:
        InvalidPackageError: the character is none of the renderer's.
    """

    def __init__(self, about: PackageInfo) -> None:
        from valentina_pipeline.image import renderer

        if not about.renderer:
            raise InvalidPackageError(
                f"{about.name} has no parameters for the renderer: the pictures came from another source"
            )
        self._woman = renderer.identity(about.renderer)

    def draw(
        self, requests: Sequence[ImageSpec], size: tuple[int, int], settings: dict[str, Any]
    ) -> list[Image.Image]:
        """Return an image a request, with a label across it; what is no word for a picture changes nothing.

        Args:
            requests: prompts and seeds.
            size: width and height in pixels.
            settings: for the marks.
        """
        return [
            add_provenance(self._picture(each, size), {**request_metadata(each), **settings})
            for each in requests
        ]

    def _picture(self, request: ImageSpec, size: tuple[int, int]) -> Image.Image:
        from valentina_pipeline.image import renderer

        scene = renderer.parse_scene(plain(request.prompt), request.seed)
        square = Image.fromarray(renderer.render(self._woman, scene, request.seed, max(size)))
        left, top = (max(size) - size[0]) // 2, (max(size) - size[1]) // 2
        return _labelled(square.crop((left, top, left + size[0], top + size[1])))


def _labelled(picture: Image.Image) -> Image.Image:
    labelled = picture.copy()
    pen = ImageDraw.Draw(labelled, "RGBA")
    font = ImageFont.load_default(max(8, picture.width // 14))
    height = round(1.4 * font.size)  # type: ignore[union-attr]
    pen.rectangle((0, picture.height - height, picture.width, picture.height), (0, 0, 0, 160))
    middle = (picture.width // 2, picture.height - height // 2)
    pen.text(middle, LABEL, (255, 255, 255, 255), font, anchor="mm")
    return labelled
