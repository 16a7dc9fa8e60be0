"""Files that nobody should have sent: whatever they hold, a row comes of them; nothing is written outside."""

import io
import zipfile
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import pillow_heif
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from image.ingest.test_ingest import LIMITS, intake
from portraits import noise
from valentina_pipeline.image.ingest.ingest import ingest
from valentina_pipeline.image.ingest.result_cache import ResultCache
from valentina_pipeline.image.ingest.source_image import SourceImage, prefetch
from valentina_pipeline.image.io.decode import RejectedImageError, decode
from valentina_pipeline.integrations.sources import source
from valentina_pipeline.integrations.sources.folder import LocalFolder

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF", "GIF", "MPO")


@lru_cache(maxsize=len(FORMATS))
def whole(file_format: str) -> bytes:
    """A good file of a format."""
    pillow_heif.register_heif_opener()
    buffer = io.BytesIO()
    more: dict[str, Any] = {"save_all": True, "append_images": [noise(2)]} if file_format == "MPO" else {}
    noise(1).save(buffer, file_format, **more)
    return buffer.getvalue()


def looked_at(content: bytes) -> Image.Image | None:
    """The picture in a file, None where it is refused; nothing else may come of it."""
    with suppress(RejectedImageError):
        image = decode(content, LIMITS).image
        assert image.mode == "RGB" and image.width * image.height <= LIMITS.max_pixels and not image.info
        return image
    return None


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A good file with bytes changed, put in, repeated or cut away, or another file's part behind it."""
    content = bytearray(whole(draw(st.sampled_from(FORMATS))))
    for _ in range(draw(st.integers(1, 8))):
        place = draw(st.integers(0, len(content)))
        match draw(st.sampled_from(["change", "insert", "repeat", "cut", "append", "swap"])):
            case "change" if place < len(content):
                content[place] = draw(st.integers(0, 255))
            case "insert":
                content[place:place] = draw(st.binary(max_size=40))
            case "repeat":
                content[place:place] = content[place : place + draw(st.integers(1, 64))]
            case "cut":
                del content[place : place + draw(st.integers(1, 200))]
            case "append":
                content += whole(draw(st.sampled_from(FORMATS)))[: draw(st.integers(0, 400))]
            case "swap" if place + 8 < len(content):
                content[place : place + 4], content[place + 4 : place + 8] = (
                    content[place + 4 : place + 8],
                    content[place : place + 4],
                )
    return bytes(content)


@given(damaged())
@settings(max_examples=400)
def test_of_a_damaged_file_comes_a_bounded_picture_or_a_reason(content: bytes) -> None:
    looked_at(content)


@given(st.binary(max_size=500))
def test_of_any_bytes_comes_a_reason(content: bytes) -> None:
    assert looked_at(content) is None


@pytest.mark.parametrize(
    "behind", [b"<html><script>alert(1)</script>", b"PK\x05\x06" + bytes(18), whole("PNG")]
)
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_what_hides_behind_a_picture_is_not_kept(file_format: str, behind: bytes) -> None:
    image = looked_at(whole(file_format) + behind)
    assert image is not None
    assert image.tobytes() == decode(whole(file_format), LIMITS).image.tobytes()


def test_a_picture_behind_something_else_is_no_picture() -> None:
    assert looked_at(b"%PDF-1.7\n" + whole("JPEG")) is None
    assert looked_at(b"<svg xmlns='http://www.w3.org/2000/svg'/>") is None


NAMES = [
    "Валентина.png", "瓦伦蒂娜.png", "فالنتينا.png", "ヴァレンティナ.png", "👩🏽‍🦱.png", "e\u0301 and é.png",
    "a b.png", "-rf.png", "$(id).png", "'; DROP TABLE outcomes; --.png", "%2e%2e%2f.png", "a\nb.png",
    "\u202egnp.exe.png", "C:\\windows\\a.png", "a" * 240 + ".png", "CON.png",
]  # fmt: skip


def taken(originals: list[SourceImage], folder: Path) -> Any:
    with closing(ResultCache(folder)) as journal:
        return ingest(originals, intake(), journal, each=map)


def test_names_in_every_script_are_names_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number, name in enumerate(NAMES):
        noise(number).save(tmp_path / "in" / name, "PNG")
    place = LocalFolder(tmp_path / "in")
    originals = [
        SourceImage(entry.name, lambda entry=entry: place.read(entry, 10**6), {}, entry.version)
        for entry in place.entries()
    ]
    images, manifest, rejections = taken(originals, tmp_path / "journal")
    assert rejections.empty and set(manifest["source_name"]) == set(NAMES)
    assert all(path.parent.parent == tmp_path / "journal" for path in images.values())
    assert sorted(each.name for each in tmp_path.iterdir()) == ["in", "journal"]


def test_a_zip_of_evil_names_is_read_to_the_last_member(tmp_path: Path) -> None:
    names = ["../up.png", "/root.png", "a/../../b.png", "x" * 10_000 + ".png", "nul\x00hidden.exe", *NAMES]
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as opened:
        for number, name in enumerate(names):
            opened.writestr(zipfile.ZipInfo(name), whole("PNG") if number % 2 else b"no picture")
    place = source("evil.zip", tmp_path)
    entries = place.entries()
    assert len(entries) == len(names)
    assert {place.read(entry, 10**6) for entry in entries} == {whole("PNG"), b"no picture"}
    assert [each.name for each in tmp_path.iterdir()] == ["evil.zip"]


def test_an_empty_and_a_growing_file_are_rows(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    growing = tmp_path / "growing.png"
    growing.write_bytes(whole("PNG"))
    place = LocalFolder(tmp_path)
    empty, listed = place.entries()
    growing.write_bytes(whole("PNG") + b"more")
    assert looked_at(place.read(empty, 100)) is None
    with pytest.raises(OSError, match="changed while it was read"):
        place.read(listed, 10**6)


def test_remote_contents_are_read_ahead_in_order_and_errors_come_where_they_belong() -> None:
    def content(number: int) -> bytes:
        if number == 3:
            raise OSError("gone")
        return bytes([number])

    def originals() -> Iterator[SourceImage]:
        for number in range(50):
            yield SourceImage(str(number), lambda n=number: content(n), {}, remote=number % 5 != 0)

    read: list[bytes | str] = []
    with prefetch(originals(), at_once=4) as ahead:
        for original in [*ahead]:  # workers may be behind: files last until the block ends
            try:
                read.append(original.content())
            except OSError as err:
                read.append(str(err))
    assert read == [b"\0", b"\1", b"\2", "OSError: gone", *(bytes([n]) for n in range(4, 50))]
