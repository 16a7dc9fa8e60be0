"""Orders with pictures: what is read of them, what is refused, and that drawing goes by them."""

import base64
import io
import json
import shutil
import zlib
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageDraw

import steering
from given import SIDE, dunes, pictured, somebody
from valentina_pipeline.image.faces.canonical_crop import face_crop
from valentina_pipeline.image.io import png
from valentina_pipeline.image.models import offload
from valentina_pipeline.image.models.offload import Offload, Placement
from valentina_pipeline.image.provenance.metadata import add_provenance
from valentina_pipeline.image.provenance.watermark import add_watermark
from valentina_pipeline.serving.inference.adapters import InvalidAdapterError
from valentina_pipeline.serving.inference.conditioning import (
    InputRefusedError,
    check_input_images,
    foreign_face,
    open_images,
)
from valentina_pipeline.serving.inference.control_models import read_controls
from valentina_pipeline.serving.inference.engine import GenerationResult, InferenceEngine
from valentina_pipeline.serving.inference.input_images import Inputs, fit
from valentina_pipeline.serving.inference.package import read
from valentina_pipeline.serving.inference.prompt_notation import InvalidRequestError
from valentina_pipeline.serving.inference.request import (
    GenerationRequest,
    from_png_text,
    parse_request,
    resolve_request,
)
from valentina_pipeline.serving.marks.c2pa import Signer, is_own, read_chain

SIZE = 64
CANNY = {"kind": "canny", "image": pictured(dunes())}


@pytest.fixture(scope="module")
def networks(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a T2I-Adapter for depth, and no LoRA."""
    folder = tmp_path_factory.mktemp("networks")
    shutil.copytree(steering.t2i("sdxl"), folder / "depth")
    listed = "depth: {folder: depth, network: t2i, license: Apache-2.0, scale: 0.9}\n"
    (folder / "controls.yml").write_text(listed)
    return folder


@pytest.fixture(scope="module")
def studio(package: Path, networks: Path) -> InferenceEngine:
    return InferenceEngine.open(package, lora_dir=networks)


def answer(studio: InferenceEngine, **fields: object) -> GenerationResult:
    (one,) = studio.generate(parse_request({"prompt": "smiling", "steps": 5, "seed": 3, **fields}))
    return one


def drawn(studio: InferenceEngine, **fields: object) -> np.ndarray:
    one = answer(studio, **fields)
    assert one.image is not None, one.blocked_reason
    return np.asarray(one.image, np.float64)


def test_a_request_s_pictures_are_drawn_by_each_of_them(studio: InferenceEngine) -> None:
    none = drawn(studio)
    depth = {**CANNY, "kind": "depth"}
    given: list[dict[str, object]] = [
        {"image": pictured(dunes())},
        {"image": pictured(dunes()), "strength": 0.1},
        {"controls": [CANNY]},
        {"controls": [{**CANNY, "scale": 0.3}]},
        {"controls": [depth]},
        {"controls": [CANNY, depth]},
        {"controls": [CANNY], "image": pictured(dunes())},
    ]
    images = [none, *(drawn(studio, **each) for each in given)]
    apart = [np.abs(one - other).max() for n, one in enumerate(images) for other in images[:n]]
    assert min(apart) > 5
    assert np.array_equal(drawn(studio), none)  # nothing is left behind
    assert np.array_equal(drawn(studio, controls=[{**CANNY, "scale": 0}]), none)


@pytest.mark.parametrize("policy", ["model", "sequential"])
def test_where_networks_wait_makes_no_difference(
    policy: Offload, studio: InferenceEngine, package: Path, networks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offload, "choose_placement", lambda *_: Placement(policy, False, "a test"))
    waiting = InferenceEngine.open(package, lora_dir=networks)
    given = {"controls": [CANNY, {**CANNY, "kind": "depth"}], "image": pictured(dunes())}
    assert np.array_equal(drawn(waiting, **given), drawn(studio, **given))


def test_what_a_mask_leaves_is_the_start_s_own_pixels(studio: InferenceEngine) -> None:
    mask = Image.new("L", dunes().size)
    ImageDraw.Draw(mask).rectangle((0, 0, SIDE, SIDE // 2), fill=255)
    image = drawn(studio, image=pictured(dunes()), mask=pictured(mask))
    start = np.asarray(dunes().resize((SIZE, SIZE), Image.Resampling.LANCZOS), np.float64)
    watermark = np.abs(image - start)[SIZE // 2 + 4 :]
    assert watermark.mean() < 2
    assert np.abs(image[: SIZE // 2 - 4] - start[: SIZE // 2 - 4]).mean() > 5


def test_orders_with_other_pictures_are_not_drawn_as_one(studio: InferenceEngine) -> None:
    pictures = [pictured(dunes()), pictured(dunes().rotate(180))]
    orders = [
        resolve_request(
            parse_request({"prompt": "smiling", "seed": 3, "steps": 2, "image": each}), studio.about
        )
        for each in pictures
    ]
    both = [np.asarray(one.image, np.float64) for (one,) in studio.draw(orders)]
    alone = [np.asarray(studio.draw([order])[0][0].image, np.float64) for order in orders]
    assert [np.abs(one - other).max() for one, other in zip(both, alone, strict=True)] == [0, 0]
    assert np.abs(both[0] - both[1]).max() > 5


def test_an_image_s_file_names_its_pictures_and_with_them_it_is_drawn_again(studio: InferenceEngine) -> None:
    fields = {"image": pictured(dunes()), "strength": 0.5, "controls": [CANNY]}
    first = answer(studio, **fields).image
    assert first is not None
    texts = png.decode(png.encode(first)).info["text"]
    assert json.loads(texts["controls"])[0] | {"image_sha256": ""} == {
        "kind": "canny", "scale": 1.0, "preprocess": True, "image_sha256": "",
    }  # fmt: skip
    with pytest.raises(
        InvalidRequestError,
        match=rf"image: needs the input image of the original again: sha256 {texts['image_sha256'][:12]}",
    ):
        from_png_text(texts)
    with pytest.raises(InvalidRequestError, match=r"controls: needs .* again: canny, sha256"):
        from_png_text(texts, frozenset({"image"}))
    again = from_png_text(texts, frozenset({"image", "controls"})).model_dump()
    (repeated,) = studio.generate(
        parse_request({**again, "image": fields["image"], "controls": fields["controls"]})
    )
    assert repeated.image is not None
    assert repeated.image.tobytes() == first.tobytes()
    assert repeated.image.info["text"]["image_sha256"] == texts["image_sha256"]


def test_a_face_that_is_not_hers_is_neither_begun_from_nor_kept_to(
    studio: InferenceEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    face = pictured(somebody())
    shown = "it shows a face that is not known to be Valentina Moreau's"
    assert answer(studio, image=face).blocked_reason == f"image: {shown}: face swaps are not allowed"
    assert shown in answer(studio, controls=[{"kind": "depth", "image": face}]).blocked_reason
    both = [{"kind": "canny", "image": face}, {"kind": "depth", "image": face}]
    assert shown in answer(studio, controls=both).blocked_reason
    assert (
        answer(studio, controls=[{"kind": "canny", "image": face}]).blocked_reason == ""
    )  # lines have no looks
    her = studio._identity_scorer
    assert her is not None
    (found,) = her.find([somebody()])
    looks = her.faces.embed([face_crop(somebody(), found[0], her.faces.size)])
    monkeypatch.setattr(studio, "_identity_scorer", replace(her, known=looks))
    assert answer(studio, image=face).blocked_reason == ""


def test_a_picture_counts_as_drawn_here_by_its_watermark_and_not_by_its_texts(package: Path) -> None:
    about = read(package)
    gate = about.identity.gate
    her = SimpleNamespace(all_of=lambda _: [gate * 0.6])
    bare, own = somebody().resize((256, 256)), add_watermark(somebody().resize((256, 256)))
    bare.info = {"text": {"lora_sha256": about.lora_hash, "synthetic": "true"}}
    assert "not known to be" in foreign_face(bare, about, her)
    assert foreign_face(own, about, her) == ""
    her.all_of = lambda _: [gate * 0.4]
    assert "not known to be" in foreign_face(own, about, her)
    for picture in (bare, own, dunes()):
        assert "cannot be compared" in foreign_face(picture, about, None)


def test_a_picture_counts_as_drawn_here_by_the_signature_of_this_installation(
    package: Path, tmp_path: Path
) -> None:
    about = read(package)
    her = SimpleNamespace(all_of=lambda _: [about.identity.gate * 0.6])
    safe = SimpleNamespace(unsafe=lambda _: "")
    fitted = partial(fit, is_own=partial(is_own, chain=_signing(tmp_path / "ours")))
    picture = add_provenance(somebody(), {})
    files = {name: Signer(tmp_path / name).encode(picture) for name in ("ours", "theirs")}
    files["changed"] = files["ours"].replace(b"synthetic\0true", b"synthetic\0True")
    assert files["changed"] != files["ours"]
    for name, content in files.items():
        request = parse_request({"prompt": "at sea", "image": base64.b64encode(content).decode()})
        order = resolve_request(request, about, fitted=fitted)
        inputs = order.settings.inputs
        assert inputs.own == ((inputs.image,) if name == "ours" else ())
        kept = Inputs.of(json.loads(json.dumps(asdict(inputs))))
        assert kept == inputs and "own" not in kept.marks()
        checked = partial(check_input_images, kept, open_images(order.pictures), about, safe, her)
        if name == "ours":
            checked()
        else:
            with pytest.raises(InputRefusedError, match="not known to be"):
                checked()


def _signing(folder: Path) -> bytes:
    Signer(folder)
    return read_chain(folder)


def test_an_unsafe_picture_or_one_that_cannot_be_looked_at_draws_nothing(
    studio: InferenceEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Strict:
        def unsafe(self, image: Image.Image) -> str:
            return "exposed (score 0.90)"

    monkeypatch.setattr(studio, "_filter", Strict())
    assert answer(studio, image=pictured(dunes())).blocked_reason == "image: exposed (score 0.90)"
    assert answer(studio, controls=[CANNY]).blocked_reason == "controls.0.image: exposed (score 0.90)"


def black(level: int = 0, specks: int = 0) -> Image.Image:
    """A mask that leaves the picture as it is."""
    mask = Image.new("L", dunes().size, level)
    for place in range(specks):
        mask.putpixel((9 * place + 40, 50), 255)
    return mask


def bomb() -> str:
    """A PNG of a few hundred bytes that says it is 50,000 x 50,000."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4) + kind + content + zlib.crc32(kind + content).to_bytes(4)

    header = (50_000).to_bytes(4) * 2 + b"\x08\x02\x00\x00\x00"
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + parts).decode()


@pytest.mark.parametrize(
    ("fields", "name", "said"),
    [
        ({"image": bomb()}, "image", "too many pixels"),
        ({"image": pictured(dunes())[:400]}, "image", "unreadable"),
        ({"image": pictured(Image.new("RGB", (1, 1)))}, "image", "too small"),
        ({"image": pictured(dunes(), "GIF")}, "image", "not an image"),
        ({"image": "nothing!"}, "image", "invalid base64"),
        ({"image": "A" * (40 << 20)}, "image", "too large"),
        ({"image": pictured(dunes()), "mask": pictured(Image.new("L", (SIDE, 80)))}, "mask", "is 96 x 80"),
        ({"mask": pictured(dunes())}, "mask", "needs `image`"),
        ({"strength": 0.5}, "strength", "needs `image`"),
        ({"image": pictured(dunes()), "strength": 1.5}, "strength", "less than or equal to 1"),
        ({"image": pictured(dunes()), "strength": 0}, "strength", "would return the image unchanged"),
        ({"image": pictured(dunes()), "strength": 0.01, "steps": 30}, "strength", "must be at least 0.02"),
        ({"image": pictured(dunes()), "mask": pictured(black())}, "mask", "has no white area"),
        ({"image": pictured(dunes()), "mask": pictured(black(level=20))}, "mask", "has no white area"),
        ({"image": pictured(dunes()), "mask": pictured(black(specks=1))}, "mask", "has no white area"),
        ({"controls": [{**CANNY, "kind": "pose"}]}, "controls.0.kind", "'pose'; available: canny, depth"),
        ({"controls": [{**CANNY, "kind": "smile"}]}, "controls.0.kind", "Input should be 'canny'"),
        ({"controls": [CANNY, {**CANNY, "image": bomb()}]}, "controls.1.image", "too many pixels"),
        ({"controls": [{**CANNY, "scale": 3}]}, "controls.0.scale", "less than or equal to 2"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_by_names_its_field(
    studio: InferenceEngine, fields: dict[str, object], name: str, said: str
) -> None:
    with pytest.raises(InvalidRequestError, match=said) as refused:
        resolve_request(
            parse_request({"prompt": "smiling", **fields}), studio.about, {}, "torch", studio.controls
        )
    assert refused.value.field == name


def test_a_picture_is_taken_upright_in_rgb_without_what_its_file_says_of_it(studio: InferenceEngine) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    exif[0x010E] = "where I live"
    lying = pictured(dunes().rotate(90), "JPEG", quality=95, exif=exif)
    order = resolve_request(
        GenerationRequest(prompt="smiling", image=f"data:image/jpeg;base64,{lying}"), studio.about
    )
    (content,) = order.pictures.values()
    with Image.open(io.BytesIO(content)) as opened:
        assert (opened.format, opened.mode, opened.size) == ("PNG", "RGB", (SIZE, SIZE))
        upright = np.asarray(dunes().resize((SIZE, SIZE)), np.float64)
        assert np.abs(np.asarray(opened, np.float64) - upright).mean() < 8
    assert b"where I live" not in content


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / "controls.yml").write_text("smile: {}"), "invalid kind 'smile'"),
        (lambda folder: (folder / "controls.yml").write_text("depth: {folder: depth}"), "depth.license"),
        (
            lambda folder: (folder / "controls.yml").write_text("depth: {folder: .., license: MIT}"),
            "inside this folder",
        ),
        (
            lambda folder: (folder / "depth/diffusion_pytorch_model.safetensors").unlink(),
            "has no .safetensors file",
        ),
    ],
)
def test_a_wrong_list_of_networks_says_where(
    package: Path, networks: Path, tmp_path: Path, change: Callable[[Path], object], said: str
) -> None:
    folder = shutil.copytree(networks, tmp_path / "networks")
    change(folder)
    with pytest.raises(InvalidAdapterError, match=said):
        read_controls(read(package), tmp_path, folder)


def test_a_size_that_a_t2i_adapter_does_not_read_is_refused_in_words(studio: InferenceEngine) -> None:
    with pytest.raises(InvalidAdapterError, match="depth: width and height must be multiples of 16"):
        answer(studio, controls=[{**CANNY, "kind": "depth"}], width=72)


def test_a_network_for_another_base_is_refused_when_it_is_wanted(
    package: Path, networks: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(networks, tmp_path / "networks")
    shutil.rmtree(folder / "depth")
    shutil.copytree(steering.controlnet("sd15", 1), folder / "depth")
    (folder / "controls.yml").write_text("depth: {folder: depth, license: MIT}")
    studio = InferenceEngine.open(package, lora_dir=folder)
    with pytest.raises(InvalidAdapterError, match="depth: depth: it is for another base"):
        answer(studio, controls=[{**CANNY, "kind": "depth"}])
