"""Preview engine: the portrait renderer in place of the networks, with a label on each image."""

from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from valentina_pipeline.image.generate.generate import ImageSpec, request_metadata
from valentina_pipeline.image.generate.prompt_weights import plain
from valentina_pipeline.image.provenance.metadata import add_provenance
from valentina_pipeline.serving.inference.package import InvalidPackageError, PackageInfo

LABEL = "rendered, no LoRA"


class PreviewRenderer:
    """Renders a character with the expression, pose, dress, place and light of the prompt.

    Args:
        about: the package.

    Raises:
        InvalidPackageError: the package has no renderer parameters of the character.
    """

    def __init__(self, about: PackageInfo) -> None:
        from valentina_pipeline.image.renderer.prompt_parser import parse_identity

        if not about.renderer_parameters:
            raise InvalidPackageError(
                f"{about.name} has no parameters for the renderer: the images came from another source"
            )
        self._character = parse_identity(about.renderer_parameters)

    def draw(
        self, requests: Sequence[ImageSpec], size: tuple[int, int], settings: dict[str, Any]
    ) -> list[Image.Image]:
        """Return one labeled image per request; words that the renderer does not know have no effect.

        Args:
            requests: prompts and seeds.
            size: width and height in pixels.
            settings: further metadata of the images.
        """
        return [
            add_provenance(self._render(request, size), {**request_metadata(request), **settings})
            for request in requests
        ]

    def _render(self, request: ImageSpec, size: tuple[int, int]) -> Image.Image:
        from valentina_pipeline.image.renderer.prompt_parser import parse_scene
        from valentina_pipeline.image.renderer.render import render

        scene = parse_scene(plain(request.prompt), request.seed)
        square = Image.fromarray(render(self._character, scene, request.seed, max(size)))
        left, top = (max(size) - size[0]) // 2, (max(size) - size[1]) // 2
        return _add_label(square.crop((left, top, left + size[0], top + size[1])))


def _add_label(image: Image.Image) -> Image.Image:
    labeled = image.copy()
    pen = ImageDraw.Draw(labeled, "RGBA")
    font = ImageFont.load_default(max(8, image.width // 14))
    height = round(1.4 * font.size)  # type: ignore[union-attr]
    pen.rectangle((0, image.height - height, image.width, image.height), (0, 0, 0, 160))
    middle = (image.width // 2, image.height - height // 2)
    pen.text(middle, LABEL, (255, 255, 255, 255), font, anchor="mm")
    return labeled
