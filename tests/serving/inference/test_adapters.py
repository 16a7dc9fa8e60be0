"""LoRAs beside the character's: what the list of them may say, and several at work at once."""

import shutil
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

import packages
from valentina_pipeline.datasets.folders import OutputFolder
from valentina_pipeline.image.lora.adapter import Kind
from valentina_pipeline.image.models import offload
from valentina_pipeline.image.models.offload import Offload, Placement
from valentina_pipeline.serving.inference import lora_stack
from valentina_pipeline.serving.inference.adapters import InvalidAdapterError, read_adapters
from valentina_pipeline.serving.inference.engine import InferenceEngine
from valentina_pipeline.serving.inference.package import PackageInfo, read
from valentina_pipeline.serving.inference.request import GenerationRequest

FILE = "pytorch_lora_weights.safetensors"
ENTRY = {"file": "one.safetensors", "kind": "style", "license": "CC0-1.0"}


@pytest.fixture(scope="module")
def about(package: Path) -> PackageInfo:
    return read(package)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three LoRAs of the package's base."""
    folder = tmp_path_factory.mktemp("adapters")
    entries = {}
    for seed, name in enumerate(("one", "two", "three"), start=2):
        shutil.copy(packages.lora(seed) / FILE, folder / f"{name}.safetensors")
        entries[name] = {**ENTRY, "file": f"{name}.safetensors"}
    (folder / "loras.yml").write_text(yaml.safe_dump(entries))
    return folder


@pytest.fixture(scope="module")
def studio(package: Path, folder: Path) -> InferenceEngine:
    return InferenceEngine.open(package, lora_dir=folder)


def layer(file: Path, width: int = 8, **metadata: str) -> Path:
    """A LoRA of one layer, so many numbers wide."""
    name = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    tensors = {f"{name}.lora_A.weight": torch.ones(2, width), f"{name}.lora_B.weight": torch.ones(width, 2)}
    save_file(tensors, file, metadata)
    return file


def drawn(studio: InferenceEngine, **weights: float) -> np.ndarray:
    uses = [{"name": name, "weight": weight} for name, weight in weights.items()]
    (one,) = studio.generate(GenerationRequest(prompt="smiling", preset="draft", seed=3, loras=uses))  # type: ignore[arg-type]
    assert one.image is not None
    return np.asarray(one.image).astype(int)


def far(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one - other).max())


def test_loras_compose_by_their_weights_and_leave_no_trace(studio: InferenceEngine) -> None:
    alone = drawn(studio)
    both = drawn(studio, one=0.7)
    assert far(alone, both) > 30
    assert far(drawn(studio, one=0.7, two=0.0), both) <= 1
    assert far(drawn(studio, one=0.7, two=0.5), both) > 10
    assert far(drawn(studio), alone) == 0
    # the second one alone: the character's own at weight 0
    assert far(drawn(studio, one=0.7, valentina_moreau=0), both) > 10


@pytest.mark.parametrize("own", ["lokr", "dora"])
def test_loras_of_different_kinds_compose_and_weight_0_is_none(own: Kind, tmp_path: Path) -> None:
    shelf: dict[str, dict[str, str]] = {}
    for seed, kind in enumerate(get_args(Kind), start=5):
        shutil.copy(packages.lora(seed, kind) / FILE, tmp_path / f"{kind}.safetensors")
        shelf[kind] = {**ENTRY, "file": f"{kind}.safetensors"}
    (tmp_path / "loras.yml").write_text(yaml.safe_dump(shelf))
    published = packages.built(tmp_path, lora=packages.lora(1, own))
    OutputFolder(filepath=str(tmp_path / "package")).save(published)
    studio = InferenceEngine.open(tmp_path / "package", lora_dir=tmp_path)
    alone, bare = drawn(studio), drawn(studio, valentina_moreau=0)
    assert far(alone, bare) > 30
    for kind in shelf:
        both = drawn(studio, **{kind: 0.7})
        assert far(both, alone) > 10
        assert far(drawn(studio, valentina_moreau=0, **{kind: 0.7}), both) > 10
        assert far(drawn(studio, valentina_moreau=0, **{kind: 0}), bare) == 0
        assert far(drawn(studio, **{kind: 0}), alone) == 0


@pytest.mark.parametrize(
    ("own", "policy"),
    [("lora", "model"), ("lora", "sequential"), ("dora", "sequential"), ("lokr", "sequential")],
)
def test_where_networks_wait_makes_no_difference(
    own: Kind, policy: Offload, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = packages.built(tmp_path, lora=packages.lora(1, own))
    OutputFolder(filepath=str(tmp_path / "package")).save(published)
    weights: list[dict[str, float]] = [{}, {"one": 0.7}, {"one": 0.7, "two": 0.5}, {"three": 0.5}]
    weights.append({"valentina_moreau": 0})
    resident = InferenceEngine.open(tmp_path / "package", lora_dir=folder)
    images = [drawn(resident, **each) for each in weights]
    monkeypatch.setattr(offload, "choose_placement", lambda *_: Placement(policy, False, "a test"))
    monkeypatch.setattr(lora_stack, "MAX_LOADED_ADAPTERS", 1)
    studio = InferenceEngine.open(tmp_path / "package", lora_dir=folder)
    assert studio.memory["offload"] == policy
    studio.shelf["other"] = studio.shelf["one"].model_copy(
        update={"file": layer(tmp_path / "other.safetensors", width=999)}
    )
    with pytest.raises(InvalidAdapterError):
        drawn(studio, other=1.0)
    for each, image in zip(weights, images, strict=True):
        assert far(drawn(studio, **each), image) == 0


def test_only_so_many_stay_loaded_and_which_makes_no_difference(
    studio: InferenceEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lora_stack, "MAX_LOADED_ADAPTERS", 2)
    first = drawn(studio, one=1.0)
    drawn(studio, two=1.0)
    drawn(studio, three=1.0)
    assert list(studio._lora_stack._loaded) == ["two", "three"]
    adapters = studio._pipe.get_list_adapters()["unet"]
    assert sorted(adapters) == ["beside_three", "beside_two", "default"]
    assert far(drawn(studio, one=1.0), first) == 0
    drawn(studio, one=0.3, two=0.3, three=0.3)  # one request may want more than are kept
    assert len(studio._lora_stack._loaded) == 3


def test_a_lora_that_does_not_fit_says_so_and_the_studio_goes_on(
    package: Path, folder: Path, tmp_path: Path
) -> None:
    other = layer(tmp_path / "other.safetensors", width=999)
    studio = InferenceEngine.open(package, lora_dir=folder)
    studio.shelf["other"] = studio.shelf["one"].model_copy(update={"file": other})
    before = drawn(studio)
    with pytest.raises(InvalidAdapterError, match=r"other: other\.safetensors does not fit this base") as err:
        drawn(studio, other=1.0)
    assert str(tmp_path) not in str(err.value)
    assert far(drawn(studio), before) == 0
    assert far(drawn(studio, one=1.0), before) > 30


@pytest.mark.parametrize(
    "said", ["sdxl_base_v0-9", "SDXL 1.0", "stable-diffusion-xl-1.0-base/lora", "Stable-Diffusion-XL"]
)
def test_a_family_is_known_by_any_tool_s_word_for_it(about: PackageInfo, tmp_path: Path, said: str) -> None:
    layer(tmp_path / "one.safetensors", **{"ss_base_model_version": said, "modelspec.architecture": said})
    (tmp_path / "loras.yml").write_text(yaml.safe_dump({"x": ENTRY}))
    assert list(read_adapters(tmp_path, about)) == ["x"]


@pytest.mark.parametrize(
    ("listing", "said"),
    [
        (None, "loras.yml is missing"),
        ("- a", "must map names to networks"),
        ("a: [", "is not valid YAML"),
        ({"../x": ENTRY}, "'../x' is not a valid name"),
        ({"valentina_moreau": ENTRY}, "not the trigger"),
        ({"x": {**ENTRY, "file": "../one.safetensors"}}, "must be a .safetensors file in this folder"),
        ({"x": {**ENTRY, "file": "one.ckpt"}}, "must be a .safetensors file in this folder"),
        ({"x": {**ENTRY, "file": "none.safetensors"}}, "none.safetensors is missing"),
        ({"x": {**ENTRY, "kind": "character"}}, "x.kind: Input should be"),
        ({"x": {"file": "one.safetensors", "kind": "style"}}, "x.license: Field required"),
        ({"x": {**ENTRY, "weight": 20}}, "x.weight: Input should be less than or equal to 2"),
        ({"x": {**ENTRY, "scenes": ["mars"]}}, "x: unknown scene 'mars'; available: at_home, beach_day"),
        ({"x": {**ENTRY, "file": "broken.safetensors"}}, "is not a valid safetensors file"),
        ({"x": {**ENTRY, "file": "strange.safetensors"}}, "it was trained on the base model 000000000000"),
        ({"x": {**ENTRY, "file": "sd15.safetensors"}}, "it is for stable-diffusion-v1/lora"),
    ],
)
def test_a_wrong_list_says_where(about: PackageInfo, tmp_path: Path, listing: object, said: str) -> None:
    shutil.copy(packages.lora() / FILE, tmp_path / "one.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"\x80\x04pickle")
    layer(tmp_path / "strange.safetensors", base_sha256="0" * 64)
    layer(
        tmp_path / "sd15.safetensors",
        **{"modelspec.architecture": "stable-diffusion-v1/lora", "ss_base_model_version": "sd_v1"},
    )
    if listing is not None:
        text = listing if isinstance(listing, str) else yaml.safe_dump(listing)
        (tmp_path / "loras.yml").write_text(text)
    with pytest.raises(InvalidAdapterError) as err:
        read_adapters(tmp_path, about)
    assert said in str(err.value)
