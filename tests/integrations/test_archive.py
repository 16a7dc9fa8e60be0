import stat
import zipfile
from pathlib import Path

import pytest

from valentina_pipeline.integrations.sources import source
from valentina_pipeline.integrations.sources.files import InvalidSourceError


def packed(folder: Path, **members: bytes) -> Path:
    path = folder / "pictures.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return path


def test_members_are_listed_and_read_in_place(tmp_path: Path) -> None:
    packed(tmp_path, **{"b.png": b"0123456789", "deep/a.jpg": b"a", "deep/": b"", ".hidden/c.png": b"c"})
    place = source("pictures.zip", tmp_path)
    first, second = place.entries()
    assert [first.name, second.name] == ["b.png", "deep/a.jpg"]
    assert place.read(first, 100) == b"0123456789"
    assert place.read(first, 4) == b"01234"
    assert place.read(second, 100) == b"a"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pictures.zip"]


def test_the_directory_of_many_members_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed(tmp_path, **{f"{number}.png": b"x" for number in range(200)})
    opened = []
    real = zipfile.ZipFile
    monkeypatch.setattr(zipfile, "ZipFile", lambda path: opened.append(path) or real(path))
    place = source("pictures.zip", tmp_path)
    assert {place.read(entry, 10) for entry in place.entries()} == {b"x"}
    assert len(opened) == 1


def test_a_members_version_changes_with_its_content(tmp_path: Path) -> None:
    packed(tmp_path, **{"a.png": b"one"})
    (one,) = source("pictures.zip", tmp_path).entries()
    packed(tmp_path, **{"a.png": b"two"})
    (other,) = source("pictures.zip", tmp_path).entries()
    assert one.version != other.version


def test_names_that_lead_elsewhere_are_names_and_nothing_is_written(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    packed(inner, **{"../outside.png": b"x", "/etc/outside.png": b"y"})
    place = source("pictures.zip", inner)
    assert {place.read(entry, 10) for entry in place.entries()} == {b"x", b"y"}
    assert not (tmp_path / "outside.png").exists()


def test_of_a_bomb_no_more_than_the_limit_is_unpacked(tmp_path: Path) -> None:
    packed(tmp_path, **{"bomb.png": bytes(50_000_000)})
    place = source("pictures.zip", tmp_path)
    (bomb,) = place.entries()
    assert (tmp_path / "pictures.zip").stat().st_size < 100_000
    assert len(place.read(bomb, 1000)) == 1001


def test_a_link_a_second_member_of_one_name_and_a_damaged_one(tmp_path: Path) -> None:
    path = tmp_path / "pictures.zip"
    link = zipfile.ZipInfo("link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr(link, "/etc/passwd")
        opened.writestr("twice.png", b"first")
        with pytest.warns(UserWarning, match="Duplicate name"):
            opened.writestr("twice.png", b"second")
        opened.writestr("z.png", b"undamaged content")
    path.write_bytes(path.read_bytes().replace(b"undamaged content", b"damaged!! content"))
    place = source("pictures.zip", tmp_path)
    linked, first, second, damaged = place.entries()
    with pytest.raises(OSError, match=r"link\.png is a link"):
        place.read(linked, 100)
    assert (first.name, place.read(first, 100)) == ("twice.png", b"first")
    assert (second.name, place.read(second, 100)) == ("twice.png#2", b"second")
    with pytest.raises(OSError, match=r"z\.png cannot be unpacked: Bad CRC"):
        place.read(damaged, 100)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"no zip", "cannot be read as a zip"), (None, "does not exist"), (b"", "has no images")],
)
def test_what_is_no_zip_of_pictures_is_an_error_that_names_it(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    if content == b"":
        packed(tmp_path)
    elif content is not None:
        (tmp_path / "pictures.zip").write_bytes(content)
    with pytest.raises(InvalidSourceError, match=rf"pictures\.zip {said}"):
        source("pictures.zip", tmp_path).entries()
