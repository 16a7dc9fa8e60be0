import os
from pathlib import Path
from typing import Any

import pytest

from valentina_pipeline.integrations.sources import source
from valentina_pipeline.integrations.sources.files import Entry, InvalidSourceError, Source
from valentina_pipeline.integrations.sources.folder import LocalFolder


def names(place: Source) -> list[str]:
    return [entry.name for entry in place.entries()]


@pytest.fixture(scope="module")
def prefix(s3: Any) -> str:
    """A bucket of three objects under one prefix."""
    s3.create_bucket(Bucket="portraits")
    for key, content in {
        "her/a.png": b"0123456789",
        "her/more/b.png": b"b",
        "her/empty.png": b"",
        "her/folder/": b"",
        "other/c.png": b"c",
    }.items():
        s3.put_object(Bucket="portraits", Key=key, Body=content)
    return "s3://portraits/her"


def test_a_folder_lists_files_of_all_its_folders_but_no_hidden_ones(tmp_path: Path) -> None:
    for name in ("b.png", "deep/a.jpg", ".hidden.png", ".git/c.png", "b.png.dvc"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert names(LocalFolder(tmp_path)) == ["b.png", "deep/a.jpg"]


def test_a_relative_folder_counts_from_the_project(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.png").write_bytes(b"content")
    assert source("data", tmp_path).read(Entry("a.png"), 100) == b"content"


def test_no_more_than_one_byte_above_the_limit_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"0123456789")
    assert LocalFolder(tmp_path).read(Entry("a.png"), 4) == b"01234"


def test_what_cannot_be_read_is_listed_and_its_reading_fails(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "broken.jpg").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe.jpg")
    place = LocalFolder(tmp_path)

    assert names(place) == ["broken.jpg", "folder.jpg", "pipe.jpg"]
    for entry in place.entries():
        with pytest.raises(OSError, match=r"No such file|a folder, a pipe or a device"):
            place.read(entry, 100)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "source/deep").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "source/own.png").write_bytes(b"own")
    (tmp_path / "source/deep/in.png").symlink_to(tmp_path / "source/own.png")
    (tmp_path / "source/out.png").symlink_to("../secret.png")
    (tmp_path / "source/attributes.json").symlink_to(tmp_path / "secret.png")
    (tmp_path / "source/folder").symlink_to(tmp_path)
    place = LocalFolder(tmp_path / "source")
    read = {}
    for entry in place.entries():
        try:
            read[entry.name] = place.read(entry, 100)
        except OSError as err:
            assert "links to a path outside the source" in str(err)
            assert entry.size is None
    assert read == {"deep/in.png": b"own", "own.png": b"own"}
    with pytest.raises(OSError, match="links to a path outside"):
        place.read(Entry("folder/secret.png"), 100)


def test_an_empty_or_missing_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidSourceError, match=rf"{tmp_path} has no images: add portraits of the character"
    ):
        LocalFolder(tmp_path).entries()
    with pytest.raises(InvalidSourceError, match=r"nowhere is not a folder: create it"):
        source("nowhere", tmp_path).entries()


def test_another_kind_of_address_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSourceError, match=r"'gs://bucket' is not supported: use a folder, a .zip"):
        source("gs://bucket", tmp_path)
    with pytest.raises(InvalidSourceError, match="has no bucket"):
        source("s3://", tmp_path)


def test_objects_under_a_prefix_are_listed_and_read(prefix: str, tmp_path: Path) -> None:
    place = source(prefix, tmp_path)
    first, empty, deep = place.entries()
    assert [first.name, empty.name, deep.name] == ["a.png", "empty.png", "more/b.png"]
    assert place.read(first, 100) == b"0123456789"
    assert place.read(first, 4) == b"01234"
    assert place.read(empty, 100) == b""
    assert place.read(deep, 100) == b"b"
    assert place.where == prefix


def test_an_object_that_has_gone_fails_as_a_file_would(prefix: str, tmp_path: Path) -> None:
    with pytest.raises(OSError):
        source(prefix, tmp_path).read(Entry("gone.png"), 100)


@pytest.mark.usefixtures("prefix")
@pytest.mark.parametrize("address", ["s3://portraits/nothing", "s3://no-such-bucket/her"])
def test_an_empty_prefix_or_bucket_is_an_error_that_names_it(tmp_path: Path, address: str) -> None:
    with pytest.raises(InvalidSourceError, match=address):
        source(address, tmp_path).entries()


def test_an_unreachable_server_is_an_error_that_says_what_to_check(
    prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("valentina_pipeline.integrations.sources.s3.ATTEMPTS", 2)
    with pytest.raises(InvalidSourceError, match="check AWS_ENDPOINT_URL"):
        source(prefix, tmp_path).entries()
