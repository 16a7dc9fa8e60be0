"""Generate images from prompts, each with its own seed and with metadata that marks it as generated."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from valentina_pipeline.image.generate.img2img import InitImage, composite, prepare_latents
from valentina_pipeline.image.generate.prompt_weights import Words, parse
from valentina_pipeline.image.models.vae import decode
from valentina_pipeline.image.provenance.metadata import add_provenance

if TYPE_CHECKING:
    from torch import Tensor

OnStep = Callable[[int, "Tensor"], None]
"""Callback after each step of a batch: number of finished steps, and latents (n, c, h, w).

An exception in it stops the generation.
"""

MAX_DECODED_PIXELS = 1024 * 1024
"""Pixels per call of the VAE decoder, whose memory grows with them far more than the denoiser's."""


@dataclass(frozen=True)
class ImageSpec:
    """Specification of one image to generate.

    Attributes:
        prompt: prompt.
        seed: seed of the noise; equal specifications give equal images, whatever the batch.
        negative: negative prompt; "" keeps the unconditional embedding that the base model was trained with.
        weighted: True parses weights such as (words:1.3), see `prompt_weights`; else brackets are plain text.
    """

    prompt: str
    seed: int
    negative: str = ""
    weighted: bool = False

    def words(self) -> tuple[Words, Words]:
        """Return the parts of prompt and negative prompt."""
        if self.weighted:
            return parse(self.prompt), parse(self.negative)
        return [(self.prompt, 1.0)], [(self.negative, 1.0)]


def request_metadata(request: ImageSpec) -> dict[str, object]:
    """Return the metadata of an image: prompt, seed and negative prompt, if there is one."""
    metadata: dict[str, object] = {"prompt": request.prompt, "seed": request.seed}
    return {**metadata, "negative_prompt": request.negative} if request.negative else metadata


def generate_images(
    pipe: Any,
    requests: Sequence[ImageSpec],
    steps: int,
    guidance: float,
    size: int | tuple[int, int],
    batch: int = 8,
    provenance: Mapping[str, object] | None = None,
    on_step: OnStep | None = None,
    start: InitImage | None = None,
) -> list[Image.Image]:
    """Generate images in the order of the requests, with metadata that marks them as generated.

    Every image has its own generator on the CPU, so that its noise depends neither on the batch nor on the
    device. Batches change rounding only.

    Args:
        pipe: StableDiffusionXLPipeline or StableDiffusionPipeline, with its LoRA loaded.
        requests: images to generate.
        steps: number of the sampler's steps.
        guidance: scale of classifier-free guidance; 1 or less turns it off.
        size: width and height in pixels, multiples of 8; one number sets both.
        batch: batch size.
        provenance: additional metadata, such as the hashes of the base model and the LoRA.
        on_step: callback, see `OnStep`.
        start: initial image of all requests; None starts from noise.
    """
    width, height = size if isinstance(size, tuple) else (size, size)
    images: dict[int, Image.Image] = {}
    for rows in _batches(pipe, requests, batch):
        selected = [requests[row] for row in rows]
        latents = _denoise(pipe, selected, steps, guidance, (width, height), on_step, start)
        for row, request, image in zip(rows, selected, decode_latents(pipe.vae, latents), strict=True):
            settings = {"steps": steps, "guidance_scale": guidance}
            final = composite(image, start) if start else image
            images[row] = add_provenance(
                final, {**request_metadata(request), **settings, **(provenance or {})}
            )
    return [images[row] for row in range(len(requests))]


def _batches(pipe: Any, requests: Sequence[ImageSpec], batch: int) -> Iterator[list[int]]:
    """Yield the rows of each batch.

    A batch has either negative prompts or none, because pipelines treat none and an empty one differently.
    Its texts have the same number of chunks.
    """
    kinds = [(bool(request.negative), _num_chunks(pipe, request)) for request in requests]
    for kind in sorted(set(kinds)):
        rows = [row for row, row_kind in enumerate(kinds) if row_kind == kind]
        for start in range(0, len(rows), batch):
            yield rows[start : start + batch]


def _num_chunks(pipe: Any, request: ImageSpec) -> int:
    """Return the number of chunks of a request's texts; 0 if the pipeline can encode them itself."""
    from valentina_pipeline.image.generate.conditioning import readings

    texts = request.words()
    max_chunks = max(len(spelled) for words in texts for spelled in readings(pipe, words))
    weighted = any(weight != 1 for words in texts for _, weight in words)
    return max_chunks if weighted or max_chunks > 1 else 0


def _texts(pipe: Any, requests: Sequence[ImageSpec]) -> dict[str, Any]:
    """Return the text arguments of a pipeline's call for one batch."""
    from valentina_pipeline.image.generate.conditioning import embed, readings

    num_chunks = _num_chunks(pipe, requests[0])
    texts = dict(
        zip(("prompt", "negative_prompt"), zip(*(r.words() for r in requests), strict=True), strict=True)
    )
    if not requests[0].negative and (not num_chunks or pipe.config.get("force_zeros_for_empty_prompt")):
        del texts["negative_prompt"]  # the pipeline uses its default: zeros, or the empty text
    if not num_chunks:
        return {
            name: ["".join(text for text, _ in words) for words in batch_texts]
            for name, batch_texts in texts.items()
        }
    embeds = {}
    for name, batch_texts in texts.items():
        spelled = zip(*(readings(pipe, words) for words in batch_texts), strict=True)
        embeds[f"{name}_embeds"], pooled = embed(pipe, list(spelled), num_chunks)
        if pooled is not None:
            embeds[f"{'negative_' if name.startswith('n') else ''}pooled_prompt_embeds"] = pooled
    return embeds


def _denoise(
    pipe: Any,
    requests: Sequence[ImageSpec],
    steps: int,
    guidance: float,
    size: tuple[int, int],
    on_step: OnStep | None,
    start: InitImage | None,
) -> "Tensor":
    """Return the latents (n, c, h, w) of the pipeline's call."""
    import torch

    generators = [torch.Generator().manual_seed(request.seed) for request in requests]
    batch = prepare_latents(pipe, start, steps, generators) if start else None
    with torch.no_grad():
        texts = _texts(pipe, requests)
    sampler = pipe.scheduler

    def after_step(_pipe: Any, done: int, _timestep: Any, state: dict[str, Any]) -> dict[str, Any]:
        latents = batch.restore_kept_area(done + 1, state["latents"]) if batch else state["latents"]
        if on_step is not None:
            on_step(done + 1, latents)
        return {"latents": latents}

    pipe.scheduler = batch.scheduler if batch else sampler
    try:
        return pipe(
            **texts,
            generator=generators,
            latents=batch.latents.to(pipe.unet.dtype) if batch else None,
            num_inference_steps=steps,
            guidance_scale=guidance,
            width=size[0],
            height=size[1],
            output_type="latent",  # decoded later in float32, a few at a time
            callback_on_step_end=after_step,
        ).images
    finally:
        pipe.scheduler = sampler


def decode_latents(vae: Any, latents: "Tensor") -> Iterator[Image.Image]:
    """Yield the decoded images of latents (n, c, h, w)."""
    factor = 2 ** (len(vae.config.block_out_channels) - 1)  # pixels per latent cell, in width and height
    pixels_each = latents.shape[-2] * latents.shape[-1] * factor**2
    for part in latents.split(max(1, MAX_DECODED_PIXELS // pixels_each)):
        pixels = decode(vae, part).clamp(-1, 1).add(1).mul(127.5).round()
        for array in pixels.byte().permute(0, 2, 3, 1).cpu().numpy():
            yield Image.fromarray(array)
