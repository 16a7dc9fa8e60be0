"""The tiny base: SDXL's U-Net and both text encoders at small width, trained together from scratch."""

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import open_clip
import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional
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

UNIFORM_SHARE = 0.5
"""Share of timesteps drawn uniformly. Min-SNR alone rarely draws high noise, where the layout is decided."""

WORDS_BATCH = 64
"""Captions per step of the text encoders alone."""

WORD_WEIGHT = 0.05
"""Loss weight of reading the caption's words from the text encoders' outputs."""

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

    def encode_text(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return the context (n, 77, 96) and the pooled embedding (n, 48) of token ids (n, 77)."""
        first = self.text_encoder(tokens, output_hidden_states=True).hidden_states[-2]
        second = self.text_encoder_2(tokens, output_hidden_states=True)
        return torch.cat([first, second.hidden_states[-2]], dim=-1), second.text_embeds

    def forward(self, noisy: Tensor, timesteps: Tensor, context: Tensor, pooled: Tensor) -> Tensor:
        """Predict v (n, 8, 16, 16) from noisy latents, timesteps (n,) and the text's encoding."""
        sizes = noisy.new_tensor([SIZE, SIZE, 0, 0, SIZE, SIZE]).expand(len(noisy), -1)
        conditions = {"text_embeds": pooled, "time_ids": sizes}
        return self.unet(noisy, timesteps, context, added_cond_kwargs=conditions).sample


class WordReader(nn.Module):
    """Linear classifiers that read each attribute's word from the text encoders' outputs.

    They exist during training only. The denoising loss alone hardly teaches the text encoders words that
    change few pixels, such as the color of clothes.
    """

    def __init__(self, attributes: Sequence[Mapping[str, str]]) -> None:
        super().__init__()
        read = [_words_to_read(traits) for traits in attributes]
        self.labels = {field: sorted({words[field] for words in read}) for field in read[0]}
        sizes = {field: len(labels) for field, labels in self.labels.items()}
        self.from_context = nn.ModuleDict({f: nn.Linear(2 * TEXT_WIDTH, n) for f, n in sizes.items()})
        self.from_pooled = nn.ModuleDict({f: nn.Linear(TEXT_WIDTH, n) for f, n in sizes.items()})

    def loss(self, context: Tensor, pooled: Tensor, captions: Sequence[Mapping[str, str]]) -> Tensor:
        """Return the mean cross-entropy of the words that the captions name.

        Args:
            context: (n, 77, 96); its mean over the tokens is read.
            pooled: (n, 48).
            captions: the attributes that each of n captions names.
        """
        named = [_words_to_read(traits) for traits in captions]
        losses = []
        for field, labels in self.labels.items():
            truth = [labels.index(words[field]) if field in words else -100 for words in named]
            if max(truth) < 0:
                continue
            target = torch.tensor(truth, device=pooled.device)
            losses.append(functional.cross_entropy(self.from_context[field](context.mean(dim=1)), target))
            losses.append(functional.cross_entropy(self.from_pooled[field](pooled), target))
        return torch.stack(losses).mean() if losses else pooled.new_zeros(())


def _words_to_read(attributes: Mapping[str, str]) -> dict[str, str]:
    """Return the words by attribute, the color of the clothes apart from the garment."""
    words = dict(attributes)
    if "dress" in words:
        words["dress_color"], words["dress"] = words["dress"].rsplit(" ", 1)
    return words


def train(
    dataset: RenderedDataset,
    vae: AutoencoderKL,
    tokenizer: CLIPTokenizer,
    plan: Plan,
    batch: int,
    seed: int,
    state: Path,
    words: Plan,
) -> Denoiser:
    """Teach the text encoders words, then train all on latents and captions with v-prediction.

    Timesteps are sampled in proportion to their min-SNR weights (Hang et al. 2023), UNIFORM_SHARE of them
    uniformly. This has the objective of weighting with less variance.

    Args:
        dataset: training images.
        vae: trained VAE.
        tokenizer: tokenizer of both text encoders.
        plan: plan of all networks together.
        batch: images per step.
        seed: seed of all random numbers.
        state: checkpoint file.
        words: first plan, of the text encoders alone.
    """
    torch.manual_seed(seed)
    network = Denoiser()
    reader = WordReader(dataset.attributes)
    teach_words(network, reader, dataset.attributes, tokenizer, words, seed, state.with_suffix(".words.pt"))
    alphas_cumprod = scheduler().alphas_cumprod
    weight = diffusion.weights(alphas_cumprod, GAMMA, "v_prediction").double().numpy()
    probabilities = (1 - UNIFORM_SHARE) * weight / weight.sum() + UNIFORM_SHARE / len(weight)
    probabilities /= probabilities.sum()

    latents, alphas_cumprod = encode(vae, dataset.pixels).to(DEVICE), alphas_cumprod.to(DEVICE)
    boxes = _face_boxes(dataset.landmarks)
    loss_mask = diffusion.face_weights(boxes, FACE_WEIGHT, *latents.shape[2:]).to(DEVICE)
    sample_weights = torch.ones(batch, device=DEVICE)

    def loss(step: int, rng: np.random.Generator, noise: torch.Generator) -> Tensor:
        rows = rng.integers(len(latents), size=batch)
        named = [_name_traits(dataset.attributes[i], rng) for i in rows]
        context, pooled = network.encode_text(_tokens(tokenizer, named))
        timesteps = torch.from_numpy(rng.choice(len(probabilities), size=batch, p=probabilities)).to(DEVICE)
        clean, alpha = latents[rows], alphas_cumprod[timesteps]
        eps = torch.randn(clean.shape, generator=noise).to(DEVICE)
        noisy = diffusion.add_noise(clean, eps, alpha).contiguous(memory_format=torch.channels_last)
        target = diffusion.target(clean, eps, alpha, "v_prediction")
        predicted = network(noisy, timesteps, context, pooled)
        error = diffusion.loss(predicted, target, sample_weights, loss_mask[rows])
        return error + WORD_WEIGHT * reader.loss(context, pooled, named)

    train_network(nn.ModuleList([network, reader]), loss, plan, seed, state, "unet")
    return network


def teach_words(
    network: Denoiser,
    reader: WordReader,
    attributes: Sequence[Mapping[str, str]],
    tokenizer: CLIPTokenizer,
    plan: Plan,
    seed: int,
    state: Path,
) -> None:
    """Train the text encoders until `reader` finds each word in their outputs.

    The denoising loss alone hardly does this: the color of clothes is one word of forty and a tenth of the
    pixels. A U-Net that has learned without such a word is slow to follow it later (docs/log.md).
    """

    def loss(step: int, rng: np.random.Generator, noise: torch.Generator) -> Tensor:
        rows = rng.integers(len(attributes), size=WORDS_BATCH)
        named = [_name_traits(attributes[i], rng) for i in rows]
        return reader.loss(*network.encode_text(_tokens(tokenizer, named)), named)

    networks = nn.ModuleList([network.text_encoder, network.text_encoder_2, reader])
    train_network(networks, loss, plan, seed, state, "words")
    networks.to(DEVICE)


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


def _tokens(tokenizer: CLIPTokenizer, named: Sequence[Mapping[str, str]]) -> Tensor:
    """Return the token ids (n, 77) of captions that name these attributes; empty ones name none."""
    captions = [caption_from_traits(traits, "woman") if traits else "" for traits in named]
    tokens = tokenizer(captions, padding="max_length", truncation=True, max_length=77, return_tensors="pt")
    return tokens.input_ids.to(DEVICE)


def _name_traits(attributes: Mapping[str, str], rng: np.random.Generator) -> dict[str, str]:
    """Return the attributes a caption names: none (for guidance), all, no fixed traits, or some of them."""
    kind = rng.choice(4, p=[0.1, 0.4, 0.2, 0.3])
    if kind == 0:
        return {}
    some = [t for t in FIXED_TRAITS if rng.random() < 0.5]
    fixed = {1: list(FIXED_TRAITS), 2: [], 3: some}[int(kind)]
    return {trait: attributes[trait] for trait in (*fixed, *VARIABLE_TRAITS)}


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
