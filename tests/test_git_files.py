"""Git keeps no portrait, whether DVC or a person ran the stages, and gives texts one line ending."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("file", "ignored"),
    [
        ("data/01_raw/ada/IMG_1.jpg", True),
        ("data/01_raw/ada/shoot/IMG_1.jpg", True),
        ("data/02_intermediate/ada/images/1.png", True),
        ("data/03_primary/ada/portraits/1.png", True),
        ("data/05_model_input/ada/theirs.safetensors", True),
        ("data/06_models/ada/lora/pytorch_lora_weights.safetensors", True),
        ("data/07_model_output/ada/images/1.png", True),
        ("data/08_reporting/ada/comparison_grid.png", True),
        ("conf/local/c2pa/c2pa-key.pem", True),
        ("data/04_feature/ada/captions.csv", False),
        ("data/08_reporting/ada/metrics.json", False),
        ("conf/base/rights/ada/all.yml", False),
    ],
)
def test_what_shows_a_person_is_ignored_and_captions_and_metrics_are_kept(file: str, ignored: bool) -> None:
    done = subprocess.run(["git", "check-ignore", "--quiet", "--no-index", file], cwd=ROOT, check=False)
    assert done.returncode == (0 if ignored else 1)


@pytest.mark.parametrize(
    "file", ["params.yaml", "a.py", "conf/base/concepts/ada.yml", "data/04_feature/a/captions.csv"]
)
def test_a_text_has_one_line_ending_in_every_checkout(file: str) -> None:
    command = ["git", "check-attr", "eol", "text", "--", file]
    said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert said.splitlines() == [f"{file}: eol: lf", f"{file}: text: auto"]
