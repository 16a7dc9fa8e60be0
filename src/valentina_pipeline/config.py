"""One frozen model per stage, and the one function that makes the effective parameters.

Effective = what the base implies (conf/base/bases.yml), overlaid by the concept's overrides,
overlaid by what the user chose (params.yaml, `-S`, `--params`); `null` chooses nothing.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from valentina_pipeline.domain.concept import Concept

Model = TypeVar("Model", bound=BaseModel)


class BadParameter(ValueError):
    """A parameter is unknown, missing or out of range; the message names its key."""


class Frozen(BaseModel):
    """Strict about names and immutable: an unknown key is an error that names it."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class FaceEmbedderConfig(Frozen):
    """Which network turns a face into an identity vector."""

    kind: Literal["tiny", "facenet"]
    path: str


class ClipConfig(Frozen):
    """Which CLIP measures prompt following (CLIP-T) and image likeness (CLIP-I)."""

    kind: Literal["tiny", "open_clip"]
    path: str


class BaseConfig(Frozen):
    """A base model: where it is, what it is, and the networks that judge its images."""

    family: Literal["sdxl", "sd15"]
    path: str = Field(description="a folder in diffusers' layout, a .safetensors file, or a hub id")
    config: str = Field(
        default="",
        description="folder or hub id whose configuration and tokenizers a base in one file has",
    )
    resolution: int = Field(ge=64, le=2048, multiple_of=8)
    licence: str
    obtain: str = Field(description="what to do when it is not at hand")
    embed: bool = Field(description="small enough to travel inside each package")
    face_embedder: FaceEmbedderConfig
    clip: ClipConfig
    controls: dict[str, str] = Field(
        default={}, description="kind of picture -> folder of the ControlNet that keeps to it"
    )


class IngestConfig(Frozen):
    """Which images are taken in."""

    count: int = Field(ge=4, le=10_000)
    min_side: int = Field(ge=16, le=16_384)
    near_duplicate_bits: int = Field(ge=0, le=32)
    max_pixels: int = Field(ge=10_000)
    max_bytes: int = Field(ge=10_000)
    min_sharpness: float = Field(ge=0, description="variance of the Laplacian; 0 lets everything pass")
    brightness: tuple[float, float] = Field(description="least and most mean luminance, in [0, 1]")
    max_clipped: float = Field(ge=0, le=1, description="share of black and white pixels")
    max_noise: float = Field(gt=0, description="standard deviation in 8-bit levels")
    min_jpeg_quality: float = Field(ge=0, le=100, description="as libjpeg counts; 0 lets everything pass")
    max_letters: int = Field(ge=-1, description="of readable writing that pass; -1: not looked for")
    score_model: str = Field(description="a CLIP that scores pictures (CLIP-IQA), open_clip's name or folder")
    min_score: float = Field(ge=0, le=1, description="of CLIP-IQA")
    brisque_model: str = Field(description="a folder with OpenCV's files of BRISQUE; empty: none")
    max_brisque: float = Field(ge=0, le=100, description="0 is natural, 100 distorted")
    upscale: str = Field(description="a Swin2SR, hub id or folder, for small but good pictures; empty: none")
    hosts: tuple[str, ...] = Field(description="from which an https:// source may be read")


class AlignConfig(Frozen):
    """How faces are found and cropped."""

    resolution: int = Field(ge=64, le=2048, multiple_of=8)
    min_face_probability: float = Field(gt=0, lt=1)
    min_person: float = Field(ge=0, le=1, description="of the score that a face is a person's; 0: any face")
    crop: Literal["face", "bust", "full"] = Field(
        description="what a portrait shows; full: the whole picture"
    )
    margin: float = Field(
        ge=1, le=6, description="side of a face's crop in face heights; a bust's is 1.8 times it"
    )
    remove_background: str = Field(description="a segmentation model, hub id or folder; empty: stays")
    outlier_distance: float = Field(gt=0, le=2)
    duplicate_distance: float = Field(ge=0, le=2, description="of faces in two pictures of one moment")
    min_face_side: int = Field(ge=20, description="height of the face in the picture, in pixels")
    max_yaw: float = Field(gt=0, le=90, description="degrees to either side")
    max_pitch: float = Field(gt=0, le=90, description="degrees up or down")
    max_misfit: float = Field(gt=0, description="landmarks from a head's, as a share of eyes to mouth")
    min_contrast: float = Field(ge=0, le=1, description="around each landmark, as a share of the face's")


class CaptionConfig(Frozen):
    """Who words the captions."""

    captioner: Literal["attributes", "blip", "vlm", "tagger"]
    model: str = Field(description="hub id or folder; empty: the captioner's own")
    threshold: float = Field(gt=0, lt=1, description="score from which a tagger's tag counts")


class BlockConfig(Frozen):
    """What is different in the layers whose name a pattern is found in."""

    rank: int | None = Field(default=None, ge=1, le=512)
    rate: float = Field(default=1, ge=0, le=100, description="times the learning rate; 0 leaves it as it is")


class CompanionConfig(Frozen):
    """How further pictures, of other concepts or of the class, take part in a run."""

    repeats: int = Field(default=1, ge=1, le=1000, description="times as often as her own are shown")
    weight: float = Field(default=1, ge=0, le=100, description="of their loss")


class TrainConfig(Frozen):
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


class EvaluateConfig(Frozen):
    """How much is drawn to measure a LoRA."""

    images_per_prompt: int = Field(ge=1, le=64)
    steps: int = Field(ge=1, le=1000)
    guidance: float = Field(ge=0, le=30)
    bootstrap: int = Field(ge=100, le=100_000)


class RegisterConfig(Frozen):
    """The gates that a candidate passes to become champion."""

    min_identity_gain: float = Field(ge=-2, le=2)
    min_identity_ratio: float = Field(ge=0, le=2)
    min_face_found: float = Field(ge=0, le=1)
    max_clip_t_drop: float = Field(ge=0, le=1)
    max_memorised: float = Field(ge=0, le=1)


class PublishConfig(Frozen):
    """What the package says by default, and for which engines beside torch it has what draws."""

    default_preset: Literal["draft", "standard", "high", "ultra"]
    engines: tuple[Literal["onnx", "native"], ...] = Field(
        description="onnx: for ONNX Runtime; native: one file for stable-diffusion.cpp"
    )


STAGES: dict[str, type[Frozen]] = {
    "ingest": IngestConfig,
    "align": AlignConfig,
    "caption": CaptionConfig,
    "train_lora": TrainConfig,
    "evaluate": EvaluateConfig,
    "register": RegisterConfig,
    "publish": PublishConfig,
}


class Choice(Frozen):
    """The shape of params.yaml; each stage's own keys are checked by its own model."""

    concepts: list[str] = Field(min_length=1)
    base: str
    seed: int = Field(ge=0, lt=2**32)
    threads: int = Field(ge=1, le=256)
    ingest: dict[str, Any] = {}
    align: dict[str, Any] = {}
    caption: dict[str, Any] = {}
    train_lora: dict[str, Any] = {}
    evaluate: dict[str, Any] = {}
    register_: dict[str, Any] = Field(default={}, alias="register")
    publish: dict[str, Any] = {}

    @model_validator(mode="after")
    def _no_concept_twice(self) -> "Choice":
        if len(set(self.concepts)) != len(self.concepts):
            raise ValueError("concepts lists a name twice")
        return self


def validated(model: type[Model], values: Mapping[str, Any], where: str) -> Model:
    """Return `values` as `model`, or raise BadParameter naming each wrong key as `where.key`."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as err:
        problems = "; ".join(
            f"{'.'.join([where, *map(str, e['loc'])]).strip('.')}: {e['msg']}" for e in err.errors()
        )
        raise BadParameter(problems) from err


def effective(
    params: Mapping[str, Any], bases: Mapping[str, Any], concept: Mapping[str, Any]
) -> dict[str, Any]:
    """Overlay base, concept and choice, check everything, and return plain parameters.

    Returns:
        `concept`, `base`, `seed`, `threads` and one dict for each stage of `STAGES`.

    Raises:
        BadParameter: a key is unknown, missing or out of range.
    """
    choice = validated(Choice, params, "")
    if choice.base not in bases:
        raise BadParameter(f"base: {choice.base!r} is not one of {', '.join(sorted(bases))}")
    implied = bases[choice.base]
    if set(implied) != {"model", *STAGES}:
        raise BadParameter(f"bases.{choice.base}: needs exactly these keys: model, {', '.join(STAGES)}")
    person = validated(Concept, concept, "concept")
    base = validated(BaseConfig, implied["model"], f"bases.{choice.base}.model")
    stages = {}
    for stage, model in STAGES.items():
        chosen = {k: v for k, v in params.get(stage, {}).items() if v is not None}
        merged = {**implied[stage], **person.overrides.get(stage, {}), **chosen}
        stages[stage] = validated(model, merged, stage).model_dump(mode="json")
    if person.asymmetric and stages["train_lora"]["flip"]:
        raise BadParameter(f"train_lora.flip: {person.name} is asymmetric: mirrored, she is somebody else")
    if "native" in stages["publish"]["engines"] and stages["train_lora"]["method"] in NEW_TOKENS:
        raise BadParameter(
            "publish.engines: native has no place for new tokens: leave it out, or train a LoRA"
        )
    return {
        "concept": person.model_dump(mode="json"),
        "base": base.model_dump(),
        "seed": choice.seed,
        "threads": choice.threads,
        **stages,
    }


def first_concept(root: Path) -> str:
    """Return the first of params.yaml's concepts.

    Raises:
        ValueError: the file is missing or lists none.
    """
    import yaml

    file = root / "params.yaml"
    if not file.is_file():
        raise ValueError(f"{file} is missing: run this in the project's folder")
    match yaml.safe_load(file.read_text("utf-8")):
        case {"concepts": [str(first), *_]}:
            return first
    raise ValueError(f"{file} lists no concepts: name one with --concept")
