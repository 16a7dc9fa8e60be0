"""`kedro revoke` and `kedro lineage`: complete without DVC's cache, and as often as they are called."""

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from click.testing import CliRunner, Result

from given import ledger
from stores import empty_store
from valentina_pipeline.cli.rights import lineage, revoke
from valentina_pipeline.integrations import ledgers
from valentina_pipeline.integrations.registry import Registry

COMMITS = 40


def rights(record: str) -> bytes:
    about = {"records": [{"id": record}], "images": [f"{'ab' * 32}  {record}  train"]}
    return json.dumps(about).encode()


def lock(number: int) -> str:
    outs = {
        "ingest@ada": ("data/02_intermediate/ada/manifest.parquet", f"{number:032x}"),
        "train_lora@ada": ("data/06_models/ada/training_images.parquet", f"{number + 100:032x}"),
        "publish@ada": ("data/06_models/ada/package", f"{'c' * 32}.dir"),
    }
    return yaml.safe_dump(
        {"stages": {name: {"outs": [{"path": path, "md5": md5}]} for name, (path, md5) in outs.items()}}
    )


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two concepts on one record and one on another, in git with 40 commits, without DVC's cache."""
    store = tmp_path / "project"
    empty_store(store, monkeypatch)
    for concept, record in (("ada", "shoot"), ("bob", "shoot"), ("eve", "other")):
        (store / ledgers.PLACE / concept).mkdir(parents=True)
        (store / ledgers.PLACE / concept / "all.yml").write_text(ledger(record))
        package = store / f"data/06_models/{concept}/package"
        package.mkdir(parents=True)
        (package / "rights.json").write_bytes(rights(record))
        registry = Registry(store, concept)
        files = {"MLmodel": b"x: 1\n", "rights.json": rights(record)}
        registry.promote(registry.register(files, {"package_sha256": concept, "content_hash": "f" * 64}))
    git = ["git", "-c", "user.name=Test", "-c", "user.email=test@example.com", "-c", "gc.auto=0"]
    subprocess.run([*git, "init", "--quiet"], cwd=store, check=True)
    for number in range(COMMITS):
        (store / "dvc.lock").write_text(lock(number))
        subprocess.run([*git, "add", "dvc.lock"], cwd=store, check=True)
        subprocess.run([*git, "commit", "--quiet", "--message", str(number)], cwd=store, check=True)
    return store


def called(command: object, project: Path, *arguments: str) -> Result:
    return CliRunner().invoke(command, arguments, obj=SimpleNamespace(project_path=project))  # type: ignore[arg-type]


def test_a_record_of_two_concepts_is_revoked_wherever_it_is_and_again(project: Path) -> None:
    done = called(revoke, project, "shoot", "--reason", "letter of 1 June")
    assert done.exit_code == 0, done.output
    assert "Images generated before remain" in done.output
    for concept in ("ada", "bob"):
        assert f"data/06_models/{concept}/package is marked" in done.output
        assert f"{concept} version 1 is marked and no longer champion" in done.output
        assert f"{ledgers.PLACE}/{concept}/all.yml changed" in done.output
        mark = json.loads((project / f"data/06_models/{concept}/package/REVOKED.json").read_text())
        assert mark == {"revoked": "shoot: letter of 1 June"}
        (record,) = ledgers.read(project / ledgers.PLACE / concept)
        assert record.revocation == "letter of 1 June"
        found = Registry(project, concept).find(package_sha256=concept)
        assert found is not None and found.tags["revoked"] == "shoot: letter of 1 June"
    assert not (project / "data/06_models/eve/package/REVOKED.json").exists()
    assert Registry(project, "eve").champion() is not None
    (project / "data/06_models/bob/package/REVOKED.json").unlink()  # as `dvc checkout` does
    again = called(revoke, project, "shoot", "--reason", "another")
    assert again.exit_code == 0, again.output
    assert "shoot was revoked before (letter of 1 June)" in again.output
    mark = json.loads((project / "data/06_models/bob/package/REVOKED.json").read_text())
    assert mark == {"revoked": "shoot: letter of 1 June"}


def test_lineage_finds_packages_and_versions_without_a_cache_and_says_what_it_could_not_search(
    project: Path,
) -> None:
    for query in ("shoot", "ab" * 8):
        told = called(lineage, project, query).output
        assert "package\tdata/06_models/ada/package" in told
        assert "version\tada 1 champion\tffffffffffff" in told
        assert told.count("not searched") == 2 * COMMITS
    assert "no use of nobody was found" in called(lineage, project, "nobody").output


def test_what_cannot_be_marked_is_an_error_after_what_can(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    done = called(revoke, project, "shoot", "--reason", "letter")
    assert done.exit_code == 1
    assert "the ledger is marked, but not everything else" in done.output
    assert (project / "data/06_models/ada/package/REVOKED.json").is_file()
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert called(revoke, project, "shoot", "--reason", "letter").exit_code == 0
    assert Registry(project, "ada").champion() is None


def test_a_record_that_no_ledger_has_is_an_error(project: Path) -> None:
    done = called(revoke, project, "nobody", "--reason", "letter")
    assert done.exit_code == 1 and "record 'nobody' not found" in done.output
