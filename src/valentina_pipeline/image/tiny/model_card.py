"""Metrics and model card of the embedded base, measured on held-out people and prompts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionXLPipeline
from PIL import Image
from rich.progress import track
from torch import nn

from valentina_pipeline.image.evaluate.attributes import (
    FIELDS,
    AttributeJudges,
    compare_attributes,
    requested_attributes,
)
from valentina_pipeline.image.faces.detection import Face, detect_faces
from valentina_pipeline.image.faces.similarity import main_face
from valentina_pipeline.image.faces.tiny_facenet import FaceNetTiny
from valentina_pipeline.image.renderer.wording import caption_from_traits
from valentina_pipeline.image.tiny import clip, faces, near_identity, unet, vae
from valentina_pipeline.image.tiny.dataset import SIZE, RenderedDataset

COLUMNS = 8
"""Columns of the sample sheet; the number of images is a multiple of it."""

THRESHOLDS = {
    "vae_psnr_db": 30.0,
    "face_found_rate": 0.90,
    "face_verification_accuracy": 0.97,
    "clip_retrieval_among_32": 0.80,
}

FOLLOWED_THRESHOLDS = {"expression": 0.82, "turn": 0.88, "clothes_color": 0.80, "place": 0.97, "light": 0.80}
"""Minimum share of images that show a requested attribute, relative to the judges' share on real renders."""

GUIDANCE = 1.5


def measure(
    pipe: StableDiffusionXLPipeline,
    embedder: FaceNetTiny,
    matcher: nn.Module,
    judges: AttributeJudges,
    held_out: RenderedDataset,
    images: int,
    seed: int,
) -> tuple[dict[str, Any], Image.Image]:
    """Return the metrics and a sample sheet; faces and attributes are read from `images` generated images."""
    accuracy, same, different = faces.verification(faces.embed(embedder, held_out), held_out.person)
    rows = np.random.default_rng(seed).choice(len(held_out.attributes), size=images, replace=False)
    prompts = [caption_from_traits(held_out.attributes[i], "woman") for i in rows]
    generated = generate(pipe, prompts, seed)
    real = [Image.fromarray(held_out.pixels[i]) for i in rows]
    drawn = [main_face(image, detect_faces)[0] for image in generated]
    pictured = [main_face(image, detect_faces)[0] for image in real]
    metrics = {
        "vae_psnr_db": vae.psnr(pipe.vae, held_out.pixels),
        "face_found_rate": float(np.mean([face is not None for face in drawn])),
        "face_verification_accuracy": accuracy,
        "face_cosine_same": same,
        "face_cosine_different": different,
        "clip_retrieval_among_32": clip.retrieval(matcher, held_out, 32, seed),
    }
    rounded: dict[str, Any] = {name: round(value, 4) for name, value in metrics.items()}
    shown = {
        "real": _shares_shown(real, pictured, prompts, judges),
        "base": _shares_shown(generated, drawn, prompts, judges),
    }
    rounded["attributes"] = {f: {name: share[f] for name, share in shown.items()} for f in FIELDS}
    return rounded, _sheet(pipe, held_out, generated)


def _shares_shown(
    images: Sequence[Image.Image],
    found: Sequence[Face | None],
    prompts: Sequence[str],
    judges: AttributeJudges,
) -> dict[str, float]:
    """Return by attribute the share of images that show what their prompt requests."""
    shown = [
        compare_attributes(requested_attributes(prompt), judges.read(image, face))
        for image, face, prompt in zip(images, found, prompts, strict=True)
    ]
    return {f: round(float(np.mean([seen[f] for seen in shown if f in seen])), 4) for f in FIELDS}


def generate(pipe: StableDiffusionXLPipeline, prompts: Sequence[str], seed: int) -> list[Image.Image]:
    """Generate an image of each prompt, 20 steps, at GUIDANCE."""
    pipe.set_progress_bar_config(disable=True)
    images = []
    for start in track(range(0, len(prompts), 20), description="generate"):
        batch = list(prompts[start : start + 20])
        generators = [torch.Generator().manual_seed(seed * 10**6 + start + i) for i in range(len(batch))]
        images += pipe(
            batch,
            num_inference_steps=20,
            guidance_scale=GUIDANCE,
            height=SIZE,
            width=SIZE,
            generator=generators,
        ).images
    return images


def text(metrics: Mapping[str, Any], edge_scores: dict[str, float], params: dict[str, Any]) -> str:
    """Return the model card as Markdown; `edge_scores` is the result of control.measure."""
    thresholds = "\n".join(
        f"| {name} | {metrics[name]:g} | {minimum:g} | {_verdict(metrics[name], minimum)} |"
        for name, minimum in THRESHOLDS.items()
    )
    render = params["render"]
    extra = render["strangers"]
    trained = {stage: params[stage] for stage in ("vae", "faces", "clip", "unet", "control")}
    trained["vae, whole images"] = {**params["vae"]["whole"], "batch": params["vae"]["batch"] // 2}
    trained["text encoders, words"] = {**params["unet"]["words"], "batch": unet.WORDS_BATCH}
    steps = "\n".join(
        f"| {stage} | {p['steps']} | {p['batch']} | {p['optimizer']} | {p['rate']:g} |"
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
generated from held-out captions, 20 steps, guidance {GUIDANCE:g}.

| metric | measured | threshold | |
|---|---|---|---|
{thresholds}

Mean cosine of two images of one person {metrics["face_cosine_same"]:g}, of two people
{metrics["face_cosine_different"]:g}.

{_attribute_sections(metrics, params)}
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


def _attribute_sections(metrics: Mapping[str, Any], params: dict[str, Any]) -> str:
    """Return the sections on attributes and near-identity."""
    triples = "\n".join(
        f"| {judge} | {' | '.join(f'{share:g}' for share in shares.values())} |"
        for judge, shares in metrics["near_identity"].items()
    )
    followed = "\n".join(_followed_row(field, metrics["attributes"][field]) for field in FIELDS)
    return f"""## Attributes

The share of the same images that show what their captions request. Judges that no caption taught read them
(`image/evaluate/attributes.py`); their share on the real renders of these captions stands beside it. The
threshold applies to the ratio of both.

| attribute | real renders | generated | ratio | threshold | |
|---|---|---|---|---|---|
{followed}

## Near-identity

The share of {params["card"]["near_identity"]} triples in which a judge finds a portrait nearer to the same
person in another scene than to another person in the same scene, with the same colors and hair.

| judge | {" | ".join(near_identity.KINDS)} |
|---|---|---|
{triples}
"""


def _verdict(measured: float, minimum: float) -> str:
    return "holds" if measured >= minimum else "missed"


def _followed_row(field: str, share: Mapping[str, float]) -> str:
    """Return the row of an attribute, from its shares on real renders and on generated images."""
    ratio = round(share["base"] / max(share["real"], 1e-4), 4)
    minimum = FOLLOWED_THRESHOLDS[field]
    verdict = _verdict(ratio, minimum)
    shares = f"{share['real']:g} | {share['base']:g} | {ratio:g}"
    return f"| {FIELDS[field]} | {shares} | {minimum:g} | {verdict} |"


def _sheet(
    pipe: StableDiffusionXLPipeline, held_out: RenderedDataset, generated: list[Image.Image]
) -> Image.Image:
    rows = np.linspace(0, len(held_out.pixels) - 1, COLUMNS).astype(int)
    pixels = held_out.pixels[rows]
    samples = np.stack([np.asarray(image) for image in generated[: COLUMNS * 3]])
    lines = [pixels, vae.reconstruct(pipe.vae, pixels), *np.split(samples, len(samples) // COLUMNS)]
    return Image.fromarray(np.vstack([np.hstack(list(line)) for line in lines]))
