"""Parameters of the stage `train_lora`."""

import re
from typing import Literal

from pydantic import Field, model_validator

from valentina_pipeline.config.validation import StrictConfig


class BlockConfig(StrictConfig):
    """What is different in the layers whose name a pattern is found in."""

    rank: int | None = Field(default=None, ge=1, le=512)
    rate: float = Field(default=1, ge=0, le=100, description="times the learning rate; 0 leaves it as it is")


class CompanionConfig(StrictConfig):
    """How further pictures, of other concepts or of the class, take part in a run."""

    repeats: int = Field(default=1, ge=1, le=1000, description="times as often as her own are shown")
    weight: float = Field(default=1, ge=0, le=100, description="of their loss")


class TrainConfig(StrictConfig):
    """A run of one method, on pictures of one concept."""

    method: Literal["lora", "dora", "rslora", "lokr", "textual_inversion", "pivotal", "full"]
    rank: int = Field(ge=1, le=512)
    alpha: float = Field(gt=0, le=1024)
    targets: str = Field(description="attention, attention+conv, all-linear, or a pattern of layer names")
    blocks: dict[str, BlockConfig] = Field(description="by a pattern found in layer names; the first counts")
    vectors: int = Field(ge=1, le=32, description="new tokens of textual inversion and pivotal tuning")
    start_from: str = Field(description="a LoRA of data/05_model_input/<concept> to continue; empty: none")
    also: dict[str, CompanionConfig] = Field(
        description="extra training data: folders of data/05_model_input/<concept>"
    )
    class_images: int = Field(ge=0, le=10_000, description="of the class word, for prior preservation")
    prior_weight: float = Field(ge=0, le=100, description="of the loss of class images")
    steps: int = Field(ge=0, le=1_000_000, description="0 takes start_from as it is")
    batch_size: int = Field(ge=1, le=1024)
    accumulate: int = Field(ge=1, le=1024, description="batches in a step")
    learning_rate: float = Field(gt=0, le=10)
    text_encoder_learning_rate: float = Field(ge=0, le=10)
    embedding_learning_rate: float = Field(ge=0, le=10)
    optimiser: Literal["adamw", "adamw8bit", "adafactor", "prodigy", "schedule_free"]
    weight_decay: float = Field(ge=0, le=1)
    schedule: Literal["constant", "cosine", "one_cycle"]
    warmup_steps: int = Field(ge=0)
    max_gradient: float = Field(gt=0, description="norm that gradients are clipped to")
    ema: float = Field(ge=0, lt=1, description="decay of the averaged weights; 0: none")
    min_snr_gamma: float = Field(ge=0, le=100)
    debiased: bool
    noise_offset: float = Field(ge=0, le=1)
    timesteps: tuple[int, int] = Field(description="from the first to before the second")
    face_weight: float = Field(ge=1, le=100)
    background_weight: float = Field(ge=0, le=1, description="of what is no face; 0 masks it")
    caption_dropout: float = Field(ge=0, le=1)
    tag_dropout: float = Field(ge=0, le=1)
    keep_tags: int = Field(ge=-1, description="tags in front that stay; the rest is shuffled; -1: all stay")
    flip: bool = Field(description="mirrored pictures too; an asymmetric face is then no longer learned")
    precision: Literal["fp32", "bf16", "fp16"]
    quantise: Literal["none", "int8", "nf4"]
    gradient_checkpointing: bool | Literal["auto"] = Field(description="auto: where there is a GPU")
    compile: bool
    checkpoint_every: int = Field(ge=1)
    sample_every: int = Field(ge=0)
    sample_steps: int = Field(ge=1, le=1000)
    sample_guidance: float = Field(ge=0, le=30)
    look_every: int = Field(ge=0, description="steps between looks at the held-out loss; 0: never")
    draw_every: int = Field(ge=0, description="steps between identity and CLIP-T of drawn images; 0: never")
    draw_images: int = Field(ge=1, le=64)
    keep: Literal["last", "loss", "identity"] = Field(description="the weights of which look")
    patience: int = Field(ge=0, description="looks without a better one before the run stops; 0: never")
    formats: tuple[Literal["diffusers", "kohya", "peft"], ...] = Field(description="of a LoRA's files")
    private: bool = Field(description="leave out of the files what tells about the pictures")

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
