"""Model card of a package: metrics, decision, training settings, rights, use and limits."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from valentina_pipeline.common.confidence_intervals import format_interval
from valentina_pipeline.release import external_tools

if TYPE_CHECKING:
    from valentina_pipeline.release.contents import PackageContents

ATTRIBUTE_ROWS = {"lora": "LoRA", "base": "base model", "real": "real portraits"}
"""Columns of the table of requested attributes: keys in metrics.json, with their headings."""

USE, INTENDED_USE = "## Use\n", "Intended use:"
"""Beginning of the section on use, and of its part that holds wherever the LoRA is loaded from."""


def card(parts: "PackageContents", decision: Mapping[str, Any], rights: Mapping[str, Any]) -> str:
    """Return MODEL_CARD.md: a page of Markdown below the front matter that model hubs read.

    Args:
        parts: the package's contents.
        decision: the result of release/gates.py.
        rights: their `rights_summary`.
    """
    sections = (
        _front_matter(parts),
        _opening(parts),
        _figures(parts),
        _decision(decision),
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
    character = parts.concept
    return f"""# {character.name}

A LoRA of {character.name}, an adult virtual character, for the base model `{parts.base.path}`
({parts.base.license}; sha256 of its weights `{parts.base_hash}`).
Write `{character.trigger} {character.class_word}` in the prompt to generate the character.

{"" if parts.comparison_grid is None else "![The LoRA beside the base model](comparison_grid.png)"}
"""


def _figures(parts: "PackageContents") -> str:
    m = parts.metrics
    if m is None:
        return """## Metrics

Not measured: neither identity, prompt adherence nor memorization. The LoRA came without reference images, so
generated images are not compared with anything.
"""
    identity, copied = m["identity"], m["memorization"]
    rows = [
        ("Identity: the LoRA", format_interval(identity["lora"])),
        ("Identity: the base model with the full description", format_interval(identity["base"])),
        ("Identity: ceiling, real against real", format_interval(identity["ceiling"])),
        ("Identity: floor, somebody else", format_interval(identity["floor"])),
        ("Identity gained over the base model", f"{identity['gain_over_base']:.3f}"),
        ("Identity as a share of the ceiling", f"{identity['ratio_to_ceiling']:.3f}"),
        *_identity_scale(m),
        ("Face detected: the LoRA", format_interval(m["face_detection_rate"]["lora"])),
        ("Face detected: the base model", format_interval(m["face_detection_rate"]["base"])),
        ("Prompt adherence (CLIP-T): the LoRA", format_interval(m["clip_t"]["lora"])),
        ("Prompt adherence (CLIP-T): the base model", format_interval(m["clip_t"]["base"])),
        ("Similarity to the portraits (CLIP-I): the LoRA", format_interval(m["clip_i"]["lora"])),
        ("Diversity: the LoRA", format_interval(m["diversity"]["lora"])),
        ("Share of images that copy a training image", f"{copied['rate']:.3f}"),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    cfg = parts.evaluate
    return f"""## Metrics

Measured on {m["num_images"]} images of prompts that training never saw ({cfg.num_inference_steps} steps,
guidance {cfg.guidance_scale:g}, {cfg.num_images_per_prompt} seeds a prompt); means with 95% bootstrap
intervals. Identity is the cosine of face embeddings (`{parts.base.face_embedder.kind}`) to held-out
portraits; CLIP is `{parts.base.clip.path}`. Metrics of another embedder cannot be compared with these.

| | |
|---|---|
{table}
{_attributes(m)}"""


def _identity_scale(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the rows of the LoRA's identity by judge; empty where no judge knows the base model's world."""
    return [
        (
            f"Identity between strangers (0) and real portraits (1), by {judge}",
            format_interval(places["lora"]),
        )
        for judge, places in metrics.get("identity_scale", {}).items()
        if isinstance(places, dict)
    ]


def _attributes(metrics: Mapping[str, Any]) -> str:
    """Return the table of requested attributes; empty where no judge knows the base model's world."""
    rows = [
        [field.replace("_", " "), *(format_interval(shares[name]) for name in ATTRIBUTE_ROWS)]
        for field, shares in metrics.get("attributes", {}).items()
    ]
    if not rows:
        return ""
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"""
Share of images that show the attributes that their prompt requests, read by judges that were trained on no
caption. What they miss in real portraits, against these captions, is their own error.

| requested | {" | ".join(ATTRIBUTE_ROWS.values())} |
|---|---|---|---|
{table}
"""


def _decision(decision: Mapping[str, Any]) -> str:
    reasons = "\n".join(f"- {reason}" for reason in decision["reasons"])
    return f"""## Decision: {decision["status"]}

{reasons}
"""


def _training(parts: "PackageContents", rights: Mapping[str, Any]) -> str:
    trained = parts.train_metrics
    if parts.train is None or trained is None:
        return """## Training

Unknown: the LoRA was made elsewhere, and this package has no record of its training images.
"""
    settings = "\n".join(f"| {name} | {value} |" for name, value in parts.train.model_dump().items())
    return f"""## Training

{rights["training"]} images; {rights["held_out"]} more were held out for evaluation. The manifest of both
has the sha256 `{rights["manifest_sha256"]}`. {trained["trainable_parameters"]:,} trainable parameters,
mean loss of the last 50 steps {trained["train_loss_mean_last_50"]:.4f}.

| setting | value |
|---|---|
{settings}
"""


def _rights(rights: Mapping[str, Any]) -> str:
    rows = "\n".join(
        f"| {r['id']} | {r['holder']} | {r['license']} | {', '.join(r['uses'])} | "
        f"{r['expires'] or 'never'} | {'yes' if r['synthetic'] else 'no'} | {r['images']} |"
        for r in rights["records"]
    )
    return f"""## Rights

| record | holder | license | uses | expires | synthetic | images |
|---|---|---|---|---|---|---|
{rows}
"""


def _use(parts: "PackageContents") -> str:
    character, base = parts.concept, external_tools.checkpoint(parts.base, parts.base_path)
    return f"""{USE}
    uv run kedro generate "smiling, wearing a red dress" --package .
    mlflow models serve --env-manager local --model-uri .

In Python, `mlflow.pyfunc.load_model(".")` takes a table of prompts (and seeds and presets);
`lora/{character.trigger}.kohya.safetensors` is for ComfyUI and the WebUIs;
`comfyui.json`, where present, is a workflow for ComfyUI's API. It loads the LoRA from models/loras and the
base model ({base.location}).

{INTENDED_USE} images of {character.name} in scenes that the rights above allow. Not intended: images of real
people, sexual content, or images presented as photographs of somebody. Such prompts and images are refused,
by rules that can err in both directions.

**Every image is synthetic and labeled as such**: PNG text and XMP (`digitalSourceType:
trainedAlgorithmicMedia`) say so, with the prompt, the seed and the hashes of base model and LoRA. Keep these
labels when you publish an image, and add a visible one where the law requires it (such as article 50 of the
EU's AI Act).

## Limits

The metrics above hold for scenes like the evaluated ones; other poses, lighting and expressions are weaker.
The LoRA cannot generate what its base model cannot, and inherits its biases. English prompts only.
"""
