"""Parameters of the stage `train_lora`."""

import re
from typing import Literal

from pydantic import Field, model_validator

from valentina_pipeline.config.validation import StrictConfig


class LayerOverrideConfig(StrictConfig):
    """Overrides for layers whose name matches a pattern."""

    rank: int | None = Field(default=None, ge=1, le=512, description="rank of each layer's update")
    lr_scale: float = Field(
        default=1, ge=0, le=100, description="factor of the learning rate; 0 freezes the layers"
    )


class ExtraDatasetConfig(StrictConfig):
    """Settings of extra training data: images of other concepts or of the class."""

    num_repeats: int = Field(
        default=1, ge=1, le=1000, description="times as often as the character's own images"
    )
    loss_weight: float = Field(default=1, ge=0, le=100, description="factor of their loss")


class TrainConfig(StrictConfig):
    """Training of one method on one concept's images."""

    method: Literal["lora", "dora", "rslora", "lokr", "textual_inversion", "pivotal", "full"] = Field(
        default="lora", description="training method; full trains the U-Net itself"
    )
    rank: int = Field(ge=1, le=512, description="rank of each layer's update")
    alpha: float = Field(gt=0, le=1024, description="the update is scaled by alpha / rank")
    target_modules: str = Field(
        description="attention, attention+conv, all-linear, or a regular expression of layer names"
    )
    layer_overrides: dict[str, LayerOverrideConfig] = Field(
        default={},
        description="overrides by a regular expression searched in layer names; the first match counts",
    )
    num_vectors: int = Field(
        default=4, ge=1, le=32, description="number of new tokens in textual inversion and pivotal tuning"
    )
    init_from: str = Field(
        default="", description="LoRA in data/05_model_input/<concept> to continue from; empty: none"
    )
    extra_datasets: dict[str, ExtraDatasetConfig] = Field(
        default={}, description="extra training data: folders of data/05_model_input/<concept>"
    )
    num_class_images: int = Field(
        default=0, ge=0, le=10_000, description="number of class images for prior preservation"
    )
    prior_loss_weight: float = Field(
        default=1.0, ge=0, le=100, description="factor of the loss on class images"
    )
    max_steps: int = Field(
        ge=0, le=1_000_000, description="number of optimizer steps; 0 keeps init_from unchanged"
    )
    batch_size: int = Field(ge=1, le=1024, description="images in a batch")
    gradient_accumulation_steps: int = Field(
        default=1, ge=1, le=1024, description="batches accumulated for one step"
    )
    learning_rate: float = Field(gt=0, le=10, description="learning rate of the U-Net; 1 with prodigy")
    text_encoder_lr: float = Field(ge=0, le=10, description="0 freezes the text encoders")
    embedding_lr: float = Field(default=0.005, ge=0, le=10, description="learning rate of new tokens")
    optimizer: Literal["adamw", "adamw8bit", "adafactor", "prodigy", "schedule_free"] = Field(
        default="adamw", description="schedule_free needs lr_scheduler: constant"
    )
    weight_decay: float = Field(default=0.01, ge=0, le=1, description="decoupled, as in AdamW")
    lr_scheduler: Literal["constant", "cosine", "one_cycle"] = Field(
        default="cosine", description="schedule of the learning rates"
    )
    lr_warmup_steps: int = Field(ge=0, description="steps in which the learning rate rises")
    max_grad_norm: float = Field(
        default=1.0, gt=0, description="maximum norm of the gradients, which are clipped to it"
    )
    ema_decay: float = Field(
        default=0.0, ge=0, lt=1, description="decay of the averaged weights; 0 turns averaging off"
    )
    loss_weighting: Literal["none", "min_snr", "debiased"] = Field(
        description="min_snr: by min(SNR, gamma) / SNR; debiased: by 1 / sqrt(SNR)"
    )
    min_snr_gamma: float = Field(default=5.0, gt=0, le=100, description="gamma of loss_weighting: min_snr")
    noise_offset: float = Field(
        default=0.0, ge=0, le=1, description="scale of random offsets to each channel's mean noise"
    )
    timestep_range: tuple[int, int] = Field(
        default=(0, 1000), description="[first, end): range of sampled timesteps"
    )
    face_loss_weight: float = Field(
        ge=1, le=100, description="loss factor of the face; 1 weights it like the rest of the image"
    )
    background_loss_weight: float = Field(
        default=1.0, ge=0, le=1, description="loss factor outside the face; 0 masks it"
    )
    caption_dropout_rate: float = Field(default=0.1, ge=0, le=1, description="share of captions left empty")
    caption_tag_dropout_rate: float = Field(default=0.0, ge=0, le=1, description="share of tags omitted")
    keep_tokens: int = Field(
        default=-1,
        ge=-1,
        description="number of first tags to keep in place; the rest is shuffled; -1 keeps all",
    )
    flip_aug: bool = Field(
        default=False, description="also train on mirrored images; loses the asymmetry of a face"
    )
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        description="precision of the frozen base model on a GPU"
    )
    quantize: Literal["none", "int8", "nf4"] = Field(
        default="none", description="quantization of the frozen base model, by bitsandbytes on a GPU"
    )
    gradient_checkpointing: bool | Literal["auto"] = Field(
        default="auto", description="less memory, up to 1.8 times the time; auto: when the memory is full"
    )
    compile: bool = Field(default=False, description="compile the U-Net's blocks by torch")
    save_every: int = Field(ge=1, description="steps between checkpoints")
    keep_every: int = Field(
        default=0,
        ge=0,
        description="steps between LoRAs that evaluate compares with the finished one; 0: none",
    )
    sample_every: int = Field(ge=0, description="steps between sample grids; 0: never")
    sample_inference_steps: int = Field(ge=1, le=1000, description="sampler steps")
    sample_guidance_scale: float = Field(ge=0, le=30, description="scale of classifier-free guidance")
    eval_every: int = Field(ge=0, description="steps between evaluations of the validation loss; 0: never")
    image_eval_every: int = Field(
        default=0,
        ge=0,
        description="steps between evaluations of identity and CLIP-T on generated images; 0: never",
    )
    num_eval_images: int = Field(
        default=4, ge=1, le=64, description="images generated for each of these evaluations"
    )
    best_metric: Literal["none", "val_loss", "identity"] = Field(
        default="none",
        description="metric whose best evaluation gives the weights; none: the weights of the last step",
    )
    early_stopping_patience: int = Field(
        default=0, ge=0, description="evaluations without improvement before the run stops; 0: never"
    )
    export_formats: tuple[Literal["diffusers", "kohya", "peft"], ...] = Field(
        default=("diffusers", "kohya"), description="formats of the exported LoRA"
    )
    strip_metadata: bool = Field(
        default=False, description="omit metadata about the training images from the files"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> "TrainConfig":
        first, end = self.timestep_range
        if not 0 <= first < end:
            raise ValueError(f"timestep_range {self.timestep_range} must be ascending and not negative")
        if self.best_metric == "none" and self.early_stopping_patience:
            raise ValueError("early_stopping_patience needs best_metric: val_loss or identity")
        if self.best_metric == "val_loss" and not self.eval_every:
            raise ValueError("best_metric: val_loss needs eval_every")
        if self.best_metric == "identity" and not self.image_eval_every:
            raise ValueError("best_metric: identity needs image_eval_every")
        if "diffusers" not in self.export_formats:
            raise ValueError("export_formats must contain diffusers: evaluation and serving read it")
        if self.max_steps == 0 and not self.init_from:
            raise ValueError("max_steps is 0: set init_from, or train at least one step")
        if self.init_from and self.method in ("textual_inversion", "pivotal", "full"):
            raise ValueError(f"init_from continues a LoRA and cannot be used with method {self.method}")
        if self.method == "full" and self.quantize != "none":
            raise ValueError("method full trains the base model's own weights: set quantize to none")
        if self.optimizer == "schedule_free" and self.lr_scheduler != "constant":
            raise ValueError("optimizer schedule_free must have lr_scheduler: constant")
        try:
            for pattern in (self.target_modules, *self.layer_overrides):
                re.compile(pattern)
        except re.error as err:
            raise ValueError(f"{pattern!r} is not a valid regular expression: {err}") from err
        return self


NEW_TOKENS = ("textual_inversion", "pivotal")
"""Methods that add tokens to the vocabulary."""
