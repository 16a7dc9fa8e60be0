"""OpenAI's and A1111's calls as their clients make them: recorded/ has requests written after their code."""

import base64
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import webuiapi
from fastapi.testclient import TestClient
from openai import BadRequestError, NotFoundError, OpenAI, UnprocessableEntityError
from PIL import Image

from given import dunes, pictured
from serving.api.test_app import Running, running
from valentina_pipeline.image.io import png
from valentina_pipeline.serving.api import a1111_fields, service
from valentina_pipeline.serving.api.app import create_app
from valentina_pipeline.serving.api.auth import ApiKeyAuth, Key, create_key
from valentina_pipeline.serving.inference.package import PackageInfo, read
from valentina_pipeline.serving.inference.prompt_notation import InvalidRequestError
from valentina_pipeline.serving.jobs.metrics import Metrics

RECORDED = sorted((Path(__file__).parent / "recorded").glob("*.json"))
KEY, LINES = create_key("ada")
KEYS = {"ada": Key(sha256=LINES.split("sha256: ")[1].split()[0], requests_per_minute=10_000)}
BASIC = base64.b64encode(f"anyone:{KEY}".encode()).decode()


def transparent() -> Image.Image:
    """A picture whose upper half is to be drawn anew, as OpenAI's clients say it."""
    mask = dunes().convert("RGBA")
    mask.paste((0, 0, 0, 0), (0, 0, mask.width, mask.height // 2))
    return mask


def white() -> Image.Image:
    mask = Image.new("L", dunes().size)
    mask.paste(255, (0, 0, mask.width, mask.height // 2))
    return mask


PICTURES = {"picture": pictured(dunes()), "mask": pictured(white()), "transparent": pictured(transparent())}


@pytest.fixture(scope="module")
def keyed(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(package, tmp_path_factory.mktemp("keyed"), KEYS) as it:
        yield it


@pytest.fixture(scope="module")
def about(package: Path) -> PackageInfo:
    return read(package)


@pytest.fixture(scope="module")
def still(about: PackageInfo) -> TestClient:
    """The calls without keys and without what draws: for what is refused or answered before."""
    jobs = SimpleNamespace(get=lambda job: None, refuse_beyond=lambda *_: None)
    desk: Any = SimpleNamespace(about=about, batch_seconds=1.0, progress=lambda job: None, jobs=jobs)
    app = create_app(service.GenerationService({}, desk, ApiKeyAuth({}), Metrics()))
    return TestClient(app, base_url="http://127.0.0.1")


def filled(value: Any) -> Any:
    """Return a recorded value with keys and pictures where they stand."""
    if isinstance(value, dict):
        return {name: filled(each) for name, each in value.items()}
    if isinstance(value, list):
        return [filled(each) for each in value]
    if isinstance(value, str):
        for name, text in {**PICTURES, "key": KEY, "basic": BASIC}.items():
            value = value.replace(f"{{{name}}}", text)
    return value


def found(answer: Any, place: str) -> Any:
    for part in filter(None, place.split(".")):
        answer = answer[int(part)] if isinstance(answer, list) else answer[part]
    return answer


def requests(slow: bool) -> list[Any]:
    """Return the recorded requests that draw, or those that do not."""
    rows = []
    for file in RECORDED:
        recorded = json.loads(file.read_text("utf-8"))
        for each in recorded["requests"]:
            draws = each["path"].endswith(("2img", "generations", "edits"))
            if draws == slow:
                rows.append(pytest.param(each, id=f"{file.stem}: {each['about']}"))
    return rows


def send(http: Any, recorded: dict[str, Any]) -> Any:
    files = {
        name: (f"{each}.png", base64.b64decode(PICTURES[each]), "image/png")
        for name, each in recorded.get("files", {}).items()
    }
    more = {"json": filled(recorded["json"])} if "json" in recorded else {}
    if files:
        more = {"data": recorded["form"], "files": files}
    answer = http.request(
        recorded["method"], recorded["path"], headers=filled(recorded.get("headers", {})), **more
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


def expect(answer: Any, reads: dict[str, Any]) -> None:
    """Assert that an answer has what the client reads of it."""
    for place, wanted in reads.items():
        value = found(answer, place)
        if wanted == "image":
            assert png.decode(base64.b64decode(value)).info["text"]["synthetic"] == "true"
        elif wanted in ("text", "number"):
            assert isinstance(value, str if wanted == "text" else (int, float))
            assert value
        else:
            assert value == wanted, place


@pytest.mark.parametrize("recorded", requests(slow=False))
def test_what_clients_ask_before_they_draw_is_answered(still: TestClient, recorded: dict[str, Any]) -> None:
    expect(send(still, recorded), recorded["reads"])


@pytest.mark.slow
@pytest.mark.parametrize("recorded", requests(slow=True))
def test_what_clients_draw_is_drawn(keyed: Running, recorded: dict[str, Any]) -> None:
    if "headers" not in recorded:  # the plugin knows no password
        recorded = {**recorded, "headers": {"x-api-key": "{key}"}}
    expect(send(keyed.http, recorded), recorded["reads"])


@pytest.mark.parametrize(
    ("fields", "ours"),
    [
        ({"sampler_name": "Euler a"}, "euler_a"),
        ({"sampler_name": "EULER_A"}, "euler_a"),
        ({"sampler_name": "k_euler_ancestral"}, "euler_a"),
        ({"sampler_index": "dpm++ 2m karras"}, "dpm++_2m_karras"),
        ({"sampler_name": "DPM++ 2M", "scheduler": "Karras"}, "dpm++_2m_karras"),
        ({"sampler_name": "DPM++ 2M Karras", "scheduler": "karras"}, "dpm++_2m_karras"),
        ({"sampler_name": "DPM++ 2M", "scheduler": "Automatic"}, "dpm++_2m"),
        ({"sampler_name": "ddim", "sampler_index": "Euler", "scheduler": None}, "ddim"),
        ({"sampler_name": None, "sampler_index": "LCM"}, "lcm"),
        ({"sampler_name": "dpm++_2m_karras", "scheduler": ""}, "dpm++_2m_karras"),
        ({}, None),
    ],
)
def test_samplers_come_in_one_field_or_two_by_any_name(
    about: PackageInfo, fields: dict[str, Any], ours: str | None
) -> None:
    body = a1111_fields.Txt2Img.model_validate({"prompt": "smiling", **fields})
    assert a1111_fields.parse_request(body, about)[0].scheduler == ours


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"sampler_name": "Heun"}, "sampler_name"),
        ({"sampler_index": "Heun"}, "sampler_index"),
        ({"sampler_name": "Euler", "scheduler": "karras"}, "scheduler"),
        ({"scheduler": "beta"}, "scheduler"),
        ({"batch_size": 65}, "batch_size"),
        ({"n_iter": 65}, "n_iter"),
        ({"cfg_scale": 31}, "cfg_scale"),
        ({"steps": 0}, "steps"),
        ({"width": 65}, "width"),
        ({"enable_hr": True}, "enable_hr"),
        ({"tiling": True}, "tiling"),
        ({"restore_faces": True}, "restore_faces"),
        ({"subseed_strength": 0.3}, "subseed_strength"),
        ({"styles": ["nowhere"]}, "styles"),
        ({"clip_skip": 2}, "clip_skip"),
        ({"script_name": "X/Y/Z plot"}, "script_name"),
        ({"alwayson_scripts": {"ControlNet": {"args": [{"image": "a"}]}}}, "alwayson_scripts.ControlNet"),
        ({"override_settings": {"sd_model_checkpoint": "other"}}, "override_settings.sd_model_checkpoint"),
        ({"refiner_checkpoint": "other"}, "refiner_checkpoint"),
        ({"prompt": "a <lora:nobody:1>"}, "prompt"),
        ({"prompt": "a <lora:valentina_moreau:3>"}, "prompt"),
        ({"prompt": "a <hypernet:x:1>"}, "prompt"),
        ({"prompt": "[a:b:0.5]"}, "prompt"),
        ({"prompt": "n(u:1.1)de"}, "prompt"),
        ({"negative_prompt": "(a:9)"}, "negative_prompt"),
        ({"prompt": None}, "prompt"),
    ],
)
def test_a1111_s_errors_name_the_field_that_was_sent(
    still: TestClient, fields: dict[str, Any], param: str
) -> None:
    answer = still.post("/sdapi/v1/txt2img", json={"prompt": "smiling", **fields})
    assert (answer.status_code, answer.json()["error"]["param"]) in ((422, param), (400, param)), answer.text


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 65}, "n"),
        ({"size": "65x64"}, "size"),
        ({"size": "large"}, "size"),
        ({"quality": "best"}, "quality"),
        ({"model": "bob"}, "model"),
        ({"stream": True}, "stream"),
        ({"output_format": "webp"}, "output_format"),
        ({"background": "transparent"}, "background"),
        ({"response_format": "jpeg"}, "response_format"),
        ({"strange": 1}, "strange"),
    ],
)
def test_openai_s_errors_name_the_field_that_was_sent(
    still: TestClient, fields: dict[str, Any], param: str
) -> None:
    answer = still.post("/v1/images/generations", json={"prompt": "smiling", **fields})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, param), answer.text


def test_what_cannot_be_edited_is_refused_by_its_field(still: TestClient) -> None:
    picture = ("a.png", base64.b64decode(PICTURES["picture"]), "image/png")
    for files, param in (
        ({"mask": picture}, "image"),
        ({"image": picture, "mask": picture}, "mask"),
        ({"image": ("a.png", b"none", "image/png")}, "image"),
        ({"image": picture, "mask": ("a.png", b"none", "image/png")}, "mask"),
    ):
        answer = still.post("/v1/images/edits", data={"prompt": "smiling"}, files=files)
        assert (answer.status_code, answer.json()["error"]["param"]) == (422, param), answer.text
    pair = [("image[]", picture), ("image[]", picture)]
    answer = still.post("/v1/images/edits", data={"prompt": "smiling"}, files=pair)
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "image")


def test_every_field_of_txt2img_may_be_null(about: PackageInfo) -> None:
    names = [*a1111_fields.Txt2Img.model_fields, *a1111_fields.ALLOWED_VALUES, *a1111_fields.NO_EFFECT]
    body = a1111_fields.Txt2Img.model_validate({**dict.fromkeys(names), "prompt": "smiling"})
    wanted, warnings = a1111_fields.parse_request(body, about)
    assert (wanted.prompt, wanted.num_images, wanted.seed, warnings) == ("smiling", 1, None, [])


def test_a_style_is_a_scene(about: PackageInfo) -> None:
    scene = next(iter(about.scenes))
    body = a1111_fields.Txt2Img(prompt="smiling", styles=[scene])
    assert a1111_fields.parse_request(body, about)[0].scene == scene
    with pytest.raises(InvalidRequestError, match="styles"):
        a1111_fields.parse_request(a1111_fields.Txt2Img(prompt="smiling", styles=[scene, scene]), about)


def test_options_that_are_others_are_refused(still: TestClient) -> None:
    for given in ({"sd_model_checkpoint": "other"}, {"CLIP_stop_at_last_layers": 2}, {"strange": 1}):
        answer = still.post("/sdapi/v1/options", json=given)
        assert (answer.status_code, answer.json()["error"]["param"]) == (422, next(iter(given)))


@pytest.mark.slow
def test_the_openai_client_lists_edits_and_follows_links_that_end(
    keyed: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = OpenAI(base_url=f"{keyed.url}/v1", api_key=KEY, max_retries=0)
    assert [each.id for each in client.models.list()] == ["valentina_moreau"]
    assert client.models.retrieve("valentina_moreau").owned_by == "valentina-pipeline"
    with pytest.raises(NotFoundError):
        client.models.retrieve("bob")
    picture = ("a.png", base64.b64decode(PICTURES["picture"]), "image/png")
    mask = ("m.png", base64.b64decode(PICTURES["transparent"]), "image/png")
    made = client.images.edit(
        image=picture,
        mask=mask,
        prompt="smiling",
        size="64x64",
        quality="low",
        response_format="url",  # type: ignore[arg-type]
    )
    assert made.data is not None
    link = made.data[0].url or ""
    text = png.decode(httpx.get(link).content).info["text"]  # without a key
    assert {"image_sha256", "mask_sha256"} <= set(text)
    assert httpx.get(link.replace("signature=", "signature=0")).status_code == 403
    assert httpx.get(link.split("?")[0]).status_code == 401
    monkeypatch.setattr(service.time, "time", lambda now=time.time: now() + service.LINK_SECONDS + 1)
    assert httpx.get(link).status_code == 403
    monkeypatch.undo()
    with pytest.raises(UnprocessableEntityError, match="output_format"):
        client.images.generate(prompt="smiling", output_format="jpeg")
    with pytest.raises(BadRequestError, match="not drawn"):
        client.images.generate(prompt="nude")


@pytest.mark.slow
def test_the_a1111_client_works_with_a_password(keyed: Running) -> None:
    api = webuiapi.WebUIApi(
        baseurl=f"{keyed.url}/sdapi/v1", username="ada", password=KEY, sampler="DPM++ 2M", steps=2
    )
    drawn = api.txt2img(prompt="(smiling:1.3)", seed=7, width=64, height=64, scheduler="karras", n_iter=2)
    assert [drawn.info["all_seeds"], drawn.info["sampler_name"]] == [[7, 8], "DPM++ 2M Karras"]
    assert len(drawn.images) == 2
    assert drawn.images[0].info["scheduler"] == "dpm++_2m_karras"
    begun = api.img2img(
        images=[dunes()], mask_image=white(), prompt="smiling", seed=7, width=64, height=64, steps=4
    )
    assert begun.image.size == (64, 64)
    assert any(text.startswith("inpainting_fill") for text in begun.json["warnings"])
    weak = api.txt2img(prompt="smiling <lora:valentina_moreau:0.2>", seed=7, width=64, height=64)
    strong = api.txt2img(prompt="smiling <lora:valentina_moreau:1>", seed=7, width=64, height=64)
    assert json.loads(weak.images[0].info["loras"]) == [["valentina_moreau", 0.2]]
    assert weak.images[0].tobytes() != strong.images[0].tobytes()
    assert api.get_options()["sd_model_checkpoint"] == api.get_sd_models()[0]["title"] == "Valentina Moreau"
    assert api.get_loras()[0]["name"] == "valentina_moreau"
    assert [each["name"] for each in api.get_schedulers()] == list(a1111_fields.SCHEDULERS)
    assert api.get_progress()["progress"] == 0
    assert api.interrupt() == {}
    assert (api.get_upscalers()[0]["name"], api.get_sd_vae(), api.get_embeddings()["loaded"]) == (
        "None",
        [],
        {},
    )
    assert api.get_prompt_styles()
    assert api.get_memory()["ram"]["total"] > 0
    assert api.get_cmd_flags()["api"] is True
    stranger = httpx.get(f"{keyed.url}/sdapi/v1/options", auth=("ada", "wrong"))
    assert (stranger.status_code, stranger.headers["www-authenticate"]) == (401, "Basic")


@pytest.mark.slow
def test_progress_and_interrupt_are_of_one_s_own_drawing(keyed: Running) -> None:
    import threading

    head = {"authorization": f"Basic {BASIC}"}
    body = {"prompt": "smiling", "steps": 150, "batch_size": 64, "width": 64, "height": 64}
    answers: list[httpx.Response] = []
    with httpx.Client(base_url=keyed.url, headers=head, timeout=60) as http:
        asking = threading.Thread(
            target=lambda: answers.append(
                httpx.post(f"{keyed.url}/sdapi/v1/txt2img", json=body, headers=head, timeout=60)
            )
        )
        asking.start()
        deadline = time.monotonic() + 50
        while not (now := http.get("/sdapi/v1/progress").json())["current_image"]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert 0 < now["progress"] <= 1
        assert now["state"]["job_count"] == 1
        assert now["state"]["sampling_steps"] % 150 == 0
        assert Image.open(io.BytesIO(base64.b64decode(now["current_image"]))).format == "JPEG"
        http.post("/sdapi/v1/interrupt")
        asking.join(50)
    assert answers[0].status_code in (200, 400)
    assert not asking.is_alive()
