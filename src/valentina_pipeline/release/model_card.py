"""The model card: what the package is, how good, from what, under which rights, and its limits."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from valentina_pipeline.release import external_tools

if TYPE_CHECKING:
    from valentina_pipeline.release.contents import PackageContents


def card(parts: "PackageContents", rights: Mapping[str, Any]) -> str:
    """Return MODEL_CARD.md: a page of Markdown below the front matter that model hubs read.

    Args:
        parts: what the package is made from.
        rights: `rights_summary` of them.
    """
    sections = (
        _front_matter(parts),
        _opening(parts),
        _figures(parts),
        _decision(parts.decision),
        _training(parts, rights),
        _rights(rights),
        _use(parts),
    )
    return "\n".join(sections)


def _front_matter(parts: "PackageContents") -> str:
    return f"""---
license: other
license_name: see LICENSE
base_model: {parts.base.path}
library_name: diffusers
pipeline_tag: text-to-image
instance_prompt: {parts.concept.trigger}
tags: [text-to-image, lora, diffusers, synthetic-media]
---
"""


def _opening(parts: "PackageContents") -> str:
    person = parts.concept
    return f"""# {person.name}

A LoRA that draws {person.name}, an adult virtual character, for the base model `{parts.base.path}`
({parts.base.licence}; sha256 of its weights `{parts.base_hash}`).
Say `{person.trigger} {person.class_word}` in the prompt to call her.

{"" if parts.grid is None else "![The LoRA beside the bare base](grid.png)"}
"""


def _figures(parts: "PackageContents") -> str:
    m = parts.metrics
    if m is None:
        return """## Figures

Not measured: neither identity nor prompt following nor memorisation. The LoRA came without pictures that it
could be compared with, and its images are not compared with anything when they are drawn.
"""
    identity, copied = m["identity"], m["memorisation"]
    rows = [
        ("Identity: the LoRA", interval(identity["lora"])),
        ("Identity: the bare base with her full description", interval(identity["bare"])),
        ("Identity: ceiling, real against real", interval(identity["ceiling"])),
        ("Identity: floor, somebody else", interval(identity["floor"])),
        ("Identity gained over the bare base", f"{identity['gain']:.3f}"),
        ("Identity as a share of the ceiling", f"{identity['ratio']:.3f}"),
        ("A face is found: the LoRA", interval(m["face_found"]["lora"])),
        ("A face is found: the bare base", interval(m["face_found"]["bare"])),
        ("Prompt following (CLIP-T): the LoRA", interval(m["clip_t"]["lora"])),
        ("Prompt following (CLIP-T): the bare base", interval(m["clip_t"]["bare"])),
        ("Likeness to her portraits (CLIP-I): the LoRA", interval(m["clip_i"]["lora"])),
        ("Diversity: the LoRA", interval(m["diversity"]["lora"])),
        ("Share of images that copy a training image", f"{copied['share_memorised']:.3f}"),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    cfg = parts.evaluate
    return f"""## Figures

Measured on {m["images"]} images of prompts that training never saw ({cfg.steps} steps, guidance
{cfg.guidance:g}, {cfg.images_per_prompt} seeds a prompt); means with 95% bootstrap intervals. Identity is
the cosine of face embeddings (`{parts.base.face_embedder.kind}`) to held-out portraits; CLIP is
`{parts.base.clip.path}`. Figures of another embedder cannot be compared with these.

| | |
|---|---|
{table}
"""


def interval(figure: Mapping[str, float] | float) -> str:
    """Return "0.700 (0.650 to 0.750)", or the bare number where there is no interval."""
    if isinstance(figure, Mapping):
        return f"{figure['mean']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"
    return f"{figure:.3f}"


def _decision(decision: Mapping[str, Any]) -> str:
    reasons = "\n".join(f"- {reason}" for reason in decision["reasons"])
    return f"""## Decision: {decision["status"]}

{reasons}
"""


def _training(parts: "PackageContents", rights: Mapping[str, Any]) -> str:
    trained = parts.train_metrics
    if parts.train is None or trained is None:
        return """## Training

Not known: the LoRA was made elsewhere, on pictures that this package says nothing of.
"""
    settings = "\n".join(f"| {name} | {value} |" for name, value in parts.train.model_dump().items())
    return f"""## Training

{rights["training"]} images; {rights["held_out"]} more were held out for the figures. The manifest of both
has the sha256 `{rights["manifest_sha256"]}`. {trained["trainable_parameters"]:,} trainable parameters,
mean loss of the last 50 steps {trained["mean_loss_last_50"]:.4f}.

| setting | value |
|---|---|
{settings}
"""


def _rights(rights: Mapping[str, Any]) -> str:
    rows = "\n".join(
        f"| {r['id']} | {r['holder']} | {r['licence']} | {', '.join(r['uses'])} | "
        f"{r['expires'] or 'never'} | {'yes' if r['synthetic'] else 'no'} | {r['images']} |"
        for r in rights["records"]
    )
    return f"""## Rights

| record | holder | licence | uses | expires | synthetic | images |
|---|---|---|---|---|---|---|
{rows}
"""


def _use(parts: "PackageContents") -> str:
    person, base = parts.concept, external_tools.checkpoint(parts.base, parts.base_folder)
    return f"""## Use

    uv run kedro generate "smiling, wearing a red dress" --package .
    mlflow models serve --env-manager local --model-uri .

In Python, `mlflow.pyfunc.load_model(".")` takes a table of prompts (and seeds and presets);
`lora/{person.trigger}.kohya.safetensors` is for ComfyUI and the WebUIs;
`comfyui.json`, where there is one, is a workflow for ComfyUI's API: it looks for the LoRA in models/loras
and for the base ({base.location}).

Meant for pictures of {person.name} in scenes that the rights above allow. Not meant for pictures of real
people, for sexual content, or for passing a picture off as a photograph of somebody: prompts and pictures
of that kind are refused, by rules that can err both ways.

**Every image is synthetic and says so**: PNG text and XMP (`digitalSourceType: trainedAlgorithmicMedia`)
carry that, the prompt, the seed and the hashes of base and LoRA. Who publishes one keeps the mark, and
where the law asks for it (such as article 50 of the EU's AI Act) says so visibly.

## Limits

The character is as good as the figures above, in scenes like those they were measured on: poses, lights
and expressions far from them are weaker. What the base cannot draw, the LoRA cannot either, and its
biases are inherited. English prompts only.
"""
