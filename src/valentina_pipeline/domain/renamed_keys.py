"""Former names of configuration keys: none is accepted, but the error names the present one."""

from collections.abc import Mapping
from typing import Any

RENAMED_KEYS: Mapping[str, Mapping[str, str]] = {
    "": {"threads": "num_threads"},
    "base": {
        "licence": "license",
        "obtain": "download_instructions",
        "embed": "bundle_in_package",
        "controls": "controlnets",
    },
    "concept": {"identity": "renderer_parameters", "identity_words": "caption_excluded_words"},
    "ledger": {"licence": "license"},
    "ingest": {
        "count": "num_rendered_images",
        "near_duplicate_bits": "max_phash_distance",
        "brightness": "brightness_range",
        "max_clipped": "max_clipped_fraction",
        "max_letters": "max_overlay_letters",
        "score_model": "clip_iqa_model",
        "min_score": "min_clip_iqa",
        "upscale": "upscale_model",
        "hosts": "allowed_hosts",
    },
    "align": {
        "min_face_probability": "min_detection_confidence",
        "margin": "crop_scale",
        "remove_background": "background_model",
        "outlier_distance": "max_identity_distance",
        "duplicate_distance": "duplicate_face_distance",
        "max_misfit": "max_landmark_error",
        "min_contrast": "min_landmark_contrast",
    },
    "caption": {"threshold": "tag_threshold"},
    "train_lora": {
        "targets": "target_modules",
        "blocks": "layer_overrides (rank, lr_scale)",
        "vectors": "num_vectors",
        "start_from": "init_from",
        "also": "extra_datasets (num_repeats, loss_weight)",
        "class_images": "num_class_images",
        "prior_weight": "prior_loss_weight",
        "steps": "max_steps",
        "accumulate": "gradient_accumulation_steps",
        "text_encoder_learning_rate": "text_encoder_lr",
        "embedding_learning_rate": "embedding_lr",
        "max_gradient": "max_grad_norm",
        "optimiser": "optimizer",
        "schedule": "lr_scheduler",
        "warmup_steps": "lr_warmup_steps",
        "ema": "ema_decay",
        "quantise": "quantize",
        "debiased": "loss_weighting: debiased",
        "timesteps": "timestep_range",
        "face_weight": "face_loss_weight",
        "background_weight": "background_loss_weight",
        "caption_dropout": "caption_dropout_rate",
        "tag_dropout": "caption_tag_dropout_rate",
        "keep_tags": "keep_tokens",
        "flip": "flip_aug",
        "checkpoint_every": "save_every",
        "look_every": "eval_every",
        "draw_every": "image_eval_every",
        "draw_images": "num_eval_images",
        "sample_steps": "sample_inference_steps",
        "sample_guidance": "sample_guidance_scale",
        "keep": "best_metric (none, val_loss or identity)",
        "patience": "early_stopping_patience",
        "formats": "export_formats",
        "private": "strip_metadata",
    },
    "train_lora.layer_overrides": {"rate": "lr_scale"},
    "train_lora.extra_datasets": {"repeats": "num_repeats", "weight": "loss_weight"},
    "evaluate": {
        "images_per_prompt": "num_images_per_prompt",
        "steps": "num_inference_steps",
        "guidance": "guidance_scale",
        "bootstrap": "bootstrap_resamples",
    },
    "register": {
        "min_identity_gain": "gates: {identity.gain_over_base: {min: ...}}",
        "min_identity_ratio": "gates: {identity.ratio_to_ceiling: {min: ...}}",
        "min_face_found": "gates: {face_detection_rate.lora.mean: {min: ...}}",
        "max_clip_t_drop": "gates: {clip_t.relative_drop: {max: ...}}",
        "max_memorised": "gates: {memorization.rate: {max: ...}}",
    },
}
"""Section of a configuration file -> former key -> present key; "" is the top level of params.yaml."""


def describe_error(section: str, error: Mapping[str, Any]) -> str:
    """Return the message of one pydantic error; for a former key it is `renamed to` and the present key.

    Args:
        section: a key of RENAMED_KEYS, or any other text.
        error: an item of `ValidationError.errors()`; its keys are `loc`, `msg` and `type`.
    """
    if error["type"] == "extra_forbidden":
        first, *rest = map(str, error["loc"])
        former = rest[-1] if rest else first
        table = RENAMED_KEYS.get(f"{section}.{first}" if rest else section, {})
        if former in table:
            return f"renamed to {table[former]}"
    return str(error["msg"])
