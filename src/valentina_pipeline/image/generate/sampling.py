"""Drawing images from prompts, each with a seed of its own and a mark that says it was generated."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    pass
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from valentina_pipeline.image.generate.img2img import InitImage, composite, prepare_latents
from valentina_pipeline.image.generate.prompt_weights import Words, parse
from valentina_pipeline.image.models.vae import decode

if TYPE_CHECKING:
    from torch import Tensor
from valentina_pipeline.image.provenance.metadata import add_provenance

OnStep = Callable[[int, "Tensor"], None]
"""Told after each step of a batch: how many are done, and its latents (n, c, h, w).

What it raises ends the drawing.
"""

DECODED_AT_ONCE = 1024 * 1024
"""Pixels: the decoder's memory grows with them, far more than the denoiser's."""


@dataclass(frozen=True)
class ImageSpec:
    """One image to draw.

    Attributes:
        prompt: what it shows.
        seed: of its noise; the same request gives the same image, whatever is drawn beside it.
        negative: what it does not show; "" leaves the unconditional side as the base was trained.
        weighted: (words:1.3) in the texts weigh so much, see `emphasis`; else brackets are plain.
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
    """Return what an image says of the request that it was drawn for."""
    said: dict[str, object] = {"prompt": request.prompt, "seed": request.seed}
    return {**said, "negative_prompt": request.negative} if request.negative else said


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
    """Draw the requests, in order, each image marked as generated.

    Every image has a generator of its own on the CPU, so that neither batches nor the device change its
    noise; what batches change is rounding.

    Args:
        pipe: StableDiffusionXLPipeline or StableDiffusionPipeline, its LoRA loaded.
        requests: prompts and seeds.
        steps: of the sampler.
        guidance: scale of classifier-free guidance; 1 or less turns it off.
        size: width and height in pixels, multiples of 8; one number for both.
        batch: images drawn at once.
        provenance: further marks, such as the base's and the LoRA's hashes.
        on_step: see `OnStep`.
        start: what all of them begin from; None begins from noise.
    """
    width, height = size if isinstance(size, tuple) else (size, size)
    images: dict[int, Image.Image] = {}
    for rows in _batches(pipe, requests, batch):
        chosen = [requests[row] for row in rows]
        latents = _denoise(pipe, chosen, steps, guidance, (width, height), on_step, start)
        for row, request, image in zip(rows, chosen, decode_latents(pipe.vae, latents), strict=True):
            settings = {"steps": steps, "guidance": guidance}
            whole = composite(image, start) if start else image
            images[row] = add_provenance(
                whole, {**request_metadata(request), **settings, **(provenance or {})}
            )
    return [images[row] for row in range(len(requests))]


def _batches(pipe: Any, requests: Sequence[ImageSpec], batch: int) -> Iterator[list[int]]:
    """Yield rows to draw together.

    Pipelines treat no negative prompt and an empty one differently; texts of one batch have as many pieces.
    """
    kinds = [(bool(request.negative), _pieces(pipe, request)) for request in requests]
    for kind in sorted(set(kinds)):
        rows = [row for row, each in enumerate(kinds) if each == kind]
        for start in range(0, len(rows), batch):
            yield rows[start : start + batch]


def _pieces(pipe: Any, request: ImageSpec) -> int:
    """Return how many pieces a request's texts take; 0 where the pipeline reads them by itself."""
    from valentina_pipeline.image.generate.conditioning import readings

    texts = request.words()
    most = max(len(spelled) for words in texts for spelled in readings(pipe, words))
    weighted = any(weight != 1 for words in texts for _, weight in words)
    return most if weighted or most > 1 else 0


def _texts(pipe: Any, requests: Sequence[ImageSpec]) -> dict[str, Any]:
    """Return what a pipeline's call takes of the texts of one batch."""
    from valentina_pipeline.image.generate.conditioning import embed, readings

    pieces = _pieces(pipe, requests[0])
    texts = dict(
        zip(("prompt", "negative_prompt"), zip(*(r.words() for r in requests), strict=True), strict=True)
    )
    if not requests[0].negative and (not pieces or pipe.config.get("force_zeros_for_empty_prompt")):
        del texts["negative_prompt"]  # the pipeline's own: zeros, or the empty text
    if not pieces:
        return {name: ["".join(text for text, _ in words) for words in each] for name, each in texts.items()}
    found = {}
    for name, each in texts.items():
        spelled = zip(*(readings(pipe, words) for words in each), strict=True)
        found[f"{name}_embeds"], pooled = embed(pipe, list(spelled), pieces)
        if pooled is not None:
            found[f"{'negative_' if name.startswith('n') else ''}pooled_prompt_embeds"] = pooled
    return found


def _denoise(
    pipe: Any,
    requests: Sequence[ImageSpec],
    steps: int,
    guidance: float,
    size: tuple[int, int],
    on_step: OnStep | None,
    start: InitImage | None,
) -> "Tensor":
    """Return latents (n, c, h, w) by the pipeline's own call."""
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
            output_type="latent",  # decoded below in float32, few at a time
            callback_on_step_end=after_step,
        ).images
    finally:
        pipe.scheduler = sampler


def decode_latents(vae: Any, latents: "Tensor") -> Iterator[Image.Image]:
    """Yield the pictures of latents (n, c, h, w)."""
    factor = 2 ** (len(vae.config.block_out_channels) - 1)  # pixels a latent is wide and high
    pixels_each = latents.shape[-2] * latents.shape[-1] * factor**2
    for part in latents.split(max(1, DECODED_AT_ONCE // pixels_each)):
        pixels = decode(vae, part).clamp(-1, 1).add(1).mul(127.5).round()
        for picture in pixels.byte().permute(0, 2, 3, 1).cpu().numpy():
            yield Image.fromarray(picture)
