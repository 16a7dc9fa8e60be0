"""Metrics and model card of the embedded base, measured on held-out people and prompts."""

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
"""Columns of the sample sheet; the number of images is a multiple of it."""

THRESHOLDS = {
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
    """Return the metrics and a sample sheet; faces are counted in `images` generated images."""
    accuracy, same, different = faces.verification(faces.embed(embedder, held_out), held_out.person)
    generated = generate(pipe, held_out, images, seed)
    found = [
        bool(people) and max(face.probability for face in people) >= 0.9 for people in detect_faces(generated)
    ]
    metrics = {
        "vae_psnr_db": vae.psnr(pipe.vae, held_out.pixels),
        "face_found_rate": float(np.mean(found)),
        "face_verification_accuracy": accuracy,
        "face_cosine_same": same,
        "face_cosine_different": different,
        "clip_retrieval_among_32": clip.retrieval(matcher, held_out, 32, seed),
    }
    return {name: round(value, 4) for name, value in metrics.items()}, _sheet(pipe, held_out, generated)


def generate(
    pipe: StableDiffusionXLPipeline, held_out: RenderedDataset, count: int, seed: int
) -> list[Image.Image]:
    """Generate `count` images from the full captions of held-out images, 20 steps, guidance 4."""
    pipe.set_progress_bar_config(disable=True)
    rows = np.random.default_rng(seed).choice(len(held_out.attributes), size=count, replace=False)
    prompts = [caption_from_traits(held_out.attributes[i], "woman") for i in rows]
    images = []
    for start in track(range(0, count, 20), description="generate"):
        batch = prompts[start : start + 20]
        generators = [torch.Generator().manual_seed(seed * 10**6 + start + i) for i in range(len(batch))]
        images += pipe(
            batch, num_inference_steps=20, guidance_scale=4.0, height=SIZE, width=SIZE, generator=generators
        ).images
    return images


def text(metrics: dict[str, float], edge_scores: dict[str, float], params: dict[str, Any]) -> str:
    """Return the model card as Markdown; `edge_scores` is the result of control.measure."""
    thresholds = "\n".join(
        f"| {name} | {metrics[name]:g} | {minimum:g} | {'holds' if metrics[name] >= minimum else 'missed'} |"
        for name, minimum in THRESHOLDS.items()
    )
    render = params["render"]
    extra = render["strangers"]
    trained = {stage: params[stage] for stage in ("vae", "faces", "clip", "unet", "control")}
    trained["vae, whole images"] = {**params["vae"]["whole"], "batch": params["vae"]["batch"] // 2}
    steps = "\n".join(
        f"| {stage} | {p['steps']} | {p['batch']} | {p['optimiser']} | {p['rate']:g} |"
        for stage, p in trained.items()
    )
    agree = "\n".join(f"| {name.rpartition('_')[2]} | {value:g} |" for name, value in edge_scores.items())
    return f"""# Embedded base: model card

A base model with the SDXL architecture, its ControlNet, a CLIP and a face embedder, small enough for two
CPU cores and for git. With them the whole pipeline runs and trains without a GPU and without downloads.
They know one kind of image: rendered head-and-shoulders portraits of adult women at {SIZE} px, captioned
as in `image/renderer/wording.py`. They are unsuitable for photographs.

![held-out portraits, their reconstructions, and images generated from held-out captions](samples.png)

Rows: held-out portraits; their VAE reconstructions; images generated from their captions.

## Metrics on held-out people

Measured by `uv run python -m valentina_pipeline.image.tiny card` on {render["held_out"]} people held out
from training. The face rate is MTCNN's (probability at least 0.9) over {params["card"]["images"]} images
generated from held-out captions, 20 steps, guidance 4.

| metric | measured | threshold | |
|---|---|---|---|
{thresholds}

Mean cosine of two images of one person {metrics["face_cosine_same"]:g}, of two people
{metrics["face_cosine_different"]:g}.

## Edges

`weights/controlnet_canny` makes the base model follow Canny edges. The table shows the F1 between the edges
of {params["control"]["pictures"]} generated images and those of the held-out portraits, with a tolerance of
one pixel. At scale 0 the base model gets only the portrait's caption.

| scale | F1 |
|---|---|
{agree}

## Data

{render["people"] - render["held_out"]} random people with {render["scenes"]} scenes each, from the portrait
renderer (`image/renderer`), captioned with their true attributes; for the face embedder and the
U-Net {extra["people"]} more with {extra["scenes"]} scenes each. No photograph, no real person, and
none of the built-in characters.

## Training

| network | steps | batch | optimizer | peak learning rate |
|---|---|---|---|---|
{steps}

`uv run dvc repro --force tiny/dvc.yaml` trains the weights again; each stage resumes after an interruption.
License: Apache-2.0.
"""


def _sheet(
    pipe: StableDiffusionXLPipeline, held_out: RenderedDataset, generated: list[Image.Image]
) -> Image.Image:
    rows = np.linspace(0, len(held_out.pixels) - 1, COLUMNS).astype(int)
    pixels = held_out.pixels[rows]
    samples = np.stack([np.asarray(image) for image in generated[: COLUMNS * 3]])
    lines = [pixels, vae.reconstruct(pipe.vae, pixels), *np.split(samples, len(samples) // COLUMNS)]
    return Image.fromarray(np.vstack([np.hstack(list(line)) for line in lines]))
