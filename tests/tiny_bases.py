"""Base models of true architecture at small width, randomly initialised, in diffusers' folder layout."""

import atexit
import gzip
import json
import shutil
import tempfile
from copy import deepcopy
from functools import lru_cache
from pathlib import Path

import open_clip
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from valentina_pipeline.config.base_model import BaseConfig, ClipConfig, FaceEmbedderConfig
from valentina_pipeline.image.models.base_model import BaseModel, load_base

SIZE = 64
"""Pixels: latents are 8 x 8."""

WIDTH, WIDTH_2 = 32, 48
"""Of the text encoders: loaders tell SDXL's two apart by it."""
SIGNAL = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def config(family: str, path: Path | str) -> BaseConfig:
    """A base as conf/base/bases.yml describes it."""
    return BaseConfig(
        family=family,
        path=str(path),
        resolution=SIZE,
        license="none, random numbers",
        download_instructions="run the tests",
        bundle_in_package=True,
        face_embedder=FaceEmbedderConfig(kind="tiny", path="none"),
        clip=ClipConfig(kind="tiny", path="none"),
    )


def loaded(family: str, own_tokenizers: bool = False) -> BaseModel:
    """A base of one's own to change: a copy, since reading a folder's tokenizers takes seconds."""
    base = _loaded(family)
    shared = [] if own_tokenizers else base.tokenizers
    return deepcopy(base, {id(tokenizer): tokenizer for tokenizer in shared})


@lru_cache(maxsize=2)
def _loaded(family: str) -> BaseModel:
    folder = sdxl_folder() if family == "sdxl" else sd15_folder()
    return load_base(config(family, folder), Path())


@lru_cache(maxsize=1)
def sdxl_folder() -> Path:
    """SDXL: two text encoders, pooled text, size conditions, v-prediction, 8 latent channels, float16."""
    torch.manual_seed(1)
    pipe = StableDiffusionXLPipeline(
        vae=_vae(8),
        text_encoder=CLIPTextModel(_text()),
        text_encoder_2=CLIPTextModelWithProjection(_text(WIDTH_2)),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
        unet=_unet(
            8,
            cross_attention_dim=WIDTH + WIDTH_2,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=WIDTH_2 + 6 * 8,
        ),
        scheduler=EulerDiscreteScheduler(
            **SIGNAL,
            prediction_type="v_prediction",
            timestep_spacing="trailing",
            rescale_betas_zero_snr=True,
        ),
        force_zeros_for_empty_prompt=False,
        add_watermarker=False,
    )
    return _saved(pipe)


@lru_cache(maxsize=1)
def sd15_folder() -> Path:
    """Stable Diffusion 1.5: one text encoder, epsilon, 4 latent channels, float16."""
    torch.manual_seed(2)
    pipe = StableDiffusionPipeline(
        vae=_vae(4),
        text_encoder=CLIPTextModel(_text()),
        tokenizer=tokenizer(),
        unet=_unet(4, cross_attention_dim=WIDTH),
        scheduler=DDIMScheduler(**SIGNAL, clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return _saved(pipe)


def sd15_of_true_widths() -> StableDiffusionPipeline:
    """Stable Diffusion 1.5 in its own size, 1 billion random numbers: programs that know no other read it."""
    torch.manual_seed(4)
    text = CLIPTextConfig(
        **{
            **_text(768).to_dict(),
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
        }
    )
    return StableDiffusionPipeline(
        vae=AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            scaling_factor=0.18215,
        ),
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer(),
        unet=UNet2DConditionModel(cross_attention_dim=768),  # whose defaults are 1.5's
        scheduler=EulerDiscreteScheduler(**SIGNAL),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@lru_cache(maxsize=1)
def clip_folder() -> Path:
    """A CLIP of open_clip's architecture, as `local-dir:` reads it."""
    model_cfg = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    torch.manual_seed(3)
    weights = open_clip.model.CLIP(**model_cfg).state_dict()
    folder = _folder()
    save_file({k: v.half().contiguous() for k, v in weights.items()}, folder / "open_clip_model.safetensors")
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    text = json.dumps({"model_cfg": model_cfg, "preprocess_cfg": preprocess})
    (folder / "open_clip_config.json").write_text(text, "utf-8")
    return folder


@lru_cache(maxsize=1)
def tokenizer() -> CLIPTokenizer:
    """The real CLIP tokenizer, from the vocabulary in open_clip's wheel."""
    folder = _folder()
    wheel = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    merges = gzip.decompress(wheel.read_bytes()).decode("utf-8").split("\n")[1 : 49152 - 256 - 2 + 1]
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {names.get(k, k): v for k, v in open_clip.SimpleTokenizer().encoder.items()}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), "utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", "utf-8")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=77, pad_token="<|endoftext|>")


def _unet(channels: int, **more: object) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=SIZE // 8,
        in_channels=channels,
        out_channels=channels,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(16, 32),
        layers_per_block=1,
        attention_head_dim=(2, 4),
        norm_num_groups=8,
        **more,
    )


def _vae(channels: int) -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 16, 16),
        layers_per_block=1,
        latent_channels=channels,
        norm_num_groups=4,
        sample_size=SIZE,
        scaling_factor=0.5,
    )


def _text(width: int = WIDTH) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=49408,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        projection_dim=width,
        hidden_act="quick_gelu",
        bos_token_id=49406,
        eos_token_id=49407,
        pad_token_id=49407,
    )


def _saved(pipe: object) -> Path:
    folder = _folder()
    pipe.to(dtype=torch.float16).save_pretrained(folder, safe_serialization=True)  # type: ignore[attr-defined]
    return folder


def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="tiny-base-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
