"""What a stranger may cost the API, in which order it is looked at, and what a picture may cost."""

import base64
import functools
import io
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from fastapi import HTTPException
from PIL import Image
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from given import dunes, pictured
from valentina_pipeline.integrations.bounded import configure
from valentina_pipeline.serving.api import routes
from valentina_pipeline.serving.api.app import create_app
from valentina_pipeline.serving.api.auth import ApiKeyAuth, Key, create_key
from valentina_pipeline.serving.api.service import GenerationService
from valentina_pipeline.serving.inference.control_models import Network
from valentina_pipeline.serving.inference.input_images import Given, UnsuitableImageError, fit
from valentina_pipeline.serving.inference.package import read
from valentina_pipeline.serving.inference.prompt_notation import InvalidRequestError
from valentina_pipeline.serving.jobs.database import sqlite
from valentina_pipeline.serving.jobs.decoders import Decoders
from valentina_pipeline.serving.jobs.dispatcher import Dispatcher
from valentina_pipeline.serving.jobs.metrics import Metrics
from valentina_pipeline.serving.jobs.store import JobStore
from valentina_pipeline.serving.jobs.worker import WorkerConfig
from waiting import until

pytestmark = pytest.mark.slow


class Asleep(Dispatcher):
    """Accepts jobs and never draws: what comes before is what is tried."""

    def start(self) -> None:
        self.ready = "nowhere"

    def stop(self, seconds: float = 30.0) -> None:
        pass


class Kept:
    """A server on a real socket, its key, and what is behind it."""

    def __init__(self, package: Path, state: Path) -> None:
        self.key, lines = create_key("ada")
        keys = {"ada": Key(sha256=lines.split("sha256: ")[1].split()[0], images_per_day=30)}
        metrics, controls = Metrics(), {"canny": Network(folder=package, license="x")}
        desk = Asleep(
            JobStore(sqlite(state), 8), read(package), WorkerConfig(package, state), state / "images", metrics
        )
        self.server = GenerationService({}, desk, ApiKeyAuth(keys), metrics, controls=controls)
        bound = socket.create_server(("127.0.0.1", 0))
        self.port = bound.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.uvicorn = uvicorn.Server(configure(create_app(self.server)))
        self.thread = threading.Thread(target=self.uvicorn.run, kwargs={"sockets": [bound]})
        self.thread.start()
        self.http = httpx.Client(base_url=self.url, headers={"x-api-key": self.key}, timeout=60)

    def posted(self, **fields: Any) -> httpx.Response:
        return self.http.post("/v1/generations", json={"prompt": "smiling", "preset": "draft", **fields})


@pytest.fixture(scope="module")
def kept(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    made = Kept(package, tmp_path_factory.mktemp("kept"))
    until(lambda: made.uvicorn.started)
    yield made
    made.http.close()
    made.uvicorn.should_exit = True
    made.thread.join(30)


def _bomb(side: int) -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((side, side), np.uint16)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def test_a_stranger_s_body_is_not_read(kept: Kept) -> None:
    headers = "host: x\r\ncontent-type: application/json\r\ncontent-length: 9000000\r\n\r\n"
    head = f"POST /v1/generations HTTP/1.1\r\n{headers}"
    with socket.create_connection(("127.0.0.1", kept.port), timeout=10) as line:
        line.sendall(head.encode() + b'{"prompt": "')
        begun = time.monotonic()
        answer = line.recv(4096)
    assert answer.startswith(b"HTTP/1.1 401") and b"an API key is required" in answer
    assert time.monotonic() - begun < 5


def test_small_pictures_that_become_large_ones_are_refused_before_any_is_decoded(kept: Kept) -> None:
    bomb = _bomb(4096)
    begun = time.process_time()
    controls = [{"kind": "canny", "image": bomb}] * 4
    answer = kept.posted(image=bomb, mask=bomb, controls=controls)
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert "have 100,663,296 pixels together: must be at most 33,554,432" in error["message"]
    assert time.process_time() - begun < 1


def test_quota_and_a_full_queue_are_looked_at_before_pictures(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*given: Any) -> Any:
        raise AssertionError("a picture was read")

    monkeypatch.setattr(kept.server.decoders, "run", never)
    over = kept.posted(image=pictured(dunes()), num_images=31)
    assert (over.status_code, over.headers["retry-after"]) == (429, "3600")
    monkeypatch.setattr(kept.server.desk.jobs, "_most", 0)
    full = kept.posted(image=pictured(dunes()))
    assert (full.status_code, full.json()["error"]["message"]) == (429, "the queue is full")


def test_pictures_are_drawn_with_as_before_and_what_they_lack_is_said(kept: Kept) -> None:
    accepted = kept.posted(image=pictured(dunes()), mask=pictured(dunes().convert("L")))
    assert accepted.status_code == 202
    job = kept.server.desk.jobs.get(accepted.json()["id"])
    assert job is not None and job.order.settings.inputs.mask
    for field, answer in (
        ("image", kept.posted(image="bm8=")),
        ("controls.0.image", kept.posted(controls=[{"kind": "canny", "image": "bm8="}])),
        ("mask", kept.posted(image=pictured(dunes()), mask=pictured(Image.new("L", (80, 80))))),
    ):
        assert (answer.status_code, answer.json()["error"]["param"]) == (422, field)


def _die(*given: Any) -> None:
    os._exit(9)


def _hoard(*given: Any) -> int:
    return len(bytearray(8 << 30))


def test_what_reads_pictures_may_die_and_is_there_again(monkeypatch: pytest.MonkeyPatch) -> None:
    decoders = Decoders()
    try:
        for work in (_die, _hoard):
            with pytest.raises(InvalidRequestError, match="image: decoding took too much memory or crashed"):
                decoders.run("ada", "image", work)
        monkeypatch.setattr("valentina_pipeline.serving.jobs.decoders.TIMEOUT_SECONDS", 0.5)
        with pytest.raises(InvalidRequestError, match="image: decoding took longer than"):
            decoders.run("ada", "image", time.sleep, 60)
        monkeypatch.undo()
        with pytest.raises(UnsuitableImageError, match="image"):
            decoders.run("ada", "image", fit, [Given("image", b"no")], (64, 64))
        given = [Given("image", base64.b64decode(pictured(dunes())))]
        assert decoders.run("ada", "image", fit, given, (64, 64)) == fit(given, (64, 64))
    finally:
        decoders.close()


def test_one_owner_s_pictures_leave_room_for_others() -> None:
    decoders = Decoders()
    try:
        slow = functools.partial(decoders.run, "ada", "image", time.sleep, 3)
        waiting = [threading.Thread(target=slow) for _ in range(4)]
        for each in waiting:
            each.start()
        time.sleep(0.5)
        with pytest.raises(HTTPException) as crowded:
            slow()
        assert crowded.value.status_code == 429
        assert decoders.run("bob", "image", len, b"abc") == 3
        for each in waiting:
            each.join()
    finally:
        decoders.close()


def test_who_hangs_up_is_forgotten_and_streams_of_one_key_are_bounded(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = kept.posted().json()["id"]  # it waits for good
    url, key = f"{kept.url.replace('http', 'ws')}/v1/jobs/{job}/ws", {"x-api-key": kept.key}
    kept.server.gate._left.clear()
    monkeypatch.setattr(kept.server.gate, "request", lambda owner: None)
    lines = [connect(url, additional_headers=key) for _ in range(routes.MAX_STREAMS_PER_KEY)]
    with pytest.raises(InvalidStatus) as crowded:
        connect(url, additional_headers=key)
    assert crowded.value.response.status_code == 429
    events = kept.http.get(f"/v1/jobs/{job}/events")
    assert (events.status_code, events.json()["error"]["type"]) == (429, "rate_limit_error")
    assert kept.http.get("/healthz").status_code == 200
    for line in lines:
        line.socket.close()
    until(lambda: job not in kept.server.desk._watched)
    with kept.http.stream("GET", f"/v1/jobs/{job}/events") as answer:
        assert next(answer.iter_lines()).startswith("event: status")
    until(lambda: job not in kept.server.desk._watched)
    with pytest.raises(InvalidStatus) as stranger:
        connect(url)
    assert stranger.value.response.status_code == 401
