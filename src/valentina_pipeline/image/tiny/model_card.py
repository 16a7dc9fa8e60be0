"""The bars of the tiny world, measured on people and prompts that no network was trained on."""

from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionXLPipeline
from PIL import Image
from rich.progress import track
from torch import nn

from valentina_pipeline.image.faces.detection import detect_faces
from valentina_pipeline.image.faces.tiny_facenet import FaceNetTiny
from valentina_pipeline.image.renderer.wording import caption_from_traits
from valentina_pipeline.image.tiny import clip, faces, vae
from valentina_pipeline.image.tiny.dataset import SIZE, RenderedDataset

COLUMNS = 8
"""Of the sample sheet; the number of images is a multiple of it."""

BARS = {
    "vae_psnr_db": 30.0,
    "face_found_rate": 0.90,
    "face_verification_accuracy": 0.97,
    "clip_retrieval_among_32": 0.80,
}


def measure(
    pipe: StableDiffusionXLPipeline,
    embedder: FaceNetTiny,
    matcher: nn.Module,
    held_out: RenderedDataset,
    images: int,
    seed: int,
) -> tuple[dict[str, float], Image.Image]:
    """Return the figures, faces counted in `images` drawn images, and a sample sheet."""
    accuracy, same, different = faces.verification(faces.embed(embedder, held_out), held_out.person)
    drawn = draw(pipe, held_out, images, seed)
    found = [
        bool(people) and max(face.probability for face in people) >= 0.9 for people in detect_faces(drawn)
    ]
    figures = {
        "vae_psnr_db": vae.psnr(pipe.vae, held_out.pixels),
        "face_found_rate": float(np.mean(found)),
        "face_verification_accuracy": accuracy,
        "face_cosine_same": same,
        "face_cosine_different": different,
        "clip_retrieval_among_32": clip.retrieval(matcher, held_out, 32, seed),
    }
    return {name: round(value, 4) for name, value in figures.items()}, _sheet(pipe, held_out, drawn)


def draw(
    pipe: StableDiffusionXLPipeline, held_out: RenderedDataset, count: int, seed: int
) -> list[Image.Image]:
    """Draw `count` images from the full captions of held-out pictures, 20 steps, guidance 4."""
    pipe.set_progress_bar_config(disable=True)
    rows = np.random.default_rng(seed).choice(len(held_out.attributes), size=count, replace=False)
    prompts = [caption_from_traits(held_out.attributes[i], "woman") for i in rows]
    images = []
    for start in track(range(0, count, 20), description="draw"):
        part = prompts[start : start + 20]
        generators = [torch.Generator().manual_seed(seed * 10**6 + start + i) for i in range(len(part))]
        images += pipe(
            part, num_inference_steps=20, guidance_scale=4.0, height=SIZE, width=SIZE, generator=generators
        ).images
    return images


def text(figures: dict[str, float], followed: dict[str, float], params: dict[str, Any]) -> str:
    """Return the model card as Markdown; `followed` is control.measure's."""
    bars = "\n".join(
        f"| {name} | {figures[name]:g} | {bar:g} | {'holds' if figures[name] >= bar else 'missed'} |"
        for name, bar in BARS.items()
    )
    drawn = params["render"]
    strangers = drawn["strangers"]
    trained = {stage: params[stage] for stage in ("vae", "faces", "clip", "unet", "control")}
    trained["vae, whole pictures"] = {**params["vae"]["whole"], "batch": params["vae"]["batch"] // 2}
    steps = "\n".join(
        f"| {stage} | {p['steps']} | {p['batch']} | {p['optimiser']} | {p['rate']:g} |"
        for stage, p in trained.items()
    )
    agree = "\n".join(f"| {name.rpartition('_')[2]} | {value:g} |" for name, value in followed.items())
    return f"""# The tiny world: model card

A base model of true SDXL architecture, its ControlNet, a CLIP and a face embedder, small enough for two
cores and for git. They exist so that the whole pipeline runs and really learns with no GPU and no
download. They know one kind of picture: rendered head-and-shoulders portraits of adult women at {SIZE} px,
worded as in `image/renderer/wording.py`. They are of no use for photographs.

![held-out portraits, their reconstructions, and images drawn from held-out captions](samples.png)

Rows: held-out portraits; the same through the VAE; drawn by the base from their captions.

## Held-out figures

Measured by `uv run python -m valentina_pipeline.image.tiny card` on {drawn["held_out"]} people who were
never trained on. The face rate is MTCNN's (probability at least 0.9) over {params["card"]["images"]} images
drawn from held-out captions, 20 steps, guidance 4.

| figure | measured | bar | |
|---|---|---|---|
{bars}

Mean cosine of two pictures of one person {figures["face_cosine_same"]:g}, of two people
{figures["face_cosine_different"]:g}.

## Edges

`weights/controlnet_canny` has the base draw along Canny edges. F1 of the edges of
{params["control"]["pictures"]} drawings against those of the held-out portraits that they were to keep to,
one pixel aside still right; at scale 0 the base has the portrait's caption alone.

| scale | F1 |
|---|---|
{agree}

## Data

{drawn["people"] - drawn["held_out"]} random people with {drawn["scenes"]} scenes each, from the portrait
renderer (`image/portrait`), captioned with their true attributes; for the face embedder and the
U-Net {strangers["people"]} more with {strangers["scenes"]} scenes each. No photograph, no real person, and
none of the built-in characters.

## Training

| network | steps | batch | optimiser | peak rate |
|---|---|---|---|---|
{steps}

`uv run dvc repro --force tiny/dvc.yaml` makes the weights again; each stage goes on after an interruption.
Licence: Apache-2.0.
"""


def _sheet(
    pipe: StableDiffusionXLPipeline, held_out: RenderedDataset, drawn: list[Image.Image]
) -> Image.Image:
    rows = np.linspace(0, len(held_out.pixels) - 1, COLUMNS).astype(int)
    pixels = held_out.pixels[rows]
    shown = np.stack([np.asarray(image) for image in drawn[: COLUMNS * 3]])
    lines = [pixels, vae.reconstruct(pipe.vae, pixels), *np.split(shown, len(shown) // COLUMNS)]
    return Image.fromarray(np.vstack([np.hstack(list(line)) for line in lines]))
