"""Parameters of the stage `train_lora`."""

import re
from typing import Literal

from pydantic import Field, model_validator

from valentina_pipeline.config.validation import StrictConfig


class BlockConfig(StrictConfig):
    """What is different in the layers whose name a pattern is found in."""

    rank: int | None = Field(default=None, ge=1, le=512, description="of each layer's update")
    rate: float = Field(default=1, ge=0, le=100, description="times the learning rate; 0 leaves it as it is")


class CompanionConfig(StrictConfig):
    """How further pictures, of other concepts or of the class, take part in a run."""

    repeats: int = Field(default=1, ge=1, le=1000, description="times as often as her own are shown")
    weight: float = Field(default=1, ge=0, le=100, description="of their loss")


class TrainConfig(StrictConfig):
    """A run of one method, on pictures of one concept."""

    method: Literal["lora", "dora", "rslora", "lokr", "textual_inversion", "pivotal", "full"] = Field(
        default="lora", description="full trains the U-Net itself"
    )
    rank: int = Field(ge=1, le=512, description="of each layer's update")
    alpha: float = Field(gt=0, le=1024, description="the update is scaled by alpha / rank")
    targets: str = Field(description="attention, attention+conv, all-linear, or a pattern of layer names")
    blocks: dict[str, BlockConfig] = Field(
        default={}, description="by a pattern found in layer names; the first counts"
    )
    vectors: int = Field(
        default=4, ge=1, le=32, description="new tokens of textual inversion and pivotal tuning"
    )
    start_from: str = Field(
        default="", description="a LoRA of data/05_model_input/<concept> to continue; empty: none"
    )
    also: dict[str, CompanionConfig] = Field(
        default={}, description="extra training data: folders of data/05_model_input/<concept>"
    )
    class_images: int = Field(
        default=0, ge=0, le=10_000, description="of the class word, for prior preservation"
    )
    prior_weight: float = Field(default=1.0, ge=0, le=100, description="of the loss of class images")
    steps: int = Field(ge=0, le=1_000_000, description="0 takes start_from as it is")
    batch_size: int = Field(ge=1, le=1024, description="images in a batch")
    accumulate: int = Field(default=1, ge=1, le=1024, description="batches in a step")
    learning_rate: float = Field(gt=0, le=10, description="of the U-Net; 1 with prodigy")
    text_encoder_learning_rate: float = Field(
        ge=0, le=10, description="0 leaves the text encoders as they are"
    )
    embedding_learning_rate: float = Field(default=0.005, ge=0, le=10, description="of new tokens")
    optimiser: Literal["adamw", "adamw8bit", "adafactor", "prodigy", "schedule_free"] = Field(
        default="adamw", description="schedule_free needs schedule: constant"
    )
    weight_decay: float = Field(default=0.01, ge=0, le=1, description="decoupled, as of AdamW")
    schedule: Literal["constant", "cosine", "one_cycle"] = Field(
        default="cosine", description="of the learning rates"
    )
    warmup_steps: int = Field(ge=0, description="steps in which the learning rate rises")
    max_gradient: float = Field(default=1.0, gt=0, description="norm that gradients are clipped to")
    ema: float = Field(default=0.0, ge=0, lt=1, description="decay of the averaged weights; 0: none")
    min_snr_gamma: float = Field(
        ge=0, le=100, description="weighting of the loss by signal-to-noise ratio; 0 turns it off"
    )
    debiased: bool = Field(
        default=False, description="weighting of the loss by 1 / sqrt(signal-to-noise ratio)"
    )
    noise_offset: float = Field(default=0.0, ge=0, le=1, description="of each channel's mean")
    timesteps: tuple[int, int] = Field(default=(0, 1000), description="from the first to before the second")
    face_weight: float = Field(ge=1, le=100, description="times as much as the rest of the image")
    background_weight: float = Field(default=1.0, ge=0, le=1, description="of what is no face; 0 masks it")
    caption_dropout: float = Field(default=0.1, ge=0, le=1, description="share of captions left empty")
    tag_dropout: float = Field(default=0.0, ge=0, le=1, description="share of tags left out")
    keep_tags: int = Field(
        default=-1, ge=-1, description="tags in front that stay; the rest is shuffled; -1: all stay"
    )
    flip: bool = Field(
        default=False, description="mirrored pictures too; an asymmetric face is then no longer learned"
    )
    precision: Literal["fp32", "bf16", "fp16"] = Field(description="of the frozen base on a GPU")
    quantise: Literal["none", "int8", "nf4"] = Field(
        default="none", description="of the frozen base, by bitsandbytes on a GPU"
    )
    gradient_checkpointing: bool | Literal["auto"] = Field(
        default="auto", description="auto: where there is a GPU"
    )
    compile: bool = Field(default=False, description="by torch, of the U-Net's blocks")
    checkpoint_every: int = Field(ge=1, description="steps")
    sample_every: int = Field(ge=0, description="steps between sample grids; 0: never")
    sample_steps: int = Field(ge=1, le=1000, description="of the sampler")
    sample_guidance: float = Field(ge=0, le=30, description="scale of classifier-free guidance")
    look_every: int = Field(ge=0, description="steps between looks at the held-out loss; 0: never")
    draw_every: int = Field(
        default=0, ge=0, description="steps between identity and CLIP-T of drawn images; 0: never"
    )
    draw_images: int = Field(
        default=4, ge=1, le=64, description="images generated for each of these evaluations"
    )
    keep: Literal["last", "loss", "identity"] = Field(default="last", description="the weights of which look")
    patience: int = Field(
        default=0, ge=0, description="looks without a better one before the run stops; 0: never"
    )
    formats: tuple[Literal["diffusers", "kohya", "peft"], ...] = Field(
        default=("diffusers", "kohya"), description="of a LoRA's files"
    )
    private: bool = Field(default=False, description="leave out of the files what tells about the pictures")

    @model_validator(mode="after")
    def _fits_together(self) -> "TrainConfig":
        if self.timesteps[0] < 0 or self.timesteps[0] >= self.timesteps[1]:
            raise ValueError(f"timesteps {self.timesteps} must rise from 0 or more")
        needed = {"last": 0 if self.patience else 1, "loss": self.look_every, "identity": self.draw_every}
        if not needed[self.keep]:
            says = {"last": "patience needs keep: loss or identity", "loss": "keep: loss needs look_every"}
            raise ValueError(says.get(self.keep, "keep: identity needs draw_every"))
        if self.debiased and self.min_snr_gamma:
            raise ValueError(
                "debiased and min_snr_gamma are two weightings of one loss: set one of them to 0 or false"
            )
        if "diffusers" not in self.formats:
            raise ValueError("formats needs diffusers: evaluation and serving read it")
        if self.steps == 0 and not self.start_from:
            raise ValueError("steps: 0 needs start_from: there is nothing to keep")
        if self.start_from and self.method in ("textual_inversion", "pivotal", "full"):
            raise ValueError(f"start_from goes on with a LoRA, not with method {self.method}")
        if self.method == "full" and self.quantise != "none":
            raise ValueError("full training moves the base's own weights: set quantise to none")
        if self.optimiser == "schedule_free" and self.schedule != "constant":
            raise ValueError("schedule_free needs no schedule: set schedule to constant")
        try:
            for pattern in (self.targets, *self.blocks):
                re.compile(pattern)
        except re.error as err:
            raise ValueError(f"{pattern!r} is no pattern: {err}") from err
        return self


NEW_TOKENS = ("textual_inversion", "pivotal")
"""Methods that add to the vocabulary."""
