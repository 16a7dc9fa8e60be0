"""Parameters of the stage `train_lora`."""

import re
from typing import Literal

from pydantic import Field, model_validator

from valentina_pipeline.config.validation import StrictConfig


class BlockConfig(StrictConfig):
    """Overrides for layers whose name matches a pattern."""

    rank: int | None = Field(default=None, ge=1, le=512, description="rank of each layer's update")
    rate: float = Field(
        default=1, ge=0, le=100, description="factor of the learning rate; 0 freezes the layers"
    )


class CompanionConfig(StrictConfig):
    """Settings of extra training data: images of other concepts or of the class."""

    repeats: int = Field(default=1, ge=1, le=1000, description="times as often as the character's own images")
    weight: float = Field(default=1, ge=0, le=100, description="factor of their loss")


class TrainConfig(StrictConfig):
    """Training of one method on one concept's images."""

    method: Literal["lora", "dora", "rslora", "lokr", "textual_inversion", "pivotal", "full"] = Field(
        default="lora", description="training method; full trains the U-Net itself"
    )
    rank: int = Field(ge=1, le=512, description="rank of each layer's update")
    alpha: float = Field(gt=0, le=1024, description="the update is scaled by alpha / rank")
    targets: str = Field(
        description="attention, attention+conv, all-linear, or a regular expression of layer names"
    )
    blocks: dict[str, BlockConfig] = Field(
        default={},
        description="overrides by a regular expression searched in layer names; the first match counts",
    )
    vectors: int = Field(
        default=4, ge=1, le=32, description="number of new tokens in textual inversion and pivotal tuning"
    )
    start_from: str = Field(
        default="", description="LoRA in data/05_model_input/<concept> to continue from; empty: none"
    )
    also: dict[str, CompanionConfig] = Field(
        default={}, description="extra training data: folders of data/05_model_input/<concept>"
    )
    class_images: int = Field(
        default=0, ge=0, le=10_000, description="number of class images for prior preservation"
    )
    prior_weight: float = Field(default=1.0, ge=0, le=100, description="factor of the loss on class images")
    steps: int = Field(
        ge=0, le=1_000_000, description="number of optimizer steps; 0 keeps start_from unchanged"
    )
    batch_size: int = Field(ge=1, le=1024, description="images in a batch")
    accumulate: int = Field(default=1, ge=1, le=1024, description="batches accumulated for one step")
    learning_rate: float = Field(gt=0, le=10, description="learning rate of the U-Net; 1 with prodigy")
    text_encoder_learning_rate: float = Field(ge=0, le=10, description="0 freezes the text encoders")
    embedding_learning_rate: float = Field(
        default=0.005, ge=0, le=10, description="learning rate of new tokens"
    )
    optimiser: Literal["adamw", "adamw8bit", "adafactor", "prodigy", "schedule_free"] = Field(
        default="adamw", description="schedule_free needs schedule: constant"
    )
    weight_decay: float = Field(default=0.01, ge=0, le=1, description="decoupled, as in AdamW")
    schedule: Literal["constant", "cosine", "one_cycle"] = Field(
        default="cosine", description="schedule of the learning rates"
    )
    warmup_steps: int = Field(ge=0, description="steps in which the learning rate rises")
    max_gradient: float = Field(
        default=1.0, gt=0, description="maximum norm of the gradients, which are clipped to it"
    )
    ema: float = Field(
        default=0.0, ge=0, lt=1, description="decay of the averaged weights; 0 turns averaging off"
    )
    min_snr_gamma: float = Field(
        ge=0, le=100, description="weighting of the loss by signal-to-noise ratio; 0 turns it off"
    )
    debiased: bool = Field(
        default=False, description="weighting of the loss by 1 / sqrt(signal-to-noise ratio)"
    )
    noise_offset: float = Field(
        default=0.0, ge=0, le=1, description="scale of random offsets to each channel's mean noise"
    )
    timesteps: tuple[int, int] = Field(
        default=(0, 1000), description="[first, end): range of sampled timesteps"
    )
    face_weight: float = Field(
        ge=1, le=100, description="loss factor of the face; 1 weights it like the rest of the image"
    )
    background_weight: float = Field(
        default=1.0, ge=0, le=1, description="loss factor outside the face; 0 masks it"
    )
    caption_dropout: float = Field(default=0.1, ge=0, le=1, description="share of captions left empty")
    tag_dropout: float = Field(default=0.0, ge=0, le=1, description="share of tags omitted")
    keep_tags: int = Field(
        default=-1,
        ge=-1,
        description="number of first tags to keep in place; the rest is shuffled; -1 keeps all",
    )
    flip: bool = Field(
        default=False, description="also train on mirrored images; loses the asymmetry of a face"
    )
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        description="precision of the frozen base model on a GPU"
    )
    quantise: Literal["none", "int8", "nf4"] = Field(
        default="none", description="quantization of the frozen base model, by bitsandbytes on a GPU"
    )
    gradient_checkpointing: bool | Literal["auto"] = Field(default="auto", description="auto: on a GPU")
    compile: bool = Field(default=False, description="compile the U-Net's blocks by torch")
    checkpoint_every: int = Field(ge=1, description="steps between checkpoints")
    sample_every: int = Field(ge=0, description="steps between sample grids; 0: never")
    sample_steps: int = Field(ge=1, le=1000, description="sampler steps")
    sample_guidance: float = Field(ge=0, le=30, description="scale of classifier-free guidance")
    look_every: int = Field(ge=0, description="steps between evaluations of the held-out loss; 0: never")
    draw_every: int = Field(
        default=0,
        ge=0,
        description="steps between evaluations of identity and CLIP-T on generated images; 0: never",
    )
    draw_images: int = Field(
        default=4, ge=1, le=64, description="images generated for each of these evaluations"
    )
    keep: Literal["last", "loss", "identity"] = Field(
        default="last",
        description="weights to keep: last, or of the evaluation with the best loss or identity",
    )
    patience: int = Field(
        default=0, ge=0, description="evaluations without improvement before the run stops; 0: never"
    )
    formats: tuple[Literal["diffusers", "kohya", "peft"], ...] = Field(
        default=("diffusers", "kohya"), description="formats of the exported LoRA"
    )
    private: bool = Field(default=False, description="omit metadata about the training images from the files")

    @model_validator(mode="after")
    def _fits_together(self) -> "TrainConfig":
        if self.timesteps[0] < 0 or self.timesteps[0] >= self.timesteps[1]:
            raise ValueError(f"timesteps {self.timesteps} must be ascending and not negative")
        needed = {"last": 0 if self.patience else 1, "loss": self.look_every, "identity": self.draw_every}
        if not needed[self.keep]:
            errors = {"last": "patience needs keep: loss or identity", "loss": "keep: loss needs look_every"}
            raise ValueError(errors.get(self.keep, "keep: identity needs draw_every"))
        if self.debiased and self.min_snr_gamma:
            raise ValueError(
                "debiased and min_snr_gamma both weight the loss: set debiased to false or min_snr_gamma to 0"
            )
        if "diffusers" not in self.formats:
            raise ValueError("formats must contain diffusers: evaluation and serving read it")
        if self.steps == 0 and not self.start_from:
            raise ValueError("steps is 0: set start_from, or train at least one step")
        if self.start_from and self.method in ("textual_inversion", "pivotal", "full"):
            raise ValueError(f"start_from continues a LoRA and cannot be used with method {self.method}")
        if self.method == "full" and self.quantise != "none":
            raise ValueError("method full trains the base model's own weights: set quantise to none")
        if self.optimiser == "schedule_free" and self.schedule != "constant":
            raise ValueError("optimiser schedule_free must have schedule: constant")
        try:
            for pattern in (self.targets, *self.blocks):
                re.compile(pattern)
        except re.error as err:
            raise ValueError(f"{pattern!r} is not a valid regular expression: {err}") from err
        return self


NEW_TOKENS = ("textual_inversion", "pivotal")
"""Methods that add tokens to the vocabulary."""
