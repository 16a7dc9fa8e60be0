"""A package is whole, and may draw, at every request and not only when it is opened."""

import shutil
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner

from packages import ROOT
from stores import empty_store
from valentina_pipeline.cli.rights import revoke
from valentina_pipeline.domain import clock
from valentina_pipeline.integrations import ledgers
from valentina_pipeline.integrations.registry import Registry
from valentina_pipeline.serving.api.auth import ApiKeyAuth
from valentina_pipeline.serving.api.service import GenerationService
from valentina_pipeline.serving.inference.engine import InferenceEngine
from valentina_pipeline.serving.inference.package import (
    InvalidPackageError,
    PackageInfo,
    RightsUnknownError,
    read,
)
from valentina_pipeline.serving.inference.pyfunc import Model
from valentina_pipeline.serving.inference.request import GenerationRequest
from valentina_pipeline.serving.jobs.metrics import Metrics
from valentina_pipeline.serving.packages import open_package

ASKED = GenerationRequest(prompt="smiling", preset="draft")
NAME = "valentina_moreau"


class Desk:
    """Accepts what comes."""

    def __init__(self, about: PackageInfo) -> None:
        self.about = about
        self.jobs = SimpleNamespace(refuse_beyond=lambda *_: None)

    def submit(self, owner: str, order: object, images_per_day: int | None) -> Any:
        return type("Job", (), {"id": "accepted"})()


def server(about: PackageInfo, root: Path) -> GenerationService:
    return GenerationService({}, Desk(about), ApiKeyAuth({}), Metrics(), root=root)  # type: ignore[arg-type]


@pytest.fixture
def copy(package: Path, tmp_path: Path) -> Path:
    return shutil.copytree(package, tmp_path / "package")


@pytest.mark.parametrize(
    "name", ["evil.py", "lora/more.safetensors", "code/valentina_pipeline/__pycache__/evil.cpython-311.pyc"]
)
def test_a_file_that_was_not_published_is_refused(copy: Path, name: str) -> None:
    (copy / name).parent.mkdir(exist_ok=True)
    (copy / name).write_bytes(b"x")
    with pytest.raises(InvalidPackageError, match=f"SHA256SUMS does not list {name}"):
        read(copy)


def test_a_folder_that_is_linked_in_is_refused(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (copy / "more").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidPackageError, match="does not list more"):
        read(copy)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "is empty"),
        ("\n", "is empty"),
        ("{sha}  ../package/concept.json\n", "an invalid line"),
        ("{sha}  /etc/hostname\n", "an invalid line"),
        ("{sha} *concept.json\n", "an invalid line"),
        ("concept.json\n", "an invalid line"),
        ("{sha}  LICENSE\n{sha}  LICENSE\n", "an invalid line"),
    ],
)
def test_a_list_that_is_empty_or_leads_elsewhere_is_refused(copy: Path, line: str, said: str) -> None:
    (copy / "SHA256SUMS").write_text(line.format(sha="0" * 64))
    with pytest.raises(InvalidPackageError, match=said):
        read(copy)


def test_a_file_that_is_left_off_the_list_is_refused(copy: Path) -> None:
    kept = [line for line in (copy / "SHA256SUMS").read_text().splitlines(True) if "rights.json" not in line]
    (copy / "SHA256SUMS").write_text("".join(kept))
    with pytest.raises(InvalidPackageError, match=r"does not list rights\.json"):
        read(copy)


def test_what_python_and_mlflow_put_beside_is_no_fault(copy: Path) -> None:
    cached = copy / "code/valentina_pipeline/domain/__pycache__/rights.cpython-311.pyc"
    cached.parent.mkdir(exist_ok=True)
    cached.write_bytes(b"x")
    assert read(copy).records == ("valentina-moreau-2024",)


def test_rights_that_end_or_are_taken_back_end_the_next_request_of_whatever_draws(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    shutil.copytree(ROOT / ledgers.PLACE, project / ledgers.PLACE)
    ledger = project / ledgers.PLACE / NAME / "renderer.yml"
    ledger.write_text(ledger.read_text().replace("expires: null", "expires: 2030-01-31"))
    studio = InferenceEngine.open(copy, root=project)
    model, serving = Model(studio), server(studio.about, project)
    calls = (
        lambda: serving.submit("local", ASKED),
        lambda: studio.generate(ASKED),
        lambda: model.predict(pd.DataFrame({"prompt": ["smiling"], "preset": ["draft"]})),
        lambda: open_package(project, str(copy), None),
    )
    monkeypatch.setattr(clock, "today", lambda: date(2030, 1, 31))
    assert serving.submit("local", ASKED).id == "accepted"
    assert studio.generate(ASKED)[0].image is not None
    monkeypatch.setattr(clock, "today", lambda: date(2030, 2, 1))
    for call in calls:
        with pytest.raises(InvalidPackageError, match="record valentina-moreau-2024 expired on 2030-01-31"):
            call()
    monkeypatch.undo()
    ledgers.revoke(project / ledgers.PLACE, "valentina-moreau-2024", "her letter", date(2026, 6, 1))
    for call in calls:
        with pytest.raises(InvalidPackageError, match="was revoked: her letter"):
            call()
    ledger.write_text("- [")
    for call in calls:
        with pytest.raises(RightsUnknownError, match="is not valid YAML"):
            call()


def test_a_served_alias_refuses_after_the_revocation(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    empty_store(project, monkeypatch)
    shutil.copytree(ROOT / ledgers.PLACE, project / ledgers.PLACE)
    files = {file.relative_to(package).as_posix(): file for file in package.rglob("*") if file.is_file()}
    registry = Registry(project, NAME)
    registry.promote(registry.register(files, {"package_sha256": "p"}))
    elsewhere = server(open_package(project, f"models:/{NAME}@champion", None), tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project / 'mlflow.db'}")
    assert elsewhere.submit("local", ASKED).id == "accepted"
    arguments = ["valentina-moreau-2024", "--reason", "her letter"]
    done = CliRunner().invoke(revoke, arguments, obj=SimpleNamespace(project_path=project))
    assert done.exit_code == 0, done.output
    with pytest.raises(InvalidPackageError, match=r"was revoked \(valentina-moreau-2024: her letter\)"):
        elsewhere.submit("local", ASKED)
    with pytest.raises(ValueError, match="not found in the registry"):
        open_package(project, f"models:/{NAME}@champion", None)
    with pytest.raises(InvalidPackageError, match="her letter"):
        open_package(tmp_path, f"models:/{NAME}/1", None)
