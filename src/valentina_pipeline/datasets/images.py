"""Datasets of images: a single file, or a folder that is read lazily."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

from kedro.io import DatasetError
from PIL import Image

from valentina_pipeline.common import atomic_files
from valentina_pipeline.datasets._base import NAME, _link_or_copy, _PathDataset
from valentina_pipeline.datasets.previews import ImagePreview, preview_png
from valentina_pipeline.image.io import png
from valentina_pipeline.image.io.contact_sheet import contact_sheet

Picture: TypeAlias = Image.Image | bytes | Path

Pictures: TypeAlias = Mapping[str, Picture] | Iterable[tuple[str, Picture]]

PREVIEW_COLUMNS, PREVIEW_CELL = 4, 160
"""Images per row of a preview, and the side of each in pixels."""


class Images(Mapping[str, Image.Image]):
    """The PNG files below a folder by name, sorted; each is opened only on access."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        found = (path.relative_to(folder).with_suffix("") for path in folder.rglob("*.png"))
        self._names = sorted(path.as_posix() for path in found)

    def path(self, name: str) -> Path:
        """Return the file behind `name`."""
        return self._folder / f"{name}.png"

    def __getitem__(self, name: str) -> Image.Image:
        if name not in self:
            raise KeyError(name)
        path = self.path(name)
        try:
            return png.decode(path.read_bytes())
        except OSError as err:
            raise DatasetError(f"{path} cannot be read as PNG ({err}): run its stage again") from err

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and NAME.fullmatch(name) is not None and self.path(name).is_file()

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class ImageFolder(_PathDataset[Pictures, Images]):
    """A folder of PNG files.

    Saves (name, picture) pairs one at a time, so that a stage can yield them. A picture is an image, whose
    `info["text"]` is written as PNG text, or the bytes or path of a PNG file, which is stored unchanged.
    """

    def load(self) -> Images:
        """Return the images by name, opened lazily, in RGB."""
        return Images(self._require_path())

    def save(self, data: Pictures) -> None:
        """Replace the folder by these images."""
        pairs = data.items() if isinstance(data, Mapping) else data
        with atomic_files.replacing_folder(self._path) as folder:
            for name, picture in pairs:
                if not NAME.fullmatch(name):
                    raise DatasetError(f"{name!r} is not a valid name for an image in {self._path}")
                file = folder / f"{name}.png"
                if file.exists():
                    raise DatasetError(f"{self._path}: two images are named {name!r}")
                file.parent.mkdir(exist_ok=True)
                if isinstance(picture, Path):
                    _link_or_copy(picture, file)
                else:
                    file.write_bytes(picture if isinstance(picture, bytes) else png.encode(picture))

    def preview(self, num_images: int = 12) -> ImagePreview:
        """Return a contact sheet of the first images for `kedro viz`; "" without images."""
        images = self.load()
        names = list(images)[:num_images]
        if not names:  # optional images, such as masks
            return ImagePreview("")
        shown = contact_sheet((images[name] for name in names), names, PREVIEW_COLUMNS, PREVIEW_CELL)
        return preview_png(png.encode(shown))


class ImageFile(_PathDataset[Image.Image, Image.Image]):
    """One PNG file."""

    def load(self) -> Image.Image:
        """Return the image in RGB, with its PNG texts in `info["text"]`."""
        return png.decode(self._require_path().read_bytes())

    def save(self, data: Image.Image) -> None:
        """Write the image with the PNG texts in its `info["text"]`."""
        atomic_files.replace(self._path, png.encode(data))

    def preview(self) -> ImagePreview:
        """Return the image for `kedro viz`."""
        return preview_png(self._require_path().read_bytes())
