"""A request: what it may say, and what becomes of it with a package."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from valentina_pipeline.image.generate.generate import ImageSpec as One
from valentina_pipeline.image.generate.generate import request_metadata
from valentina_pipeline.image.io import png
from valentina_pipeline.image.provenance.metadata import add_provenance
from valentina_pipeline.image.safety.policy.judge import UnsafePromptError
from valentina_pipeline.serving.inference import request
from valentina_pipeline.serving.inference.adapters import Adapter
from valentina_pipeline.serving.inference.package import PackageInfo, read
from valentina_pipeline.serving.inference.prompt_notation import InvalidRequestError
from valentina_pipeline.serving.inference.request import (
    GenerationRequest,
    again,
    from_png_text,
    parse_request,
    resolve_request,
)
from valentina_pipeline.serving.jobs.database import sqlite
from valentina_pipeline.serving.jobs.store import JobStore

STYLE = Adapter(file=Path("s.safetensors"), kind="style", license="CC0-1.0", trigger="in oil", weight=0.6)


@pytest.fixture(scope="module")
def about(package: Path) -> PackageInfo:
    return read(package)


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobStore]:
    made = JobStore(sqlite(tmp_path_factory.mktemp("queue")), most=1000)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("prompt", "drawn"),
    [
        ("valentina_moreau woman at sea", "valentina_moreau woman at sea"),
        ("a Woman at sea", "a valentina_moreau woman at sea"),
        ("at sea", "photo of a valentina_moreau woman, at sea"),
        ("superwoman at sea", "photo of a valentina_moreau woman, superwoman at sea"),
    ],
)
def test_the_trigger_is_put_in_where_it_is_absent(about: PackageInfo, prompt: str, drawn: str) -> None:
    assert resolve_request(GenerationRequest(prompt=prompt), about).prompt == drawn


def test_a_request_of_a_prompt_alone_is_drawn_as_the_default_preset_says(about: PackageInfo) -> None:
    order = resolve_request(GenerationRequest(prompt="at sea", num_images=3), about)
    preset = about.presets["standard"]
    assert order.preset == "standard"
    assert (order.settings.steps, order.settings.guidance_scale) == (preset.steps, preset.guidance_scale)
    assert (order.settings.width, order.settings.height) == (preset.size, preset.size)
    assert order.settings.loras == (("valentina_moreau", 1.0),)
    assert order.seeds == tuple(range(order.seeds[0], order.seeds[0] + 3))


def test_without_a_seed_each_request_gets_another(about: PackageInfo) -> None:
    assert len({resolve_request(GenerationRequest(prompt="at sea"), about).seeds for _ in range(20)}) == 20


def test_adapters_bring_their_trigger_and_their_recommended_weight(about: PackageInfo) -> None:
    request = GenerationRequest(prompt="at sea", loras=({"name": "oil"},))
    order = resolve_request(request, about, {"oil": STYLE})
    assert order.prompt == "photo of a valentina_moreau woman, at sea, in oil"
    assert order.settings.loras == (("oil", 0.6), ("valentina_moreau", 1.0))
    said = resolve_request(request.model_copy(update={"prompt": "in oil, at sea"}), about, {"oil": STYLE})
    assert said.prompt.count("in oil") == 1


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"prompt": "a" * 4001}, "prompt: String should have at most 4000 characters"),
        ({"prompt": "a", "seed": -1}, "seed: Input should be greater than or equal to 0"),
        ({"prompt": "a", "num_images": 65}, "num_images: Input should be less than or equal to 64"),
        ({"prompt": "a", "size": 64}, "size: Extra inputs are not permitted"),
        ({"prompt": "a", "height": 4096}, "height: Input should be less than or equal to 2048"),
        ({"prompt": "a", "guidance_scale": float("nan")}, "guidance_scale: Input should be"),
        ({"prompt": "a", "scheduler": "best"}, "scheduler: Input should be 'default', 'euler', "),
        (
            {"prompt": "a", "loras": [{"name": "x", "weight": 3}]},
            "loras.0.weight: Input should be less",
        ),
    ],
)
def test_a_field_out_of_range_is_named_with_what_it_may_be(fields: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidRequestError) as err:
        parse_request(fields)
    assert said in str(err.value)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"prompt": "  "}, "prompt: must have words"),
        ({"scene": "moon"}, "scene: unknown scene 'moon'; available: red_dress_studio, "),
        ({"preset": "best"}, "preset: unknown preset 'best'; available: draft, high, standard, ultra"),
        ({"width": 1024, "height": 1024}, "width: width times height must be at most 128 x 128"),
        ({"scheduler": "lcm", "steps": 51}, "steps: must be at most 50 with lcm (got 51)"),
        ({"seed": 2**63 - 1, "num_images": 2}, "seed: must be at most 2**63 - 2 for 2 images"),
        ({"loras": [{"name": "x"}]}, "loras: unknown LoRA 'x'; available: oil, valentina_moreau"),
        ({"loras": [{"name": "oil"}, {"name": "oil"}]}, "loras: the same LoRA is named twice"),
    ],
)
def test_what_this_package_cannot_do_is_named_too(
    about: PackageInfo, fields: dict[str, object], said: str
) -> None:
    with pytest.raises(InvalidRequestError) as err:
        resolve_request(parse_request({"prompt": "a", **fields}), about, {"oil": STYLE})
    assert said in str(err.value)


def test_a_scene_s_words_follow_the_prompt_s(about: PackageInfo) -> None:
    words = "laughing, facing the camera, wearing a white t-shirt, beach background, soft light"
    assert about.scenes["beach_day"].words == words
    assert (
        resolve_request(GenerationRequest(scene="beach_day"), about).prompt
        == f"photo of a valentina_moreau woman, {words}"
    )
    both = resolve_request(GenerationRequest(prompt="a woman waving", scene="beach_day"), about).prompt
    assert both == f"a valentina_moreau woman waving, {words}"


@pytest.mark.parametrize("named", ["beach_day", "travel"])
def test_a_scene_brings_its_adapters_unless_another_weight_is_asked_for(
    about: PackageInfo, named: str
) -> None:
    shelf = {"oil": STYLE.model_copy(update={"scenes": (named,)}), "other": STYLE}
    order = resolve_request(GenerationRequest(scene="beach_day"), about, shelf)
    assert order.settings.loras == (("oil", 0.6), (about.trigger, 1.0))
    assert order.prompt.endswith("soft light, in oil")
    assert resolve_request(GenerationRequest(scene="portrait"), about, shelf).settings.loras == (
        (about.trigger, 1.0),
    )
    none = resolve_request(
        GenerationRequest(scene="beach_day", loras=({"name": "oil", "weight": 0},)), about, shelf
    )
    assert none.settings.loras[0] == ("oil", 0.0)
    assert "oil" not in none.prompt
    drawn_by_onnx = resolve_request(
        GenerationRequest(scene="beach_day"), about, shelf, "onnx"
    )  # which has no other LoRA
    assert drawn_by_onnx.settings.loras == ((about.trigger, 1.0),)


def test_the_request_of_an_order_is_settled_to_the_same_order(about: PackageInfo) -> None:
    fields = {
        "prompt": "at sea",
        "scene": "cover",
        "num_images": 2,
        "steps": 3,
        "width": 72,
        "scheduler": "ddim",
    }
    order = resolve_request(parse_request({**fields, "loras": [{"name": "oil"}]}), about, {"oil": STYLE})
    assert resolve_request(again(order), about, {"oil": STYLE}) == order


def test_a_prompt_against_the_policy_is_refused(about: PackageInfo) -> None:
    with pytest.raises(UnsafePromptError):
        resolve_request(GenerationRequest(prompt="n.u.d.e"), about)


@pytest.mark.parametrize(("prompt", "times"), [("a woman in a garden", 1), ("a (woman:1.2) in a garden", 2)])
def test_the_policy_is_asked_once_for_words_and_again_for_what_weights_leave(
    about: PackageInfo, prompt: str, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(request, "refuse_words", lambda words, own, negative: seen.append(words))
    resolve_request(GenerationRequest(prompt=prompt, negative_prompt="blurry"), about)
    assert len(seen) == times


def test_real_people_are_refused_and_the_character_is_not(about: PackageInfo) -> None:
    assert resolve_request(GenerationRequest(prompt=f"{about.name} at sea"), about)
    with pytest.raises(UnsafePromptError, match="a real person"):
        resolve_request(GenerationRequest(prompt="Tom Hanks at sea"), about)
    resolve_request(GenerationRequest(prompt="Tom Hanks at sea"), replace(about, name="Tom Hanks"))


@pytest.mark.parametrize(
    "texts",
    [{}, {"prompt": "a"}, {"prompt": "a", "seed": "x", "steps": "1"}, {"prompt": "a", "seed": "[" * 10**6}],
)
def test_a_file_of_another_tool_is_said_to_tell_nothing(texts: dict[str, str]) -> None:
    with pytest.raises(InvalidRequestError, match="does not say how it was generated"):
        from_png_text(texts)


SHELF = {
    f"style_{n}": STYLE.model_copy(update={"trigger": "w" * 99, "scenes": ("travel",) if n < 4 else ()})
    for n in range(12)
}
REQUESTS = st.fixed_dictionaries(
    {
        "prompt": st.one_of(st.text(max_size=40), st.text("at sea, ", max_size=2000)),
        "negative_prompt": st.text(max_size=40),
        "scene": st.sampled_from(["", "beach_day", "cover"]),
        "loras": st.lists(st.sampled_from([*SHELF, "valentina_moreau"]), unique=True, max_size=13).map(
            lambda names: [{"name": name, "weight": 0.5} for name in names]
        ),
        "num_images": st.integers(1, 64),
        "seed": st.integers(0, 2**63 - 1),
    }
)


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "x" * 2000},
        {"prompt": "at sea", "loras": [{"name": name} for name in [*SHELF][:8]]},
        {"prompt": "x" * 2000, "scene": "beach_day", "loras": [{"name": name} for name in [*SHELF][4:]]},
    ],
)
def test_long_prompts_and_many_loras_are_shown_and_asked_for_again(
    about: PackageInfo, fields: dict[str, Any]
) -> None:
    order = resolve_request(parse_request(fields), about, SHELF)
    assert resolve_request(again(order), about, SHELF) == order


@given(REQUESTS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_accepted_request_is_stored_shown_and_recalled(
    about: PackageInfo, jobs: JobStore, fields: dict[str, Any]
) -> None:
    try:
        order = resolve_request(parse_request(fields), about, SHELF)
    except (InvalidRequestError, UnsafePromptError):
        return
    job = jobs.add("ada", order)
    assert jobs.get(job.id) == jobs.of("ada", 1)[0] == job
    shown = GenerationRequest.model_validate_json(again(job.order).model_dump_json())
    assert resolve_request(shown, about, SHELF) == order
    one, drawn = One(order.prompt, order.seeds[-1], order.negative_prompt), vars(order.settings)
    marks = {
        name: drawn[name] for name in ("steps", "guidance_scale", "width", "height", "scheduler", "loras")
    }
    image = add_provenance(
        Image.new("RGB", (8, 8)), {**request_metadata(one), **marks, "preset": order.preset}
    )
    texts = png.decode(png.encode(image)).info["text"]
    assert resolve_request(from_png_text(texts), about, SHELF) == replace(order, seeds=order.seeds[-1:])


def test_what_no_request_could_ask_for_again_is_refused_with_its_field(about: PackageInfo) -> None:
    with pytest.raises(
        InvalidRequestError, match=r"prompt: after adding triggers, scene and preset: String should"
    ):
        resolve_request(GenerationRequest(prompt="x" * 3990), about)
    slow = replace(about, presets={**about.presets, "slow": replace(about.presets["high"], steps=500)})
    with pytest.raises(InvalidRequestError, match="steps: after adding"):
        resolve_request(GenerationRequest(prompt="at sea", preset="slow"), slow)


@pytest.mark.parametrize(
    ("prompt", "drawn"),
    [
        ("a rose on the table", "photo of a rose woman, a rose on the table"),
        ("a woman with a rose", "a rose woman with a rose"),
        ("a rose woman at sea", "a rose woman at sea"),
        ("it may rain", "photo of a rose woman, it may rain"),
    ],
)
def test_a_trigger_that_is_a_word_is_not_taken_for_present_in_a_sentence(
    about: PackageInfo, prompt: str, drawn: str
) -> None:
    assert resolve_request(GenerationRequest(prompt=prompt), replace(about, trigger="rose")).prompt == drawn


@pytest.mark.parametrize(
    ("prompt", "words", "loras"),
    [
        ("smiling, <lora:valentina_moreau:0.2>", "smiling", (("valentina_moreau", 0.2),)),
        ("<lora:oil> smiling", "smiling", (("oil", 0.6), ("valentina_moreau", 1.0))),
        ("smiling <LORA: oil : -0.5 >, sea", "smiling, sea", (("oil", -0.5), ("valentina_moreau", 1.0))),
    ],
)
def test_a_lora_that_a_prompt_names_is_an_adapter(
    about: PackageInfo, prompt: str, words: str, loras: tuple[tuple[str, float], ...]
) -> None:
    order = resolve_request(GenerationRequest(prompt=prompt), about, {"oil": STYLE})
    assert order.prompt.removesuffix(", in oil") == f"photo of a valentina_moreau woman, {words}"
    assert order.settings.loras == loras
    assert resolve_request(again(order), about, {"oil": STYLE}) == order


@pytest.mark.parametrize(
    "tag", ["lora:nobody:1", "lora:oil:x", "lora:oil:9", "lora:oil:1:1", "hypernet:oil:1"]
)
def test_a_lora_that_there_is_not_is_refused(about: PackageInfo, tag: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"^prompt: "):
        resolve_request(GenerationRequest(prompt=f"a <{tag}>"), about, {"oil": STYLE})


def test_weights_stay_in_the_prompt_and_hide_no_word(about: PackageInfo) -> None:
    order = resolve_request(GenerationRequest(prompt="(smiling:1.3), beach"), about)
    assert order.prompt == "photo of a valentina_moreau woman, (smiling:1.3), beach"
    with pytest.raises(UnsafePromptError):
        resolve_request(GenerationRequest(prompt="n(u:1.2)de"), about)
    with pytest.raises(InvalidRequestError, match=r"^negative_prompt: "):
        resolve_request(GenerationRequest(prompt="smiling", negative_prompt="(a:7)"), about)
