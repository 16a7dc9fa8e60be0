"""The recipe of the tiny world, from rendered people to the model card, with a few people and two steps."""

import json
import shutil
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from diffusers import ControlNetModel, StableDiffusionXLPipeline
from torch import Tensor, nn

from valentina_pipeline.image.evaluate.attributes import FIELDS
from valentina_pipeline.image.evaluate.panel import load_panel
from valentina_pipeline.image.tiny import dataset
from valentina_pipeline.image.tiny.__main__ import main
from valentina_pipeline.image.tiny.faces import MARGIN, SCALE, margin_loss, verification
from valentina_pipeline.image.tiny.trainer import Plan, choose_optimizers, orthogonal, train_network
from valentina_pipeline.image.tiny.unet import WordReader

MORE = {"steps": 2, "rate": 1e-3, "optimizer": "adamw"}
STEPS = {**MORE, "batch": 4}
PARAMS = {
    "seed": 3,
    "render": {"people": 6, "held_out": 4, "scenes": 2, "strangers": {"people": 2, "scenes": 2}},
    "vae": {**STEPS, "whole": MORE},
    **dict.fromkeys(("clip", "faces"), STEPS),
    "unet": {**STEPS, "words": MORE},
    "control": {**STEPS, "pictures": 2},
    "judges": {"first": 50, "people": 4, "strangers": 2, "scenes": 4},
    "card": {"images": 8, "near_identity": 2},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which the whole recipe ran."""
    folder = tmp_path_factory.mktemp("recipe")
    (folder / "tiny").mkdir()
    threads = torch.get_num_threads()
    text = yaml.safe_dump({**PARAMS, "threads": threads})
    (folder / "tiny/params.yaml").write_text(text)
    with chdir(folder):
        for stage in ("render", "vae", "clip", "faces", "unet", "control", "judges", "card"):
            run(stage)
    yield folder
    torch.set_num_threads(threads)


def run(stage: str) -> None:
    done = CliRunner().invoke(main, [stage], catch_exceptions=False)
    assert done.exit_code == 0, done.output


@pytest.mark.slow
def test_the_base_loads_as_a_plain_sdxl_pipeline(made: Path) -> None:
    base = StableDiffusionXLPipeline.from_pretrained(made / "tiny/weights/base", dtype=torch.float32)
    assert base.unet.config.addition_embed_type == "text_time"
    words = base.tokenizer("valentina moreau smiling").input_ids
    assert words == base.tokenizer_2("valentina moreau smiling").input_ids
    assert len(base.tokenizer) == 49408
    image = base("a portrait", num_inference_steps=1, height=128, width=128, output_type="np").images[0]
    assert np.isfinite(image).all()


@pytest.mark.slow
def test_the_control_is_a_plain_controlnet_of_the_base_and_its_figures_are_on_the_card(made: Path) -> None:
    base = StableDiffusionXLPipeline.from_pretrained(made / "tiny/weights/base", dtype=torch.float32)
    network = ControlNetModel.from_pretrained(made / "tiny/weights/controlnet_canny")
    assert network.config.block_out_channels == base.unet.config.block_out_channels
    assert network.controlnet_mid_block.weight.any()  # it begins as zero
    figures = json.loads((made / "tiny/control.json").read_text())
    assert list(figures) == ["edges_f1_scale_0", "edges_f1_scale_0.5", "edges_f1_scale_1"]
    assert f"| 0.5 | {figures['edges_f1_scale_0.5']:g} |" in (made / "tiny/README.md").read_text()


@pytest.mark.slow
def test_the_judges_are_the_panel_of_an_evaluation_with_the_embedder_of_the_recipe(made: Path) -> None:
    values = json.loads((made / "tiny/judges.json").read_text())
    panel = load_panel(values, made / "tiny/weights/faces.safetensors")
    assert panel is not None and panel.strangers.shape == (2, 128)
    assert np.allclose(np.linalg.norm(panel.strangers, axis=1), 1, atol=1e-3)
    assert set(panel.attributes.accuracy) == set(FIELDS)
    assert load_panel(values, made / "tiny/weights/clip/open_clip_model.safetensors") is None


@pytest.mark.slow
def test_the_card_says_each_bar_and_whether_it_holds(made: Path) -> None:
    figures = json.loads((made / "tiny/metrics.json").read_text())
    text = (made / "tiny/README.md").read_text()
    for name in ("vae_psnr_db", "face_found_rate", "face_verification_accuracy", "clip_retrieval_among_32"):
        assert f"| {name} | {figures[name]:g} |" in text
    assert "missed" in text  # two steps teach nothing
    for field in FIELDS:
        real, base = figures["attributes"][field]["real"], figures["attributes"][field]["base"]
        assert f"| {FIELDS[field]} | {real:g} | {base:g} |" in text
    shares = figures["near_identity"]["dlib, whitened"].values()
    assert f"| dlib, whitened | {' | '.join(f'{share:g}' for share in shares)} |" in text
    assert figures["attributes"]["place"]["real"] > 0.5  # the judges see what two steps cannot draw
    assert (made / "tiny/samples.png").is_file()


@pytest.mark.slow
def test_a_finished_stage_run_again_gives_the_same_bytes(made: Path) -> None:
    weights = made / "tiny/weights/faces.safetensors"
    before = weights.read_bytes()
    weights.unlink()
    shutil.rmtree(made / "tiny/state", ignore_errors=False)
    with chdir(made):
        run("faces")  # renders the people again as well
    assert weights.read_bytes() == before


def test_people_already_rendered_stay_when_a_stopped_render_goes_on(tmp_path: Path) -> None:
    whole = dataset.load(range(2), 2, seed=5, cache=tmp_path)
    kept = tmp_path / "parts/00000.npz"
    before = kept.stat().st_mtime_ns
    (tmp_path / "attributes.json").unlink()
    (tmp_path / "parts/00001.npz").unlink()
    again = dataset.load(range(2), 2, seed=5, cache=tmp_path)
    assert again.digest() == whole.digest()
    assert kept.stat().st_mtime_ns == before


def test_held_out_people_are_in_no_training_picture(tmp_path: Path) -> None:
    train, held_out = dataset.split(dataset.load(range(3), 1, seed=5, cache=tmp_path), 1)
    assert set(train.person) == {0, 1}
    assert set(held_out.person) == {2}


def test_a_person_is_the_same_in_any_range(tmp_path: Path) -> None:
    both = dataset.load(range(2), 1, seed=5, cache=tmp_path / "both")
    second = dataset.load(range(1, 2), 1, seed=5, cache=tmp_path / "second")
    assert np.array_equal(both.people(np.array([1])).pixels, second.pixels)
    assert list(second.person) == [1]
    assert (both + second).attributes == both.attributes + second.attributes


def test_the_reader_learns_the_words_that_captions_name_and_the_color_apart_from_the_garment() -> None:
    torch.manual_seed(1)
    captions = [
        {"dress": f"{color} {garment}"} for color in ("pale yellow", "red") for garment in ("shirt", "dress")
    ]
    reader = WordReader(captions)
    context, pooled = torch.randn(4, 3, 96), torch.randn(4, 48)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=0.1)
    first = reader.loss(context, pooled, captions)
    for _ in range(20):
        optimizer.zero_grad()
        reader.loss(context, pooled, captions).backward()
        optimizer.step()

    assert reader.labels == {"dress": ["dress", "shirt"], "dress_color": ["pale yellow", "red"]}
    assert reader.loss(context, pooled, captions) < 0.1 * first
    assert reader.loss(context, pooled, [{}] * 4) == 0  # captions without words


class Stopped(Exception):
    pass


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_stopped_training_goes_on_to_the_same_weights(
    tmp_path: Path, optimizer: Literal["adamw", "muon"]
) -> None:
    def train(state: Path, stop_at: int | None) -> Tensor:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(3, 16), nn.Conv1d(16, 16, 1), nn.Linear(16, 1))

        def loss(step: int, rng: np.random.Generator, noise: torch.Generator) -> Tensor:
            if step == stop_at:
                raise Stopped
            seen = torch.randn(4, 3, generator=noise) + float(rng.normal())
            hidden = network[1](network[0](seen)[..., None])[..., 0]
            return (network[2](hidden) - seen.sum(dim=1, keepdim=True)).square().mean()

        train_network(
            network, loss, Plan(steps=150, rate=1e-2, optimizer=optimizer), seed=1, state=state, name="line"
        )
        return torch.cat([p.detach().flatten() for p in network.parameters()])

    uninterrupted = train(tmp_path / "one.pt", None)
    with pytest.raises(Stopped):
        train(tmp_path / "two.pt", 120)
    assert torch.equal(train(tmp_path / "two.pt", None), uninterrupted)


@pytest.mark.parametrize("shape", [(3, 16, 40), (3, 40, 16)])
def test_orthogonalising_keeps_directions_and_evens_out_their_strengths(shape: tuple[int, int, int]) -> None:
    u, s, v = torch.linalg.svd(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    wide = torch.zeros(shape).diagonal_scatter(s * torch.logspace(0, -1, s.shape[1]), dim1=1, dim2=2)
    strengths = u.mT @ orthogonal(u @ wide @ v) @ v.mT
    even = strengths.diagonal(dim1=1, dim2=2)
    assert even.min() > 0.5 and even.max() < 1.3
    assert torch.allclose(strengths, torch.zeros(shape).diagonal_scatter(even, dim1=1, dim2=2), atol=1e-4)


def test_muon_moves_kernels_and_leaves_embeddings_and_narrow_layers_to_adamw() -> None:
    network = nn.Sequential(nn.Conv2d(16, 16, 3), nn.Linear(16, 4))
    network.add_module("embedding", nn.Embedding(16, 16))
    muon, adamw = choose_optimizers(network, Plan(steps=1, rate=1.0, optimizer="muon"))
    assert [p.shape for p in muon.param_groups[0]["params"]] == [(16, 16, 3, 3)]
    assert len(adamw.param_groups[0]["params"]) == len(list(network.parameters())) - 1


def test_the_margin_loss_is_least_where_each_person_s_two_pictures_alone_are_alike() -> None:
    alike = torch.eye(3).repeat(2, 1)
    mixed_up = torch.cat([torch.eye(3), torch.eye(3).roll(1, dims=0)])
    assert margin_loss(alike) < 0.01 < 5 < margin_loss(mixed_up)


def test_the_margin_counts_against_the_person_s_own_picture() -> None:
    all_alike = torch.ones(6, 1)
    assert margin_loss(all_alike) == pytest.approx(np.log(1 + 4 * np.exp(SCALE * MARGIN)))


def test_verification_counts_both_kinds_of_pairs_alike() -> None:
    vectors = np.eye(3)[[0, 0, 1, 1, 2, 2]]
    assert verification(vectors, np.array([0, 0, 1, 1, 2, 2])) == (1.0, 1.0, 0.0)
    accuracy, _, _ = verification(vectors, np.array([0, 1, 0, 1, 0, 1]))
    assert accuracy < 0.5
