"""A folder of pictures against a character's references."""

import csv
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result
from PIL import Image

import packages
import portraits
from valentina_pipeline.datasets.folders import OutputFolder
from valentina_pipeline.image.faces.canonical_crop import face_crop
from valentina_pipeline.image.faces.detection import detect_faces
from valentina_pipeline.image.faces.embedding import load_face_embedder
from valentina_pipeline.serving.cli.consistency import consistency


@pytest.fixture(scope="module")
def hers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package of the woman of `portraits`, two of whose pictures were held out."""
    place = tmp_path_factory.mktemp("hers")
    network = load_face_embedder("tiny", packages.ROOT / "tiny/weights/faces.safetensors")
    pictures = [portraits.picture(number) for number in range(6)]
    crops = [face_crop(one, detect_faces([one])[0][0], network.size) for one in pictures]
    faces = packages.manifest().assign(accepted=True, embedding=list(network.embed(crops)))
    OutputFolder(filepath=str(place / "package")).save(packages.built(place, faces=faces))
    return place / "package"


def compared(package: Path, folder: Path, *options: str) -> Result:
    command = [str(folder), "--package", str(package), "--output", str(folder / "report"), *options]
    return CliRunner().invoke(consistency, command, obj=SimpleNamespace(project_path=folder))


def test_strangers_missing_faces_and_broken_files_are_rows_and_the_worst_come_first(
    hers: Path, tmp_path: Path
) -> None:
    for number in (2, 3):
        portraits.picture(number).save(tmp_path / f"{number}.png")
    portraits.picture(4, woman=1).save(tmp_path / "another.webp", lossless=True)
    Image.new("RGB", (128, 128), "grey").save(tmp_path / "wall.jpg")
    (tmp_path / "cut.png").write_bytes((tmp_path / "2.png").read_bytes()[:500])
    done = compared(hers, tmp_path)
    assert done.exit_code == 1, done.output
    assert "2 of 5 show Valentina Moreau (identity at least 0.67)" in done.output
    with (tmp_path / "report/consistency.csv").open() as file:
        rows = list(csv.DictReader(file))
    verdicts = {row["file"]: row["verdict"] for row in rows}
    assert verdicts == {
        "2.png": "match",
        "3.png": "match",
        "another.webp": "no match",
        "wall.jpg": "no face",
        "cut.png": "unreadable",
    }
    assert [row["verdict"] for row in rows[-2:]] == ["match", "match"]
    with Image.open(tmp_path / "report/consistency.png") as sheet:
        assert sheet.width > 5 * 192


def test_all_hers_is_a_good_end_and_the_threshold_can_be_another(hers: Path, tmp_path: Path) -> None:
    portraits.picture(2).save(tmp_path / "one.png")
    assert compared(hers, tmp_path).exit_code == 0
    assert compared(hers, tmp_path, "--threshold", "0.999").exit_code == 1
    assert "has no images" in compared(hers, hers / "lora").output
