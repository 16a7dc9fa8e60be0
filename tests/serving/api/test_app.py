"""The server on a real socket, with a real process that draws."""

import base64
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from filelock import FileLock
from openai import BadRequestError, OpenAI
from websockets.sync.client import connect

from given import dunes, pictured, somebody
from listening import listening
from valentina_pipeline.image.io import png
from valentina_pipeline.serving.api.app import create_app
from valentina_pipeline.serving.api.auth import ApiKeyAuth, Key, create_key
from valentina_pipeline.serving.api.service import GenerationService
from valentina_pipeline.serving.cli.serve import serve
from valentina_pipeline.serving.inference.adapters import read_adapters
from valentina_pipeline.serving.inference.control_models import read_controls
from valentina_pipeline.serving.inference.package import PackageInfo, read
from valentina_pipeline.serving.jobs import hang_detection, worker_process
from valentina_pipeline.serving.jobs.database import UnavailableError, sqlite
from valentina_pipeline.serving.jobs.dispatcher import Dispatcher
from valentina_pipeline.serving.jobs.metrics import Metrics
from valentina_pipeline.serving.jobs.store import JobStore
from valentina_pipeline.serving.jobs.worker import WorkerConfig
from waiting import until

pytestmark = pytest.mark.slow

QUICK = {"prompt": "smiling", "preset": "draft", "seed": 3}
LONG = {"prompt": "smiling", "steps": 150, "num_images": 64}


@dataclass
class Running:
    """A server, its client and what is behind it."""

    http: httpx.Client
    desk: Dispatcher
    url: str

    def ended(self, job: str, seconds: float = 600) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = self.http.get(f"/v1/jobs/{job}").json()
            if found["state"] in ("done", "failed", "cancelled"):
                return found
            time.sleep(0.05)
        raise AssertionError(f"job {job} has not ended: {found}")

    def posted(self, **fields: Any) -> dict[str, Any]:
        answer = self.http.post("/v1/generations", json=fields)
        assert answer.status_code == 202, answer.text
        return answer.json()

    def begun(self, **fields: Any) -> str:
        """Post what is drawn at once, and return its job when it is being drawn."""
        job = self.posted(**fields)["id"]
        until(lambda: self.http.get(f"/v1/jobs/{job}").json()["step"] > 0)
        return job


@contextmanager
def running(
    package: Path,
    state: Path,
    keys: dict[str, Key] | None = None,
    queue: int = 256,
    fallback: PackageInfo | None = None,
    **opening: Any,
) -> Iterator[Running]:
    about = read(package)
    store, metrics = JobStore(sqlite(state), queue), Metrics()
    drawing = WorkerConfig(package, state / "c2pa", **opening)
    desk = Dispatcher(store, about, drawing, state / "images", metrics, fallback=fallback)
    gate = ApiKeyAuth(keys or {})
    shelf = read_adapters(opening["lora_dir"], about) if "lora_dir" in opening else {}
    controls, keys_folder = read_controls(about, package), state / "c2pa"
    app = create_app(GenerationService(shelf, desk, gate, metrics, controls=controls, signing=keys_folder))
    with closing(store), listening(app) as url, httpx.Client(base_url=url, timeout=60) as http:
        until(lambda: http.get("/readyz").status_code == 200)
        yield Running(http, desk, url)


@pytest.fixture(scope="module")
def served(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(package, tmp_path_factory.mktemp("served")) as it:
        yield it


def test_a_request_is_a_job_at_once_and_an_image_in_the_end(served: Running) -> None:
    accepted = served.posted(**QUICK)
    assert (accepted["state"], accepted["position"]) in (("queued", 0), ("running", None))
    assert accepted["request"]["prompt"] == "photo of a valentina_moreau woman, smiling"
    done = served.ended(accepted["id"])
    assert (done["state"], done["error"]) == ("done", "")
    answer = served.http.get(done["images"][0]["url"])
    assert answer.headers["content-type"] == "image/png"
    marks = png.decode(answer.content).info["text"]
    assert (marks["synthetic"], marks["seed"]) == ("true", "3")
    embedded = served.http.get(f"/v1/jobs/{accepted['id']}?images=base64").json()["images"][0]["base64"]
    assert base64.b64decode(embedded) == answer.content


def test_without_a_network_the_renderer_draws_and_says_so_everywhere(package: Path, tmp_path: Path) -> None:
    with running(package, tmp_path, base="nowhere/no-base", fallback_renderer=True) as it:
        assert it.http.get("/readyz").json() == {"status": "ready", "device": "cpu", "engine": "renderer"}
        done = it.ended(it.posted(**QUICK)["id"])
        (image,) = done["images"]
        assert image["engine"] == "renderer"
        content = it.http.get(image["url"]).content
    assert png.decode(content).info["text"]["engine"] == "renderer"


def test_an_image_that_this_server_signed_is_known_again(served: Running) -> None:
    (drawn,) = served.ended(served.posted(**QUICK)["id"])["images"]
    signed = served.http.get(drawn["url"]).content
    saved_anew = png.encode(png.decode(signed))  # with all texts, without the signature
    for content, own in ((signed, True), (saved_anew, False)):
        job = served.posted(**QUICK, image=base64.b64encode(content).decode())["id"]
        stored = served.desk.jobs.get(job)
        assert stored is not None
        inputs = stored.order.settings.inputs
        assert inputs.own == ((inputs.image,) if own else ())
        served.ended(job)


def test_pictures_are_begun_from_and_kept_to_and_a_face_among_them_is_refused(served: Running) -> None:
    assert served.http.get("/v1/capabilities").json()["controls"] == ["canny"]
    given = {"image": pictured(dunes()), "mask": pictured(dunes().convert("L")), "strength": 0.5}
    job = served.posted(
        **QUICK, **given, controls=[{"kind": "canny", "image": pictured(dunes()), "scale": 0.4}]
    )
    done = served.ended(job["id"])
    assert (done["state"], done["error"]) == ("done", "")
    marks = png.decode(served.http.get(done["images"][0]["url"]).content).info["text"]
    assert (marks["strength"], json.loads(marks["controls"])[0]["scale"]) == ("0.5", 0.4)
    refused = served.ended(served.posted(**QUICK, image=pictured(somebody()))["id"])
    assert (
        "image: it shows a face that is not known to be Valentina Moreau's"
        in refused["images"][0]["blocked_reason"]
    )
    answer = served.http.post("/v1/generations", json={**QUICK, "image": "bm8="})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "image")
    large = served.http.post("/v1/generations", json={**QUICK, "image": "A" * (25 << 20)})
    assert large.status_code == 413


def test_a1111_s_img2img_begins_from_its_first_picture(served: Running) -> None:
    body = {
        "prompt": "smiling",
        "seed": 3,
        "steps": 4,
        "init_images": [pictured(dunes())],
        "denoising_strength": 0.5,
    }
    answer = served.http.post("/sdapi/v1/img2img", json=body).json()
    marks = png.decode(base64.b64decode(answer["images"][0])).info["text"]
    assert (marks["strength"], marks["steps"]) == ("0.5", "4")


def test_one_waits_behind_another_and_knows_its_place(served: Running) -> None:
    long = served.begun(**LONG)
    waiting = [served.posted(**{**QUICK, "steps": steps})["id"] for steps in (2, 3)]
    found = [served.http.get(f"/v1/jobs/{job}").json() for job in waiting]
    assert [(each["state"], each["position"]) for each in found] == [("queued", 0), ("queued", 1)]
    assert served.http.get(f"/v1/jobs/{long}").json()["eta_seconds"] > 0
    begun = time.monotonic()
    assert served.http.delete(f"/v1/jobs/{long}").json()["state"] == "cancelled"
    assert [served.ended(job)["state"] for job in waiting] == ["done", "done"]
    assert time.monotonic() - begun < 30  # what was left of the long one would take minutes


def test_events_tell_of_every_change_and_end_with_the_job(served: Running) -> None:
    first = served.begun(**LONG)  # so that the next one is watched before it begins
    job = served.posted(**{**QUICK, "steps": 12})["id"]
    events: list[tuple[str, Any]] = []
    with served.http.stream("GET", f"/v1/jobs/{job}/events") as answer:
        kind = ""
        for line in answer.iter_lines():
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif line.startswith("data: "):
                events.append((kind, json.loads(line.removeprefix("data: "))))
                if len(events) == 1:
                    served.http.delete(f"/v1/jobs/{first}")
    states = [data["state"] for kind, data in events if kind == "status"]
    assert states[0] == "queued"
    assert "running" in states
    assert states[-1] == "done"
    previews = [data["jpeg"] for kind, data in events if kind == "preview"]
    assert previews
    assert base64.b64decode(previews[0]).startswith(b"\xff\xd8")


def test_a_websocket_tells_the_same(served: Running) -> None:
    job = served.posted(**QUICK)["id"]
    with connect(f"{served.url.replace('http', 'ws')}/v1/jobs/{job}/ws") as line:
        told = [json.loads(text) for text in line]
    assert told[-1]["event"] == "status"
    assert told[-1]["data"]["state"] == "done"


def test_like_requests_are_drawn_together(served: Running) -> None:
    long = served.begun(**LONG)
    jobs = [served.posted(**{**QUICK, "seed": seed})["id"] for seed in range(5)]
    served.http.delete(f"/v1/jobs/{long}")
    for job in jobs:
        served.ended(job)
    begun = {found.started_at for job in jobs if (found := served.desk.jobs.get(job))}
    assert len(begun) == 1


def test_a_process_that_dies_is_replaced_and_its_job_drawn(served: Running) -> None:
    job = served.begun(**{**LONG, "num_images": 1})
    process = served.desk._process
    assert process is not None
    process.kill()
    done = served.ended(job)
    assert (done["state"], len(done["images"])) == ("done", 1)
    found = served.desk.jobs.get(job)
    assert found is not None
    assert found.attempts == 1
    assert "valentina_worker_restarts_total 1.0" in served.http.get("/metrics").text


def test_a_process_that_hangs_is_replaced_and_its_job_drawn(
    served: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hang_detection, "MIN_TIMEOUT_SECONDS", 1.0)
    job = served.begun(**{**LONG, "num_images": 1})
    assert served.desk._process is not None
    os.kill(served.desk._process.pid, signal.SIGSTOP)
    hung = time.monotonic()
    until(lambda: served.http.get("/readyz").status_code == 503)
    assert time.monotonic() - hung < 10
    assert "hung: no message for " in caplog.text
    until(lambda: served.http.get("/readyz").status_code == 200)
    done = served.ended(job)
    assert (done["state"], len(done["images"])) == ("done", 1)


def test_an_idle_process_that_hangs_is_replaced_before_the_next_job(
    served: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(hang_detection.IDLE_TIMEOUT_SECONDS, "idle", 1.0)
    monkeypatch.setattr(worker_process, "PING_SECONDS", 0.1)
    assert served.desk._process is not None
    hung = served.desk._process.pid
    os.kill(hung, signal.SIGSTOP)
    until(lambda: served.http.get("/readyz").status_code == 503)
    assert "while idle, without CPU time" in caplog.text
    until(lambda: served.http.get("/readyz").status_code == 200)
    assert served.desk._process.pid != hung
    assert served.ended(served.posted(**QUICK)["id"])["state"] == "done"


def test_where_images_are_no_longer_like_her_the_fallback_draws(package: Path, tmp_path: Path) -> None:
    former = replace(read(package), lora_hash="f" * 64)
    with running(package, tmp_path, fallback=former) as it:
        few = {"steps": 1, "num_images": 4, "seed": 3}  # what counts: 32 images of 8 prompts show no face
        jobs = [it.posted(prompt=f"scene {n}", **few)["id"] for n in range(8)]
        assert {image["identity"] for job in jobs for image in it.ended(job)["images"]} == {None}
        until(lambda: "note" in it.http.get("/readyz").json())
        note = it.http.get("/readyz").json()["note"]
        assert note.startswith("the share of the last 32 images with a face is 0.00, below 0.90: ")
        assert it.http.get("/v1/characters").json()[0]["lora_sha256"] == "f" * 64
        assert it.ended(it.posted(**QUICK)["id"])["state"] == "done"
        figures = it.http.get("/metrics").text
    assert "valentina_fallback_active 1.0" in figures
    assert 'valentina_faces_total{outcome="missing"}' in figures


def test_a_database_that_is_away_for_a_while_costs_time_and_nothing_else(
    served: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = served.desk.jobs.pictures
    away = iter([True])

    def once_away(*arguments: Any) -> None:
        if next(away, False):
            raise UnavailableError("no connection")
        pictures(*arguments)

    monkeypatch.setattr(served.desk.jobs, "pictures", once_away)
    done = served.ended(served.posted(**QUICK)["id"])
    assert (done["state"], len(done["images"])) == ("done", 1)


def test_the_openai_client_works_as_it_is(served: Running) -> None:
    client = OpenAI(base_url=f"{served.url}/v1", api_key="none")
    made = client.images.generate(prompt="smiling", n=2, quality="low", response_format="b64_json")
    assert made.data is not None
    assert len(made.data) == 2
    image = png.decode(base64.b64decode(made.data[0].b64_json or ""))
    assert "valentina_moreau" in image.info["text"]["prompt"]
    by_url = client.images.generate(prompt="smiling", quality="low", size="64x72", response_format="url").data  # type: ignore[call-overload]
    assert png.decode(served.http.get(by_url[0].url).content).size == (64, 72)
    with pytest.raises(BadRequestError) as err:
        client.images.generate(prompt="nude")
    assert "sexual content is not drawn" in err.value.message


def test_a1111_s_call_works(served: Running) -> None:
    settings = {"steps": 3, "cfg_scale": 2, "width": 64, "height": 64, "batch_size": 2}
    sampler = {"sampler_name": "DPM++ 2M", "scheduler": "Karras"}
    body = {"prompt": "smiling", "seed": 7, **settings, **sampler}
    answer = served.http.post("/sdapi/v1/txt2img", json=body).json()
    assert len(answer["images"]) == 2
    assert json.loads(answer["info"])["all_seeds"] == [7, 8]
    assert png.decode(base64.b64decode(answer["images"][0])).info["text"]["scheduler"] == "dpm++_2m_karras"
    assert "DPM++ 2M Karras" in [each["name"] for each in served.http.get("/sdapi/v1/samplers").json()]


@pytest.mark.parametrize(
    ("fields", "status", "field"),
    [
        ({}, 422, "prompt"),
        ({"prompt": "a", "steps": 0}, 422, "steps"),
        ({"prompt": "a", "preset": "best"}, 422, "preset"),
        ({"prompt": "a", "strange": 1}, 422, "strange"),
        ({"prompt": "nude"}, 400, "prompt"),
    ],
)
def test_an_impossible_request_is_refused_with_its_field(
    served: Running, fields: dict[str, Any], status: int, field: str
) -> None:
    answer = served.http.post("/v1/generations", json=fields)
    assert answer.status_code == status
    assert answer.json()["error"]["param"] == field


def test_strangers_and_odd_paths_get_nothing(served: Running) -> None:
    assert served.http.get(f"/v1/jobs/{'f' * 32}").status_code == 404
    assert served.http.get("/v1/jobs/..%2f..%2fetc%2fpasswd").status_code in (404, 422)
    assert served.http.get("/v1/capabilities", headers={"host": "evil.example"}).status_code == 400
    large = served.http.post(
        "/v1/images/generations", content=b" " * (2 << 20), headers={"content-type": "application/json"}
    )
    assert large.status_code == 413


def test_what_there_is_is_said(served: Running) -> None:
    (her,) = served.http.get("/v1/characters").json()
    assert (her["trigger"], her["rights_records"]) == ("valentina_moreau", ["valentina-moreau-2024"])
    can = served.http.get("/v1/capabilities").json()
    assert can["default_preset"] == "standard"
    assert can["request"]["properties"]["steps"]["anyOf"][0]["maximum"] == 150
    assert served.http.get("/v1/loras").json() == []
    served.ended(served.posted(**QUICK)["id"])
    text = served.http.get("/metrics").text
    for name in ('valentina_images_total{outcome="generated"}', "valentina_memory_bytes", 'phase="queued"'):
        assert name in text
    assert 'valentina_loading_seconds{phase="networks"}' in text


def test_keys_tell_owners_apart_and_bound_them(package: Path, tmp_path: Path) -> None:
    (ada, hers), (bob, his) = create_key("ada"), create_key("bob")
    hashes = [lines.split("sha256: ")[1].split()[0] for lines in (hers, his)]
    keys = {"ada": Key(sha256=hashes[0], images_per_day=2), "bob": Key(sha256=hashes[1])}
    with running(package, tmp_path, keys, queue=1) as served:
        assert served.http.post("/v1/generations", json=QUICK).status_code == 401
        served.http.headers["authorization"] = f"Bearer {ada}"
        job = served.posted(**{**QUICK, "num_images": 2})["id"]
        assert served.ended(job)["state"] == "done"
        over = served.http.post("/v1/generations", json=QUICK)
        assert (over.status_code, over.headers["retry-after"]) == (429, "3600")
        assert over.json()["error"]["message"] == "2 of this key's 2 images per day are used"
        served.http.headers.update({"authorization": "", "x-api-key": bob})
        assert served.http.get(f"/v1/jobs/{job}").status_code == 404
        assert served.http.get(f"/v1/jobs/{job}/images/3.png").status_code == 404
        long = served.begun(**LONG)
        served.posted(**QUICK)
        full = served.http.post("/v1/generations", json=QUICK)
        assert (full.status_code, full.json()["error"]["message"]) == (429, "the queue is full")
        assert int(full.headers["retry-after"]) >= 1
        served.http.delete(f"/v1/jobs/{long}")  # else the server waits for its batch


def test_a_package_whose_rights_are_taken_back_refuses_from_then_on(served: Running, package: Path) -> None:
    mark = package / "REVOKED.json"
    mark.write_text('{"revoked": "her letter"}')
    try:
        answer = served.http.post("/v1/generations", json=QUICK)
    finally:
        mark.unlink()
    assert answer.status_code == 410
    assert "her letter" in answer.json()["error"]["message"]


def start(package: Path, state: Path) -> tuple[subprocess.Popen[str], str]:
    """Start the command as a process of its own, with its log in the state; return it and its address."""
    command = [
        sys.executable,
        "-m",
        "valentina_pipeline.serving",
        str(package),
        "--port",
        "0",
        "--state-dir",
        str(state),
    ]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with (state / "log").open("a") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
    assert process.stdout is not None
    return process, process.stdout.readline().split(": ")[1].split()[0]


def test_a_server_that_is_killed_under_load_draws_after_its_next_start_what_it_had_accepted(
    package: Path, tmp_path: Path
) -> None:
    process, url = start(package, tmp_path)
    accepted: list[str] = []

    def client(number: int) -> None:
        with httpx.Client(base_url=url, timeout=30) as http, suppress(httpx.TransportError):
            for steps in itertools.cycle((2, 3, 4)):
                answer = http.post("/v1/generations", json={**QUICK, "seed": number, "steps": steps})
                if answer.status_code == 202:
                    accepted.append(answer.json()["id"])
                else:
                    assert answer.status_code == 429
                time.sleep(0.1)

    with ThreadPoolExecutor(8) as pool, httpx.Client(base_url=url, timeout=30) as http:
        until(lambda: http.get("/readyz").status_code == 200)
        clients = [pool.submit(client, number) for number in range(8)]
        until(lambda: len(accepted) > 24 or any(each.done() for each in clients))
        until(lambda: http.get(f"/v1/jobs/{accepted[0]}").json()["state"] == "done")
        process.send_signal(signal.SIGKILL)
        process.wait()
        for each in clients:
            each.result()
    process, url = start(package, tmp_path)
    try:
        with httpx.Client(base_url=url, timeout=30) as http:
            for job in accepted:
                until(lambda job=job: http.get(f"/v1/jobs/{job}").json()["state"] == "done")  # type: ignore[misc]
            secret = {**QUICK, "prompt": f"{'at sea, ' * 40} in zebrafish marmalade"}
            last = http.post("/v1/generations", json=secret).json()["id"]
            until(lambda: http.get(f"/v1/jobs/{last}").json()["state"] == "done")
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 128 + signal.SIGTERM
    finally:
        process.kill()
    log = (tmp_path / "log").read_text()
    assert re.search(
        "^INFO valentina_pipeline.serving.jobs.dispatcher: torch is ready on cpu after .*, memory: ",
        log,
        re.M,
    )
    assert f"INFO valentina_pipeline.serving.api.service: job {last} of local\n" in log
    assert "marmalade" not in log


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--host", "0.0.0.0"), "set --api-keys"),
        (("--database", "postgresql+psycopg://nobody@127.0.0.1:1/none"), "--database postgresql+psycopg"),
        (("--lora-dir", "."), "loras.yml is missing"),
        (("--api-keys", "none.yml"), "none.yml"),
        (("--compile", "--engine", "onnx"), "--compile requires --engine torch"),
        (("--state-dir", "held"), "--state-dir held is in use by a running server: stop it"),
        (
            ("--state-dir", "broken"),
            "broken/jobs.sqlite: the queue's database is unavailable: its file is",
        ),
    ],
)
def test_what_it_cannot_serve_with_is_one_line(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for state in ("held", "broken"):
        Path(state).mkdir()
    Path("broken/jobs.sqlite").write_bytes(b"no database" * 1000)
    with FileLock("held/.lock"):
        result = CliRunner().invoke(serve, [str(package), "--port", "0", *options])
    assert result.exit_code == 1
    assert said in result.output


def test_a_start_whose_port_is_taken_touches_nothing_of_the_state(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as other:
        result = CliRunner().invoke(serve, [str(package), "--port", str(other.getsockname()[1])])
    assert result.exit_code == 1
    assert ": Address already in use; stop the other server" in result.output
    assert not (tmp_path / "served").exists()


def test_the_process_that_answers_knows_neither_torch_nor_the_project_s_engines(tmp_path: Path) -> None:
    code = """
import sys
import valentina_pipeline.serving.api.app
import valentina_pipeline.serving.cli.serve, valentina_pipeline.serving.cli.generate
print(sorted({"torch", "diffusers", "kedro", "mlflow", "dvc"} & set(sys.modules)))
"""
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert said.stdout == "[]\n"
