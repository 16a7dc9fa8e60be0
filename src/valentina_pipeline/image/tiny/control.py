"""Edge ControlNet of the tiny base: trained to follow the Canny edges of rendered people."""

from pathlib import Path

import numpy as np
import torch
from diffusers import ControlNetModel, StableDiffusionXLPipeline
from PIL import Image
from rich.progress import track
from torch import Tensor

from valentina_pipeline.image.generate.canny import edge_f1, edges
from valentina_pipeline.image.generate.controlnet import Control, apply_controls
from valentina_pipeline.image.generate.generate import ImageSpec, generate_images
from valentina_pipeline.image.renderer.wording import caption_from_traits
from valentina_pipeline.image.tiny.dataset import SIZE, RenderedDataset
from valentina_pipeline.image.tiny.trainer import DEVICE, Plan, train_network
from valentina_pipeline.image.tiny.unet import encode
from valentina_pipeline.image.train import diffusion

CONDITIONING_CHANNELS = (16, 24, 32, 64)
"""Channels of the layers that reduce the edges to the size of the latents."""

SCALES = (0.0, 0.5, 1.0)
"""Conditioning scales at which generated images are measured."""

UNCAPTIONED_SHARE = 0.5
"""Share of images without a caption (Zhang et al. 2023, section 3.4), so that edges carry the content."""


def train(
    dataset: RenderedDataset, pipe: StableDiffusionXLPipeline, plan: Plan, batch: int, seed: int, state: Path
) -> ControlNetModel:
    """Train a copy of the U-Net's encoder with the objective of the base model, which stays frozen.

    Timesteps are uniform, because edges decide the layout at high noise levels.
    """
    torch.manual_seed(seed)
    pipe.unet.requires_grad_(False).to(memory_format=torch.channels_last)
    network = ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=CONDITIONING_CHANNELS)
    # its output layer is zero, like all layers that lead back to the U-Net: two in a row train too slowly
    network.controlnet_cond_embedding.conv_out.reset_parameters()
    latents, alphas_cumprod = encode(pipe.vae, dataset.pixels), pipe.scheduler.alphas_cumprod.to(DEVICE)
    lines = torch.stack([_lines(pixels) for pixels in dataset.pixels])
    sample_weights = torch.ones(batch, device=DEVICE)

    def loss(step: int, rng: np.random.Generator, noise: torch.Generator) -> Tensor:
        rows = rng.integers(len(latents), size=batch)
        captions = [
            "" if rng.random() < UNCAPTIONED_SHARE else caption_from_traits(dataset.attributes[i], "woman")
            for i in rows
        ]
        timesteps = torch.from_numpy(rng.integers(len(alphas_cumprod), size=batch)).to(DEVICE)
        clean, alpha = latents[rows], alphas_cumprod[timesteps]
        eps = torch.randn(clean.shape, generator=noise).to(DEVICE)
        noisy = diffusion.add_noise(clean, eps, alpha).contiguous(memory_format=torch.channels_last)
        predicted = predict(network, pipe, noisy, timesteps, captions, lines[rows].to(DEVICE))
        target = diffusion.target(clean, eps, alpha, "v_prediction")
        return diffusion.loss(predicted, target, sample_weights, torch.ones_like(target[:, :1]))

    train_network(network, loss, plan, seed, state, "control")
    return network


def predict(
    network: ControlNetModel,
    pipe: StableDiffusionXLPipeline,
    noisy: Tensor,
    timesteps: Tensor,
    captions: list[str],
    lines: Tensor,
) -> Tensor:
    """Predict v (n, 8, 16, 16) from noisy latents and edges (n, 3, 128, 128), white 1 on black 0."""
    with torch.no_grad():
        context, _, pooled, _ = pipe.encode_prompt(captions, device=DEVICE, do_classifier_free_guidance=False)
    sizes = noisy.new_tensor([SIZE, SIZE, 0, 0, SIZE, SIZE]).expand(len(noisy), -1)
    conditions = {
        "encoder_hidden_states": context,
        "added_cond_kwargs": {"text_embeds": pooled, "time_ids": sizes},
    }
    down, middle = network(noisy, timesteps, controlnet_cond=lines, return_dict=False, **conditions)
    residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
    return pipe.unet(noisy, timesteps, **conditions, **residuals).sample


def measure(
    network: ControlNetModel,
    pipe: StableDiffusionXLPipeline,
    held_out: RenderedDataset,
    pictures: int,
    seed: int,
) -> dict[str, float]:
    """Return the edge F1 between generated and held-out images for each conditioning scale.

    Images are generated from the captions in 10 steps at guidance 2; at scale 0 from the caption alone.
    """
    rows = np.random.default_rng(seed).choice(len(held_out.pixels), size=pictures, replace=False)
    metrics = {}
    for scale in SCALES:
        scores = []
        for row in track(rows, description=f"scale {scale}"):
            target = edges(Image.fromarray(held_out.pixels[row]))
            spec = ImageSpec(caption_from_traits(held_out.attributes[row], "woman"), seed * 10**6 + int(row))
            with apply_controls(pipe.unet, [Control(network, target, scale)]):
                scores.append(edge_f1(generate_images(pipe, [spec], 10, 2.0, SIZE)[0], target))
        metrics[f"edges_f1_scale_{scale:g}"] = round(float(np.mean(scores)), 4)
    return metrics


def _lines(pixels: np.ndarray) -> Tensor:
    lines = np.array(edges(Image.fromarray(pixels)))
    return torch.from_numpy(lines).permute(2, 0, 1).float() / 255
