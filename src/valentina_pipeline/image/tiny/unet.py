"""The tiny base: SDXL's U-Net and both text encoders at small width, trained together from scratch."""

import gzip
import json
from pathlib import Path

import numpy as np
import open_clip
import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from valentina_pipeline.image.faces.tiny_facenet import to_network
from valentina_pipeline.image.renderer.wording import FIXED_TRAITS, VARIABLE_TRAITS, caption_from_traits
from valentina_pipeline.image.tiny.dataset import SIZE, RenderedDataset
from valentina_pipeline.image.tiny.trainer import DEVICE, Plan, train_network
from valentina_pipeline.image.train import diffusion

TEXT_WIDTH = 48
NOISE_SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}
GAMMA = 5.0
"""Gamma of min-SNR weighting."""

FACE_WEIGHT = 5.0
"""Loss weight of the face: hair and background cover most of an image and are easy."""

FACE_MARGIN = 0.5
"""Margin of the face box around the landmarks, as a share of their height (eyes to mouth)."""


class Denoiser(nn.Module):
    """Trainable networks: the U-Net and both text encoders, connected as in SDXL's pipeline."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = UNet2DConditionModel(
            sample_size=SIZE // 8,
            in_channels=8,
            out_channels=8,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            block_out_channels=(64, 96, 96),
            layers_per_block=2,
            transformer_layers_per_block=(1, 1, 1),
            attention_head_dim=(4, 6, 6),
            cross_attention_dim=2 * TEXT_WIDTH,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=16,
            projection_class_embeddings_input_dim=TEXT_WIDTH + 6 * 16,
            norm_num_groups=16,
        )
        self.text_encoder = CLIPTextModel(_text_config())
        self.text_encoder_2 = CLIPTextModelWithProjection(_text_config())

    def forward(self, noisy: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        """Predict v (n, 8, 16, 16) from noisy latents, timesteps (n,) and token ids (n, 77)."""
        first = self.text_encoder(tokens, output_hidden_states=True).hidden_states[-2]
        second = self.text_encoder_2(tokens, output_hidden_states=True)
        context = torch.cat([first, second.hidden_states[-2]], dim=-1)
        sizes = noisy.new_tensor([SIZE, SIZE, 0, 0, SIZE, SIZE]).expand(len(noisy), -1)
        conditions = {"text_embeds": second.text_embeds, "time_ids": sizes}
        return self.unet(noisy, timesteps, context, added_cond_kwargs=conditions).sample


def train(
    dataset: RenderedDataset,
    vae: AutoencoderKL,
    tokenizer: CLIPTokenizer,
    plan: Plan,
    batch: int,
    seed: int,
    state: Path,
) -> Denoiser:
    """Train on the dataset's latents and captions with v-prediction.

    Timesteps are sampled in proportion to their min-SNR weights (Hang et al. 2023), a fifth of them
    uniformly. This has the objective of weighting with less variance.
    """
    torch.manual_seed(seed)
    network = Denoiser()
    alphas_cumprod = scheduler().alphas_cumprod
    weight = diffusion.weights(alphas_cumprod, GAMMA, "v_prediction").double().numpy()
    probabilities = 0.8 * weight / weight.sum() + 0.2 / len(weight)
    probabilities /= probabilities.sum()

    latents, alphas_cumprod = encode(vae, dataset.pixels).to(DEVICE), alphas_cumprod.to(DEVICE)
    boxes = _face_boxes(dataset.landmarks)
    loss_mask = diffusion.face_weights(boxes, FACE_WEIGHT, *latents.shape[2:]).to(DEVICE)
    sample_weights = torch.ones(batch, device=DEVICE)

    def loss(step: int, rng: np.random.Generator, noise: torch.Generator) -> Tensor:
        rows = rng.integers(len(latents), size=batch)
        tokens = _tokens(tokenizer, [_caption(dataset.attributes[i], rng) for i in rows]).to(DEVICE)
        timesteps = torch.from_numpy(rng.choice(len(probabilities), size=batch, p=probabilities)).to(DEVICE)
        clean, alpha = latents[rows], alphas_cumprod[timesteps]
        eps = torch.randn(clean.shape, generator=noise).to(DEVICE)
        noisy = diffusion.add_noise(clean, eps, alpha).contiguous(memory_format=torch.channels_last)
        target = diffusion.target(clean, eps, alpha, "v_prediction")
        return diffusion.loss(network(noisy, timesteps, tokens), target, sample_weights, loss_mask[rows])

    train_network(network, loss, plan, seed, state, "unet")
    return network


def _face_boxes(landmarks: np.ndarray) -> np.ndarray:
    """Return face boxes (n, 4), from brows to chin, around landmarks (n, 5, 2)."""
    low, high = landmarks.min(axis=1), landmarks.max(axis=1)
    margin = FACE_MARGIN * (high - low)[:, 1:]
    return np.concatenate([low - margin, high + margin], axis=1)


def encode(vae: AutoencoderKL, pixels: np.ndarray) -> Tensor:
    """Return the scaled latent means (n, 8, 16, 16) of uint8 `pixels` (n, 128, 128, 3)."""
    with torch.no_grad():
        images = (to_network(part).to(vae.device) for part in torch.from_numpy(pixels).split(32))
        parts = [vae.encode(part).latent_dist.mean for part in images]
    return torch.cat(parts) * vae.config.scaling_factor


def scheduler() -> EulerDiscreteScheduler:
    """Return the sampler that is saved with the base model."""
    return EulerDiscreteScheduler(
        **NOISE_SCHEDULE, prediction_type="v_prediction", timestep_spacing="trailing"
    )


def assemble(network: Denoiser, vae: AutoencoderKL, tokenizer: CLIPTokenizer) -> StableDiffusionXLPipeline:
    """Return the base model as a diffusers pipeline."""
    return StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=network.text_encoder,
        text_encoder_2=network.text_encoder_2,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=network.unet,
        scheduler=scheduler(),
        force_zeros_for_empty_prompt=False,
        add_watermarker=False,
    )


def tokenizer(folder: Path) -> CLIPTokenizer:
    """Return the original CLIP tokenizer, built from the merges in open_clip's wheel."""
    folder.mkdir(parents=True, exist_ok=True)
    merges = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.decompress(merges.read_bytes()).decode("utf-8").split("\n")[1 : 49152 - 256 - 2 + 1]
    vocabulary = open_clip.SimpleTokenizer().encoder
    vocabulary = {
        {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}.get(k, k): v
        for k, v in vocabulary.items()
    }
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), "utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *lines]) + "\n", "utf-8")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=77, pad_token="<|endoftext|>")


def _tokens(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    return tokenizer(
        captions, padding="max_length", truncation=True, max_length=77, return_tensors="pt"
    ).input_ids


def _caption(attributes: dict[str, str], rng: np.random.Generator) -> str:
    """Return a random caption: empty (for guidance), full, without fixed traits, or with some of them."""
    kind = rng.choice(4, p=[0.1, 0.4, 0.2, 0.3])
    if kind == 0:
        return ""
    some = [t for t in FIXED_TRAITS if rng.random() < 0.5]
    fixed = {1: list(FIXED_TRAITS), 2: [], 3: some}[int(kind)]
    return caption_from_traits(attributes, "woman", [*fixed, *VARIABLE_TRAITS])


def _text_config() -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=49408,
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=77,
        projection_dim=TEXT_WIDTH,
        hidden_act="quick_gelu",
        bos_token_id=49406,
        eos_token_id=49407,
        pad_token_id=49407,
    )
