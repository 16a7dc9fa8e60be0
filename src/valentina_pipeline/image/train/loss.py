"""Diffusion loss and its noise schedule."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from valentina_pipeline.config.train_lora import TrainConfig
from valentina_pipeline.image.models.base_model import BaseModel
from valentina_pipeline.image.train import diffusion
from valentina_pipeline.image.train.encoding import EncodedDataset, PromptEmbedCache, encode_prompt, tokenize
from valentina_pipeline.image.train.samples import augment_caption


@dataclass(frozen=True)
class NoiseSchedule:
    """Noise schedule of the base model: cumulative alphas (timesteps,) and prediction type."""

    alphas_cumprod: Tensor
    prediction_type: str

    @classmethod
    def of(cls, base: BaseModel) -> "NoiseSchedule":
        """Return the training schedule of a base model, whatever its sampler is."""
        from diffusers import DDPMScheduler

        # DDPM with the same configuration, zero-SNR rescaling included
        scheduler = DDPMScheduler.from_config(base.pipe.scheduler.config)
        return cls(scheduler.alphas_cumprod.float().to(base.device), base.prediction_type)


PromptEmbeds = tuple[Tensor, Tensor | None]
"""Text embeddings (n, tokens, d), and for SDXL the pooled ones (n, p)."""


def predict(
    base: BaseModel,
    noise: NoiseSchedule,
    clean: Tensor,
    eps: Tensor,
    timesteps: Tensor,
    text: PromptEmbeds,
    sizes: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the U-Net's prediction for noisy latents and its target, both (n, c, h, w).

    Args:
        base: base model.
        noise: noise schedule.
        clean: latents (n, c, h, w).
        eps: noise (n, c, h, w).
        timesteps: int64 (n,).
        text: text embeddings of n captions.
        sizes: SDXL's time ids (n, 6).
    """
    context, pooled = text
    alphas_cumprod, dtype = noise.alphas_cumprod[timesteps], base.dtype
    noisy = diffusion.add_noise(clean, eps, alphas_cumprod).contiguous(memory_format=torch.channels_last)
    extra = None if pooled is None else {"text_embeds": pooled.to(dtype), "time_ids": sizes.to(dtype)}
    predicted = base.unet(noisy.to(dtype), timesteps, context.to(dtype), added_cond_kwargs=extra).sample
    return predicted, diffusion.target(clean, eps, alphas_cumprod, noise.prediction_type)


@dataclass(frozen=True)
class DiffusionLoss:
    """Loss of some samples of a step.

    Attributes:
        texts: text embeddings of frozen text encoders; None computes them at every step.
    """

    base: BaseModel
    data: EncodedDataset
    noise: NoiseSchedule
    cfg: TrainConfig
    seed: int
    texts: PromptEmbedCache | None

    def __call__(self, step: int, rows: Sequence[int], slots: Sequence[int]) -> Tensor:
        """Return the mean loss of `rows` with the noise of positions `slots` of the step's whole batch."""
        cfg, device = self.cfg, self.base.device
        clean = torch.stack([self.data.latents[row] for row in rows])
        first, end = cfg.timestep_range
        span = first, min(end, len(self.noise.alphas_cumprod))
        draws = diffusion.sample_step_noise(
            self.seed, step, slots, tuple(clean.shape[1:]), span, cfg.noise_offset
        )
        timesteps, eps = draws.timesteps.to(device), draws.noise.to(device)
        text, sizes = self._text(rows, draws), self.data.conditions[list(rows)]
        predicted, expected = predict(self.base, self.noise, clean, eps, timesteps, text, sizes)
        alphas_cumprod = self.noise.alphas_cumprod[timesteps]
        weight = self._snr_weights(alphas_cumprod)
        weight = weight * self.data.weight[list(rows)]
        loss_mask = torch.stack([self.data.places[row] for row in rows])
        return diffusion.loss(predicted, expected, weight, loss_mask)

    def _snr_weights(self, alphas_cumprod: Tensor) -> Tensor:
        cfg, ptype = self.cfg, self.noise.prediction_type
        if cfg.loss_weighting == "debiased":
            return diffusion.debiased_weights(alphas_cumprod, ptype)
        gamma = cfg.min_snr_gamma if cfg.loss_weighting == "min_snr" else 0.0
        return diffusion.weights(alphas_cumprod, gamma, ptype)

    def _text(self, rows: Sequence[int], draws: diffusion.StepNoise) -> PromptEmbeds:
        """Return the text embeddings of this step: captions augmented, and some dropped."""
        cfg = self.cfg
        dropped = draws.dropout < cfg.caption_dropout_rate
        captions = [self.data.captions[row] for row in rows]
        if cfg.keep_tokens >= 0 or cfg.caption_tag_dropout_rate > 0:
            captions = [
                augment_caption(caption, order, cfg.keep_tokens, cfg.caption_tag_dropout_rate)
                for caption, order in zip(captions, draws.order.tolist(), strict=True)
            ]
        captions = ["" if drop else caption for drop, caption in zip(dropped, captions, strict=True)]
        if self.texts is not None:
            context, pooled = self.texts(captions)
        else:
            context, pooled = encode_prompt(self.base, tokenize(self.base, captions))
        if pooled is None:
            return context, None
        if self.base.pipe.config.force_zeros_for_empty_prompt:  # SDXL's unconditional embedding is zeros
            mask = dropped.to(context.device)
            context = context.masked_fill(mask[:, None, None], 0)
            pooled = pooled.masked_fill(mask[:, None], 0)
        return context, pooled
