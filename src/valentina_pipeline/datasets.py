"""The project's datasets: whole files and folders, written beside and then renamed.

A killed run leaves the former content or the new one, never a mixture, and nothing written here
depends on time, so that a rerun gives the same bytes.
"""

import io
import json
import logging
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import pandas as pd
from kedro.io import AbstractDataset, DatasetError
from kedro_datasets.pandas import ParquetDataset
from PIL import Image

from valentina_pipeline.domain.rights import BadLedger, RightsRecord
from valentina_pipeline.image import png
from valentina_pipeline.integrations import captions, files, ledgers, tables

logger = logging.getLogger(__name__)

Saved = TypeVar("Saved")
Loaded = TypeVar("Loaded")
Picture: TypeAlias = Image.Image | bytes | Path
Pictures: TypeAlias = Mapping[str, Picture] | Iterable[tuple[str, Picture]]

NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)
"""An image's name: no suffix, at most one sub-folder."""


class _OnDisk(AbstractDataset[Saved, Loaded]):
    """What every dataset here shares: one path.

    Args:
        filepath: the file or folder; Kedro makes it absolute.
        metadata: not used here; `dvc` in it says how DVC keeps the path.
    """

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._path = Path(filepath)
        self.metadata = metadata

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._path.as_posix()}

    def _exists(self) -> bool:
        return self._path.exists()

    def _present(self) -> Path:
        if not self._exists():
            raise DatasetError(f"{self._path} is missing: run the stage that writes it, or `dvc checkout`")
        return self._path


class Folder(_OnDisk[None, Path]):
    """A folder that the project only reads: loads its path."""

    def load(self) -> Path:
        """Return the folder's path."""
        if not self._path.is_dir():
            raise DatasetError(f"{self._path} is not a folder: `git checkout -- {self._path}` brings it back")
        return self._path

    def save(self, data: None) -> None:
        """Refuse: sources are never written."""
        raise DatasetError(f"{self._path} is a source and read only")


class RightsLedgers(_OnDisk[None, tuple[RightsRecord, ...]]):
    """A folder of rights ledgers: loads their records; see domain/rights.py and integrations/ledgers.py."""

    def load(self) -> tuple[RightsRecord, ...]:
        """Return the records of all ledgers in the folder."""
        try:
            return ledgers.read(self._path)
        except BadLedger as err:
            raise DatasetError(str(err)) from err

    def save(self, data: None) -> None:
        """Refuse: people write ledgers, and `kedro revoke`."""
        raise DatasetError(f"{self._path} is a source and read only")


class Images(Mapping[str, Image.Image]):
    """The PNG files under a folder by name, sorted; each is opened only when asked for."""

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


class ImageFolder(_OnDisk[Pictures, Images]):
    """A folder of PNG files.

    Saves (name, picture) pairs one at a time, so that a stage may yield them; a picture is an image,
    whose texts in `info["text"]` go into the file, or a PNG's bytes or file, which stay as they are.
    """

    def load(self) -> Images:
        """Return the pictures by name, opened lazily, RGB."""
        return Images(self._present())

    def save(self, data: Pictures) -> None:
        """Replace the folder by these pictures."""
        pairs = data.items() if isinstance(data, Mapping) else data
        with _replacing_folder(self._path) as folder:
            for name, picture in pairs:
                if not NAME.fullmatch(name):
                    raise DatasetError(f"{name!r} is no name for an image in {self._path}")
                file = folder / f"{name}.png"
                if file.exists():
                    raise DatasetError(f"two images for {self._path} are named {name!r}")
                file.parent.mkdir(exist_ok=True)
                if isinstance(picture, Path):
                    _linked(picture, file)
                else:
                    file.write_bytes(picture if isinstance(picture, bytes) else png.encode(picture))


class ImageFile(_OnDisk[Image.Image, Image.Image]):
    """One PNG file."""

    def load(self) -> Image.Image:
        """Return the picture, RGB, its texts in `info["text"]`."""
        return png.decode(self._present().read_bytes())

    def save(self, data: Image.Image) -> None:
        """Write the picture with the texts of its `info["text"]`."""
        files.replace(self._path, png.encode(data))


class TextFile(_OnDisk[str, str]):
    """One UTF-8 text file."""

    def load(self) -> str:
        """Return the text."""
        return self._present().read_bytes().decode()

    def save(self, data: str) -> None:
        """Write the text as it is."""
        files.replace(self._path, data.encode())


class JsonFile(_OnDisk[Mapping[str, Any], dict[str, Any]]):
    """One JSON object: sorted keys, floats of six digits, so that a diff shows only what changed."""

    def load(self) -> dict[str, Any]:
        """Return the object."""
        loaded: dict[str, Any] = json.loads(self._present().read_text("utf-8"))
        return loaded

    def save(self, data: Mapping[str, Any]) -> None:
        """Write the object; a number that is not finite is an error that names its key."""
        text = json.dumps(_rounded(data, self._path.name), indent=2, sort_keys=True, ensure_ascii=False)
        files.replace(self._path, f"{text}\n".encode())


class FileFolder(_OnDisk[Mapping[str, bytes | Path], Path]):
    """A folder of any files: saves relative path -> content or file to copy, loads the folder's path."""

    def load(self) -> Path:
        """Return the folder's path."""
        return self._present()

    def save(self, data: Mapping[str, bytes | Path]) -> None:
        """Replace the folder by these files; a path that leaves it is refused."""
        with _replacing_folder(self._path) as folder:
            files.write(data, folder)


class Csv(_OnDisk[pd.DataFrame, pd.DataFrame]):
    """One table as CSV, without an index; no text in it is a spreadsheet's formula: integrations/tables.py.

    Args:
        filepath: see `_OnDisk`.
        texts: every cell is a text, "" where there is nothing.
        metadata: see `_OnDisk`.
    """

    def __init__(self, *, filepath: str, texts: bool = False, metadata: dict[str, Any] | None = None) -> None:
        super().__init__(filepath=filepath, metadata=metadata)
        self._how = {"dtype": str, "keep_default_na": False} if texts else {}

    def load(self) -> pd.DataFrame:
        """Return the table."""
        return tables.from_csv(self._present(), **self._how)

    def save(self, data: pd.DataFrame) -> None:
        """Write the table."""
        files.replace(self._path, tables.to_csv(data))


class ParquetFile(ParquetDataset):
    """Kedro's Parquet table, written beside: in place it would go through a link into DVC's cache."""

    def save(self, data: pd.DataFrame) -> None:
        """Replace the file by the table."""
        content = io.BytesIO()
        data.to_parquet(content, **self._save_args)
        files.replace(Path(self._filepath), content.getvalue())


class ReviewedCsv(_OnDisk[pd.DataFrame, pd.DataFrame]):
    """Machine captions that people correct and judge, which every rerun keeps: integrations/captions.py.

    Saves a frame [sha256, source_name, machine]; loads [sha256, caption, rejected], where the person's text
    wins.
    """

    def load(self) -> pd.DataFrame:
        """Return one caption a row: the person's where there is one, else the machine's."""
        try:
            table = captions.read(self._present())
        except captions.BadCaptions as err:
            raise DatasetError(str(err)) from err
        caption = table["human"].where(table["human"] != "", table["machine"])
        rejected = table["verdict"] == captions.REJECTED
        return pd.DataFrame({"sha256": table["sha256"], "caption": caption, "rejected": rejected})

    def save(self, data: pd.DataFrame) -> None:
        """Write new machine captions beside what people wrote; say where an image changed under an edit."""
        if data["sha256"].duplicated().any():
            raise DatasetError(f"two new captions for one image in {self._path}")
        try:
            captions.renew(self._path, data)
            changed = captions.superseded(captions.read(self._path), set(data["sha256"]))
        except captions.BadCaptions as err:
            raise DatasetError(str(err)) from err
        for new, former in sorted(changed.items()):
            logger.warning(
                "image %s took the place of %s, whose caption was edited: `kedro review` shows both",
                new,
                former,
            )


def _linked(source: Path, file: Path) -> None:
    """Have `file` hold what `source` does, without a second copy where the file system can."""
    try:
        os.link(source, file)
    except OSError:
        shutil.copyfile(source, file)


@contextmanager
def _replacing_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder beside `path` that takes its place when the block ends well."""
    partial, former = (path.with_name(f".{path.name}.{state}") for state in ("partial", "former"))
    for leftover in (partial, former):  # of a killed run
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if path.exists():
        path.rename(former)  # a folder cannot be renamed onto one that holds files
    partial.rename(path)
    shutil.rmtree(former, ignore_errors=True)


def _rounded(value: Any, where: str) -> Any:
    if hasattr(value, "tolist"):  # numpy's numbers and arrays
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _rounded(inner, f"{where}: {key}") for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner, f"{where}[{index}]") for index, inner in enumerate(value)]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise DatasetError(f"{where} is {value}: only finite numbers can be compared")
        return round(value, 6) + 0.0  # -0.0 becomes 0.0
    return value
