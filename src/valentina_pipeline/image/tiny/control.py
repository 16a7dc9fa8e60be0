"""A ControlNet for the tiny base: it learns to draw along the edges of rendered people."""

from pathlib import Path

import numpy as np
import torch
from diffusers import ControlNetModel, StableDiffusionXLPipeline
from PIL import Image
from rich.progress import track
from torch import Tensor

from valentina_pipeline.image.generate.canny import edge_f1, edges
from valentina_pipeline.image.generate.controlnet import Control, apply_controls
from valentina_pipeline.image.generate.sampling import ImageSpec, generate_images
from valentina_pipeline.image.renderer.wording import caption_from_traits
from valentina_pipeline.image.tiny.dataset import SIZE, RenderedDataset
from valentina_pipeline.image.tiny.trainer import DEVICE, Plan, train_network
from valentina_pipeline.image.tiny.unet import encode
from valentina_pipeline.image.train import diffusion

READER = (16, 24, 32, 64)
"""Channels of the layers that bring edges to the latents' size."""

SCALES = (0.0, 0.5, 1.0)
"""Of the control, at which its drawings are measured."""

UNWORDED = 0.5
"""Share of pictures without a caption, as in Zhang et al. 2023, section 3.4: their edges have to tell all."""


def train(
    world: RenderedDataset, pipe: StableDiffusionXLPipeline, plan: Plan, batch: int, seed: int, state: Path
) -> ControlNetModel:
    """Train a copy of the U-Net's encoder, the base itself frozen, by the base's own objective.

    Timesteps are drawn evenly: what edges decide is decided in much noise.
    """
    torch.manual_seed(seed)
    pipe.unet.requires_grad_(False).to(memory_format=torch.channels_last)
    network = ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=READER)
    # that end is zero as well as all that leads back into the U-Net: two zeros in a row learn too slowly
    network.controlnet_cond_embedding.conv_out.reset_parameters()
    latents, kept = encode(pipe.vae, world.pixels), pipe.scheduler.alphas_cumprod.to(DEVICE)
    lines = torch.stack([_lines(pixels) for pixels in world.pixels])
    even = torch.ones(batch, device=DEVICE)

    def loss(step: int, rng: np.random.Generator, noise: torch.Generator) -> Tensor:
        rows = rng.integers(len(latents), size=batch)
        words = [
            "" if rng.random() < UNWORDED else caption_from_traits(world.attributes[i], "woman") for i in rows
        ]
        timesteps = torch.from_numpy(rng.integers(len(kept), size=batch)).to(DEVICE)
        clean, share = latents[rows], kept[timesteps]
        eps = torch.randn(clean.shape, generator=noise).to(DEVICE)
        noisy = diffusion.add_noise(clean, eps, share).contiguous(memory_format=torch.channels_last)
        predicted = predict(network, pipe, noisy, timesteps, words, lines[rows].to(DEVICE))
        wanted = diffusion.target(clean, eps, share, "v_prediction")
        return diffusion.loss(predicted, wanted, even, torch.ones_like(wanted[:, :1]))

    train_network(network, loss, plan, seed, state, "control")
    return network


def predict(
    network: ControlNetModel,
    pipe: StableDiffusionXLPipeline,
    noisy: Tensor,
    timesteps: Tensor,
    words: list[str],
    lines: Tensor,
) -> Tensor:
    """Predict v (n, 8, 16, 16) of noisy latents with edges (n, 3, 128, 128), white 1 on black 0."""
    with torch.no_grad():
        context, _, pooled, _ = pipe.encode_prompt(words, device=DEVICE, do_classifier_free_guidance=False)
    sizes = noisy.new_tensor([SIZE, SIZE, 0, 0, SIZE, SIZE]).expand(len(noisy), -1)
    given = {
        "encoder_hidden_states": context,
        "added_cond_kwargs": {"text_embeds": pooled, "time_ids": sizes},
    }
    down, middle = network(noisy, timesteps, controlnet_cond=lines, return_dict=False, **given)
    more = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
    return pipe.unet(noisy, timesteps, **given, **more).sample


def measure(
    network: ControlNetModel,
    pipe: StableDiffusionXLPipeline,
    held_out: RenderedDataset,
    pictures: int,
    seed: int,
) -> dict[str, float]:
    """Return how far drawings keep to the edges of held-out pictures, F1 by the control's scale.

    Each is drawn from its picture's caption, in 10 steps at guidance 2; at scale 0 it knows no more.
    """
    rows = np.random.default_rng(seed).choice(len(held_out.pixels), size=pictures, replace=False)
    figures = {}
    for scale in SCALES:
        kept = []
        for row in track(rows, description=f"scale {scale}"):
            wanted = edges(Image.fromarray(held_out.pixels[row]))
            asked = ImageSpec(caption_from_traits(held_out.attributes[row], "woman"), seed * 10**6 + int(row))
            with apply_controls(pipe.unet, [Control(network, wanted, scale)]):
                kept.append(edge_f1(generate_images(pipe, [asked], 10, 2.0, SIZE)[0], wanted))
        figures[f"edges_f1_scale_{scale:g}"] = round(float(np.mean(kept)), 4)
    return figures


def _lines(pixels: np.ndarray) -> Tensor:
    shown = np.array(edges(Image.fromarray(pixels)))
    return torch.from_numpy(shown).permute(2, 0, 1).float() / 255
