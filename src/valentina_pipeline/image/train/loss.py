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
    """The base's noise schedule: the cumulated alphas (timesteps,), and what the denoiser predicts."""

    kept: Tensor
    prediction_type: str

    @classmethod
    def of(cls, base: BaseModel) -> "NoiseSchedule":
        """Return the schedule that training needs of a base, whatever it samples with."""
        from diffusers import DDPMScheduler

        # the plain schedule of the same configuration (zero-SNR rescale too)
        scheduler = DDPMScheduler.from_config(base.pipe.scheduler.config)
        return cls(scheduler.alphas_cumprod.float().to(base.device), base.prediction_type)


PromptEmbeds = tuple[Tensor, Tensor | None]
"""What the U-Net attends to (n, 77, d), and SDXL's pooled embeddings (n, p)."""


def predict(
    base: BaseModel,
    noise: NoiseSchedule,
    clean: Tensor,
    eps: Tensor,
    timesteps: Tensor,
    text: PromptEmbeds,
    sizes: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return what the U-Net makes of noised latents and what it should, both (n, c, h, w).

    Args:
        base: see base.py.
        noise: the schedule.
        clean: latents.
        eps: the noise, of the same shape.
        timesteps: int64 (n,).
        text: of n captions.
        sizes: SDXL's conditions (n, 6).
    """
    context, pooled = text
    kept, dtype = noise.kept[timesteps], base.dtype
    noisy = diffusion.add_noise(clean, eps, kept).contiguous(memory_format=torch.channels_last)
    extra = None if pooled is None else {"text_embeds": pooled.to(dtype), "time_ids": sizes.to(dtype)}
    predicted = base.unet(noisy.to(dtype), timesteps, context.to(dtype), added_cond_kwargs=extra).sample
    return predicted, diffusion.target(clean, eps, kept, noise.prediction_type)


@dataclass(frozen=True)
class DiffusionLoss:
    """The loss of some samples of a step.

    Attributes:
        texts: what the U-Net attends to where the text encoders stand still; None: computed each time.
    """

    base: BaseModel
    data: EncodedDataset
    noise: NoiseSchedule
    cfg: TrainConfig
    seed: int
    texts: PromptEmbedCache | None

    def __call__(self, step: int, rows: Sequence[int], slots: Sequence[int]) -> Tensor:
        """Return the mean loss of `rows`, drawn for the places `slots` of the step's whole batch."""
        cfg, device, ptype = self.cfg, self.base.device, self.noise.prediction_type
        clean = torch.stack([self.data.latents[row] for row in rows])
        first, end = cfg.timesteps
        span = first, min(end, len(self.noise.kept))
        drawn = diffusion.sample_step_noise(
            self.seed, step, slots, tuple(clean.shape[1:]), span, cfg.noise_offset
        )
        timesteps, eps = drawn.timesteps.to(device), drawn.noise.to(device)
        text, sizes = self._text(rows, drawn), self.data.conditions[list(rows)]
        predicted, wanted = predict(self.base, self.noise, clean, eps, timesteps, text, sizes)
        kept = self.noise.kept[timesteps]
        if cfg.debiased:
            weight = diffusion.debiased_weights(kept, ptype)
        else:
            weight = diffusion.weights(kept, cfg.min_snr_gamma, ptype)
        weight = weight * self.data.weight[list(rows)]
        places = torch.stack([self.data.places[row] for row in rows])
        return diffusion.loss(predicted, wanted, weight, places)

    def _text(self, rows: Sequence[int], drawn: diffusion.StepNoise) -> PromptEmbeds:
        """Return the embedded captions as this step shows them: varied, and some left out."""
        cfg = self.cfg
        dropped = drawn.dropout < cfg.caption_dropout
        captions = [self.data.captions[row] for row in rows]
        if cfg.keep_tags >= 0 or cfg.tag_dropout > 0:
            captions = [
                augment_caption(caption, order, cfg.keep_tags, cfg.tag_dropout)
                for caption, order in zip(captions, drawn.order.tolist(), strict=True)
            ]
        captions = ["" if left_out else caption for left_out, caption in zip(dropped, captions, strict=True)]
        if self.texts is not None:
            context, pooled = self.texts(captions)
        else:
            context, pooled = encode_prompt(self.base, tokenize(self.base, captions))
        if pooled is None:
            return context, None
        if self.base.pipe.config.force_zeros_for_empty_prompt:  # SDXL's unconditional side is zeros, not ""
            left_out = dropped.to(context.device)
            context = context.masked_fill(left_out[:, None, None], 0)
            pooled = pooled.masked_fill(left_out[:, None], 0)
        return context, pooled
