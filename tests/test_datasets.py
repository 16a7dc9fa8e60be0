"""Datasets: the same content gives the same bytes, and a failed save leaves what was there."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from kedro.io import DatasetError
from PIL import Image

from valentina_pipeline.datasets.captions import ReviewedCsv
from valentina_pipeline.datasets.folders import OutputFolder, SourceFolder
from valentina_pipeline.datasets.images import ImageFile, ImageFolder
from valentina_pipeline.datasets.json_file import JsonFile
from valentina_pipeline.datasets.text_file import TextFile
from valentina_pipeline.image.io import png


def picture(value: int = 0) -> Image.Image:
    return Image.new("RGB", (4, 3), (value, 10, 20))


def bytes_under(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


TABLE = pd.DataFrame({"sha256": ["a" * 64], "source_name": ["a.png"], "machine": ["photo"]})
SAVED: dict[str, object] = {
    "captions.ReviewedCsv": TABLE,
    "folders.OutputFolder": {"file": b"new"},
    "images.ImageFile": picture(1),
    "images.ImageFolder": {"file": picture(1)},
    "json_file.JsonFile": {"a": 1},
    "tables.Csv": TABLE,
    "tables.ParquetFile": TABLE,
    "tables.PlotCsv": TABLE,
    "text_file.TextFile": "new",
}
READ_ONLY = {"yaml.YAMLDataset", "folders.SourceFolder", "rights.RightsLedgers"}


def test_every_kind_of_dataset_is_tried_below(root: Path) -> None:
    catalog = yaml.safe_load((root / "conf/base/catalog.yml").read_text())
    kinds = {
        each["type"].removeprefix("valentina_pipeline.datasets.")
        for each in catalog.values()
        if "type" in each
    }
    assert kinds == READ_ONLY | SAVED.keys()


@pytest.mark.parametrize("link", [os.link, os.symlink])
@pytest.mark.parametrize("kind", SAVED)
def test_nothing_is_written_through_a_link_into_dvc_s_cache(kind: str, link: Any, tmp_path: Path) -> None:
    place = tmp_path / "out"
    made = resolve_name(f"valentina_pipeline.datasets.{kind.replace('.', ':')}")
    dataset = made(filepath=str(place))
    dataset.save(SAVED[kind])
    written = [place] if place.is_file() else [file for file in place.rglob("*") if file.is_file()]
    content = {file: file.read_bytes() for file in written}
    (tmp_path / "cache").mkdir()
    for number, file in enumerate(written):
        kept = tmp_path / "cache" / str(number)
        kept.write_bytes(file.read_bytes())
        file.unlink()
        link(kept, file)
    kept_by = {file: file.stat().st_ino for file in (tmp_path / "cache").iterdir()}
    dataset.save(SAVED[kind])
    assert not {file.stat().st_ino for file in written} & set(kept_by.values())
    assert {file: file.read_bytes() for file in written} == content
    assert not any(file.is_symlink() for file in written)


class TestSourceFolder:
    def test_it_loads_its_path_and_is_never_written(self, tmp_path: Path) -> None:
        assert SourceFolder(filepath=str(tmp_path)).load() == tmp_path
        with pytest.raises(DatasetError, match="read-only source dataset"):
            SourceFolder(filepath=str(tmp_path)).save(tmp_path)

    def test_a_missing_folder_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match="nowhere is not a folder"):
            SourceFolder(filepath=str(tmp_path / "nowhere")).load()


class TestImageFolder:
    def test_it_gives_back_pictures_by_sorted_name(self, tmp_path: Path) -> None:
        dataset = ImageFolder(filepath=str(tmp_path / "images"))
        dataset.save([("lora/0002", picture(2)), ("bare", picture(1)), ("lora/0001", picture(3))])
        loaded = dataset.load()
        assert list(loaded) == ["bare", "lora/0001", "lora/0002"]
        assert loaded["lora/0001"].getpixel((0, 0)) == (3, 10, 20)
        assert loaded.path("bare") == tmp_path / "images" / "bare.png"

    def test_pictures_are_opened_only_when_asked_for_as_rgb(self, tmp_path: Path) -> None:
        dataset = ImageFolder(filepath=str(tmp_path / "images"))
        dataset.save({"grey": Image.new("L", (2, 2), 7)})
        loaded = dataset.load()
        (tmp_path / "images/broken.png").write_bytes(png.encode(picture())[:40])
        assert loaded["grey"].mode == "RGB"
        with pytest.raises(DatasetError, match=r"broken\.png cannot be read"):
            dataset.load()["broken"]

    def test_marks_travel_with_the_picture(self, tmp_path: Path) -> None:
        dataset = ImageFolder(filepath=str(tmp_path / "images"))
        marked = picture()
        marked.info["text"] = {"synthetic": "true", "prompt": "a café — 日本", png.XMP_KEY: "<x:xmpmeta/>"}
        dataset.save({"marked": marked})
        assert dataset.load()["marked"].info["text"] == marked.info["text"]
        first = bytes_under(tmp_path / "images")
        dataset.save(dict(dataset.load()))
        assert bytes_under(tmp_path / "images") == first

    def test_bytes_are_stored_as_they_are(self, tmp_path: Path) -> None:
        content = png.encode(picture(9))
        ImageFolder(filepath=str(tmp_path / "images")).save({"a": content})
        assert bytes_under(tmp_path / "images") == {"a.png": content}

    def test_saving_replaces_all_that_was_there(self, tmp_path: Path) -> None:
        dataset = ImageFolder(filepath=str(tmp_path / "images"))
        dataset.save({"old": picture()})
        dataset.save({"new": picture()})
        assert list(dataset.load()) == ["new"]
        assert [path.name for path in tmp_path.iterdir()] == ["images"]

    def test_a_stage_that_fails_midway_leaves_the_former_pictures(self, tmp_path: Path) -> None:
        def failing() -> Iterator[tuple[str, Image.Image]]:
            yield "new", picture()
            raise RuntimeError("out of memory")

        dataset = ImageFolder(filepath=str(tmp_path / "images"))
        dataset.save({"old": picture()})
        with pytest.raises(DatasetError, match="out of memory"):
            dataset.save(failing())
        assert list(dataset.load()) == ["old"]
        assert [path.name for path in tmp_path.iterdir()] == ["images"]

    @pytest.mark.parametrize("name", ["../a", "/a", "a/b/c", "", ".hidden", "a//b", "a\\b", "a b"])
    def test_a_name_that_leaves_the_folder_is_refused(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(DatasetError, match="is not a valid name for an image"):
            ImageFolder(filepath=str(tmp_path / "images")).save({name: picture()})

    def test_one_name_twice_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match="are named 'a'"):
            ImageFolder(filepath=str(tmp_path / "images")).save([("a", picture()), ("a", picture(1))])

    def test_an_unknown_name_is_a_key_error(self, tmp_path: Path) -> None:
        dataset = ImageFolder(filepath=str(tmp_path / "images"))
        dataset.save({})
        assert len(dataset.load()) == 0
        with pytest.raises(KeyError):
            dataset.load()["../secret"]


class TestFiles:
    def test_an_image_file_gives_back_the_picture(self, tmp_path: Path) -> None:
        dataset = ImageFile(filepath=str(tmp_path / "new" / "grid.png"))
        dataset.save(picture(5))
        assert dataset.load().getpixel((1, 1)) == (5, 10, 20)

    def test_a_text_file_keeps_every_character(self, tmp_path: Path) -> None:
        dataset = TextFile(filepath=str(tmp_path / "report.html"))
        dataset.save("first\r\nsécond\n")
        assert dataset.load() == "first\r\nsécond\n"

    def test_json_is_sorted_rounded_and_ends_with_a_newline(self, tmp_path: Path) -> None:
        path = tmp_path / "metrics.json"
        values = {"b": np.float32(0.1), "a": {"y": [1 / 3, -1e-9], "x": True}, "n": np.int64(3)}
        JsonFile(filepath=str(path)).save(values)
        text = path.read_text()
        assert text.endswith("}\n")
        assert list(json.loads(text)) == ["a", "b", "n"]
        assert json.loads(text) == {"a": {"x": True, "y": [0.333333, 0.0]}, "b": 0.1, "n": 3}
        assert JsonFile(filepath=str(path)).load() == json.loads(text)

    def test_a_number_that_is_not_finite_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match=r"metrics\.json: identity: gain is nan"):
            JsonFile(filepath=str(tmp_path / "metrics.json")).save({"identity": {"gain": float("nan")}})

    def test_a_missing_file_says_what_to_do(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match="run the stage that writes it"):
            JsonFile(filepath=str(tmp_path / "none.json")).load()


class TestOutputFolder:
    def test_it_holds_contents_and_copies_of_files(self, tmp_path: Path) -> None:
        source = tmp_path / "source"
        source.write_bytes(b"copied")
        dataset = OutputFolder(filepath=str(tmp_path / "package"))
        dataset.save({"a/b.txt": b"made", "c.bin": source})
        assert bytes_under(dataset.load()) == {"a/b.txt": b"made", "c.bin": b"copied"}

    @pytest.mark.parametrize("name", ["../a", "/etc/passwd", "", "a/../../b", "a\\..\\b", "./a"])
    def test_a_path_that_leaves_the_folder_is_refused(self, tmp_path: Path, name: str) -> None:
        dataset = OutputFolder(filepath=str(tmp_path / "package"))
        with pytest.raises(DatasetError, match="is not a plain relative path"):
            dataset.save({name: b""})
        assert list(tmp_path.iterdir()) == []


class TestReviewedCsv:
    @pytest.fixture
    def captions(self, tmp_path: Path) -> ReviewedCsv:
        return ReviewedCsv(filepath=str(tmp_path / "captions.csv"))

    @staticmethod
    def machine(**captions: str) -> pd.DataFrame:
        names = [f"{name}.png" for name in captions]
        said = {"sha256": list(captions), "source_name": names, "machine": list(captions.values())}
        return pd.DataFrame(said)

    @staticmethod
    def edit(captions: ReviewedCsv, sha256: str, text: str, column: str = "human") -> None:
        path = Path(captions._describe()["filepath"])
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        table.loc[table["sha256"] == sha256, column] = text
        table.to_csv(path, index=False)

    def test_without_an_edit_the_machine_speaks(self, captions: ReviewedCsv) -> None:
        captions.save(self.machine(a="one, two", b="NA"))
        assert captions.load().to_dict("list") == {
            "sha256": ["a", "b"],
            "caption": ["one, two", "NA"],
            "rejected": [False, False],
        }

    def test_an_edit_wins_and_survives_new_machine_captions(self, captions: ReviewedCsv) -> None:
        captions.save(self.machine(a="one", b="two"))
        self.edit(captions, "b", "a person's words")
        captions.save(self.machine(b="other", a="words"))
        assert captions.load()[["sha256", "caption"]].to_dict("list") == {
            "sha256": ["b", "a"],
            "caption": ["a person's words", "words"],
        }

    def test_a_verdict_survives_too_and_only_rejected_counts(self, captions: ReviewedCsv) -> None:
        captions.save(self.machine(a="one", b="two"))
        self.edit(captions, "a", "rejected", "verdict")
        self.edit(captions, "b", "accepted", "verdict")
        captions.save(self.machine(a="other", b="two"))
        assert captions.load()["rejected"].tolist() == [True, False]
        self.edit(captions, "b", "perhaps", "verdict")
        with pytest.raises(DatasetError, match="invalid verdict 'perhaps'"):
            captions.load()

    def test_an_image_that_changed_under_its_edit_is_said(
        self, captions: ReviewedCsv, caplog: pytest.LogCaptureFixture
    ) -> None:
        captions.save(self.machine(a="one"))
        self.edit(captions, "a", "mine")
        captions.save(self.machine(new="other").assign(source_name="a.png"))
        assert "image new replaced a, whose caption was edited" in caplog.text

    def test_an_edit_outlives_its_image_and_an_unedited_row_does_not(self, captions: ReviewedCsv) -> None:
        captions.save(self.machine(a="one", b="two"))
        self.edit(captions, "a", "kept")
        captions.save(self.machine(c="three"))
        assert list(captions.load()["sha256"]) == ["c", "a"]
        captions.save(self.machine(a="back"))
        assert captions.load()["caption"].tolist() == ["kept"]

    def test_saving_again_gives_the_same_bytes(self, captions: ReviewedCsv) -> None:
        captions.save(self.machine(a="one", b="two"))
        self.edit(captions, "a", "kept")
        path = Path(captions._describe()["filepath"])
        before = path.read_bytes()
        captions.save(self.machine(a="one", b="two"))
        assert path.read_bytes() == before

    def test_a_spreadsheets_mark_at_the_start_is_no_column(self, captions: ReviewedCsv) -> None:
        path = Path(captions._describe()["filepath"])
        path.write_bytes("\ufeffsha256,machine,human\na,one,\n".encode())
        assert list(captions.load()["caption"]) == ["one"]

    def test_a_column_that_would_be_lost_is_refused(self, captions: ReviewedCsv) -> None:
        Path(captions._describe()["filepath"]).write_text("sha256,machine,human,note\na,one,,remember\n")
        with pytest.raises(DatasetError, match="allowed are sha256, source_name, machine, human"):
            captions.save(self.machine(a="one"))

    def test_two_rows_for_one_image_are_refused(self, captions: ReviewedCsv) -> None:
        Path(captions._describe()["filepath"]).write_text("sha256,machine,human\na,one,\na,one,mine\n")
        with pytest.raises(DatasetError, match="two rows for a"):
            captions.load()
