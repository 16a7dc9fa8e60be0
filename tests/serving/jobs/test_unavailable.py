"""The API where its database is locked: it says so and what to do, and goes on by itself."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from starlette.testclient import WebSocketDenialResponse

import drawing
from valentina_pipeline.serving.api.app import create_app
from valentina_pipeline.serving.api.auth import ApiKeyAuth
from valentina_pipeline.serving.api.service import GenerationService
from valentina_pipeline.serving.jobs import database
from valentina_pipeline.serving.jobs.database import sqlite
from valentina_pipeline.serving.jobs.store import JobStore


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold a database so that nobody can even read it."""
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        db.execute("PRAGMA locking_mode=EXCLUSIVE")
        db.execute("PRAGMA journal_mode=DELETE")
        db.execute("BEGIN EXCLUSIVE")
        yield


def test_a_locked_database_is_a_503_from_every_call_and_costs_nothing(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "LOCK_SECONDS", 0)
    desk = drawing.desk(JobStore(sqlite(tmp_path)), package, tmp_path)
    desk.ready = "nowhere"
    api = TestClient(
        create_app(GenerationService({}, desk, ApiKeyAuth({}), desk._metrics)), "http://localhost"
    )
    asked = {"prompt": "at sea"}
    job = api.post("/v1/generations", json=asked).json()["id"]
    desk.jobs.close()
    with locked(tmp_path / "jobs.sqlite"):
        answers = [
            api.post("/v1/generations", json=asked),
            api.post("/v1/images/generations", json=asked),
            api.post("/sdapi/v1/txt2img", json=asked),
            *(api.get(f"/v1/jobs{path}") for path in ("", f"/{job}", f"/{job}/images/1.png")),
            api.delete(f"/v1/jobs/{job}"),
        ]
        with (
            pytest.raises(WebSocketDenialResponse) as refused,
            api.websocket_connect(f"ws://localhost/v1/jobs/{job}/ws"),
        ):
            pass
        answers.append(refused.value)
        assert api.get("/metrics").status_code == api.get("/healthz").status_code == 200
    for answer in answers:
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        said = answer.json()["error"]["message"]
        assert "another program holds its lock: stop that program, or wait" in said
    assert [each["id"] for each in api.get("/v1/jobs").json()] == [job]
    desk.jobs.close()


def test_trouble_with_the_disk_is_a_503_until_it_is_over(package: Path, tmp_path: Path) -> None:
    desk = drawing.desk(JobStore(sqlite(tmp_path)), package, tmp_path)
    desk.ready = "nowhere"
    api = TestClient(
        create_app(GenerationService({}, desk, ApiKeyAuth({}), desk._metrics)), "http://localhost"
    )
    desk.trouble = "images cannot be written"
    assert api.post("/v1/generations", json={"prompt": "at sea"}).status_code == 503
    assert api.get("/readyz").json() == {"status": "not ready", "reason": "images cannot be written"}
    desk.trouble = ""
    assert api.get("/readyz").status_code == 200
    assert api.post("/v1/generations", json={"prompt": "at sea"}).status_code == 202
    desk.jobs.close()
