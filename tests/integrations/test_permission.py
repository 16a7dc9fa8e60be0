"""Who may draw, asked again and again: marks, dates, ledgers and the registry."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from given import ledger
from stores import empty_store
from valentina_pipeline.domain import clock
from valentina_pipeline.domain.rights import Terms
from valentina_pipeline.integrations import ledgers, mlflow
from valentina_pipeline.integrations.permission import PermissionUnknownError, obstacle
from valentina_pipeline.integrations.registry import Registry, download

TERMS = (Terms(id="shoot", uses=("training", "generation"), expires=date(2030, 1, 31)),)
RECORD = ledger("shoot")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with the ledgers of two concepts on one record, and a package."""
    for concept in ("ada", "bob"):
        (tmp_path / ledgers.PLACE / concept).mkdir(parents=True)
        (tmp_path / ledgers.PLACE / concept / "all.yml").write_text(RECORD)
    (tmp_path / "package").mkdir()
    return tmp_path


def asked(project: Path, terms: tuple[Terms, ...] = TERMS) -> str:
    return obstacle(project / "package", terms, project)


def test_a_day_that_passes_ends_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "today", lambda: date(2030, 1, 31))
    assert asked(project) == ""
    monkeypatch.setattr(clock, "today", lambda: date(2030, 2, 1))
    assert asked(project) == "cannot generate any more: record shoot expired on 2030-01-31"


@pytest.mark.parametrize("concept", ["ada", "bob"])
def test_a_ledger_of_any_concept_ends_it_at_once(project: Path, concept: str) -> None:
    file = project / ledgers.PLACE / concept / "all.yml"
    assert asked(project) == ""
    file.write_text(RECORD + "  expires: 2020-01-01\n")
    assert "record shoot expired on 2020-01-01" in asked(project)
    file.write_text(RECORD.replace(", generation", ""))
    assert asked(project) == "cannot generate: record shoot does not allow generation"
    file.write_text(RECORD + "  revoked: 2026-06-01\n  revocation: asked\n")
    assert asked(project).endswith("record shoot was revoked: asked")
    file.write_text("- [")
    with pytest.raises(PermissionUnknownError, match="is not valid YAML"):
        asked(project)


@pytest.mark.parametrize(("content", "said"), [('{"revoked": "letter"}', "letter"), ("", "gives no reason")])
def test_a_mark_ends_it_whatever_is_in_it(project: Path, content: str, said: str) -> None:
    (project / "package/REVOKED.json").write_text(content)
    assert said in asked(project)
    (project / "package/REVOKED.json").unlink()
    (project / "package/REVOKED.json").symlink_to("nowhere")
    assert "gives no reason" in asked(project)


def test_without_a_record_nothing_is_drawn(project: Path) -> None:
    assert asked(project, ()) == "cannot generate: no rights record covers it"


def test_without_a_project_the_working_directory_is_asked(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledgers.revoke(project / ledgers.PLACE, "shoot", "asked", date(2026, 6, 1))
    monkeypatch.chdir(project)
    assert "was revoked: asked" in obstacle(project / "package", TERMS, None)
    monkeypatch.chdir("/")
    assert obstacle(project / "package", TERMS, None) == ""


def test_a_version_that_is_revoked_ends_its_copies(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client: Any = empty_store(project, monkeypatch)
    registry = Registry(project, "ada")
    first = registry.register({"MLmodel": b"x: 1\n"}, {"package_sha256": "p"})
    registry.promote(first)
    (tmp_path / "there").mkdir()
    copy = download(project, "models:/ada@champion", tmp_path / "there")
    assert obstacle(copy, TERMS, project) == ""
    assert registry.revoke("1", "shoot: asked") == ("champion",)
    assert "was revoked (shoot: asked)" in obstacle(copy, TERMS, project)
    assert registry.revoke("1", "again") == ()
    assert client.get_model_version("ada", "1").tags["revoked"] == "shoot: asked"
    registry.promote(first)
    assert registry.champion() is None
    client.delete_model_version("ada", "1")
    assert "version 1 of ada was deleted from the registry" in obstacle(copy, TERMS, project)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(PermissionUnknownError, match="the registry does not respond"):
        obstacle(copy, TERMS, project)
    mlflow.forget()
