"""`kedro deliver`: the same package elsewhere, and a LoRA repository as the hub and diffusers read it."""

import json
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE

import packages
from valentina_pipeline.cli import cli
from valentina_pipeline.datasets.folders import OutputFolder
from valentina_pipeline.release.checksums import checked_files
from valentina_pipeline.release.hub_layout import hub_files

BUCKET = "deliveries"


def saved(folder: Path, **changes: Any) -> Path:
    OutputFolder(filepath=str(folder)).save(packages.built(folder.parent, **changes))
    return folder


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("delivered") / "package")


def deliver(package: Path, destination: str | Path, *options: str | Path) -> Result:
    command = ["deliver", str(destination), "--package", str(package), *map(str, options)]
    return CliRunner().invoke(cli, command, obj=SimpleNamespace(project_path=package.parent))


def test_a_folder_receives_the_package(package: Path, tmp_path: Path) -> None:
    done = deliver(package, tmp_path / "copy")
    assert done.exit_code == 0, done.output
    assert {n: f.read_bytes() for n, f in checked_files(tmp_path / "copy").items()} == {
        n: f.read_bytes() for n, f in checked_files(package).items()
    }
    assert "exists already" in deliver(package, tmp_path / "copy").output


def test_a_damaged_package_is_not_delivered(package: Path, tmp_path: Path) -> None:
    assert deliver(package, tmp_path / "copy").exit_code == 0
    (tmp_path / "copy/LICENSE").write_text("mine")
    assert "LICENSE was changed" in deliver(tmp_path / "copy", tmp_path / "other").output
    assert not (tmp_path / "other").exists()


def test_a_prefix_of_s3_receives_the_package_in_place_of_the_former(package: Path, s3: Any) -> None:
    s3.create_bucket(Bucket=BUCKET)
    former = {"SHA256SUMS": b"0  lora/old.safetensors\n", "lora/old.safetensors": b"", "notes.txt": b"mine"}
    for name, content in former.items():
        s3.put_object(Bucket=BUCKET, Key=f"ada/{name}", Body=content)
    done = deliver(package, f"s3://{BUCKET}/ada")
    assert done.exit_code == 0, done.output
    found = [each["Key"] for each in s3.list_objects_v2(Bucket=BUCKET, Prefix="ada/")["Contents"]]
    assert set(found) == {f"ada/{name}" for name in [*checked_files(package), "notes.txt"]}
    body = s3.get_object(Bucket=BUCKET, Key="ada/lora/pytorch_lora_weights.safetensors")["Body"]
    assert body.read() == (package / "lora/pytorch_lora_weights.safetensors").read_bytes()
    assert "cannot be written" in deliver(package, "s3://no-such-bucket/ada").output


def test_the_hub_receives_the_lora_and_its_card_without_base_and_code(package: Path, tmp_path: Path) -> None:
    done = deliver(package, "hf://acme/ada-lora", "--dry-run", tmp_path / "dry")
    assert done.exit_code == 0, done.output
    lora = [file.name for file in (package / "lora").iterdir()]
    assert LORA_WEIGHT_NAME_SAFE in lora
    names = {file.name for file in (tmp_path / "dry").iterdir()}
    assert names == {"README.md", "LICENSE", "comparison_grid.png", *lora}
    _, fields, text = (tmp_path / "dry/README.md").read_text("utf-8").split("---\n", 2)
    about = yaml.safe_load(fields)
    assert about["instance_prompt"] == "valentina_moreau" and "base_model" not in about  # a path is no id
    assert {"lora", "diffusers", "text-to-image"} <= set(about["tags"])
    assert about["license_link"] == "LICENSE"
    assert 'pipe.load_lora_weights("acme/ada-lora")' in text and "Intended use:" in text
    assert "kedro generate" not in text and "## Limits" in text and "## Metrics" in text


def test_a_base_of_the_hub_is_named_on_the_card(tmp_path: Path) -> None:
    folder = saved(tmp_path / "package")
    card = (folder / "MODEL_CARD.md").read_text("utf-8").splitlines(keepends=True)
    card = ["base_model: stabilityai/sdxl-turbo\n" if "base_model:" in line else line for line in card]
    (tmp_path / "MODEL_CARD.md").write_text("".join(card), "utf-8")
    files = hub_files({**checked_files(folder), "MODEL_CARD.md": tmp_path / "MODEL_CARD.md"}, "acme/ada")
    assert b"base_model: stabilityai/sdxl-turbo\n" in bytes(files["README.md"])  # type: ignore[arg-type]


def test_s3_and_the_hub_need_the_right_of_publication(tmp_path: Path) -> None:
    (record,) = packages.rights()
    ours = record.model_copy(update={"uses": ("training", "generation"), "expires": date(2100, 1, 1)})
    folder = saved(tmp_path / "package", rights=(ours,))
    for destination in ("s3://bucket/ada", "hf://acme/ada"):
        said = deliver(folder, destination, "--dry-run", tmp_path / "dry").output
        assert "cannot be published: rights for another purpose" in said
    assert not (tmp_path / "dry").exists()
    assert deliver(folder, tmp_path / "copy").exit_code == 0
    assert json.loads((tmp_path / "copy/rights.json").read_text())["records"][0]["uses"] == list(ours.uses)
