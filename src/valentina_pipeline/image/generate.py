"""Drawing images from prompts, each with a seed of its own and a mark that says it was generated."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import quoteattr

from PIL import Image

from valentina_pipeline.image.base import decode
from valentina_pipeline.image.png import XMP_KEY
from valentina_pipeline.image.redraw import Start, begun, pasted

if TYPE_CHECKING:
    from torch import Tensor

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""IPTC's term for media made by a model trained on samples."""

XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
   Iptc4xmpExt:DigitalSourceType={source}/>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>"""

OnStep = Callable[[int, "Tensor"], None]
"""Told after each step of a batch: how many are done, and its latents (n, c, h, w).

What it raises ends the drawing.
"""

DECODED_AT_ONCE = 1024 * 1024
"""Pixels: the decoder's memory grows with them, far more than the denoiser's."""


@dataclass(frozen=True)
class Request:
    """One image to draw.

    Attributes:
        prompt: what it shows.
        seed: of its noise; the same request gives the same image, whatever is drawn beside it.
        negative: what it does not show; "" leaves the unconditional side as the base was trained.
    """

    prompt: str
    seed: int
    negative: str = ""


def draw(
    pipe: Any,
    requests: Sequence[Request],
    steps: int,
    guidance: float,
    size: int | tuple[int, int],
    batch: int = 8,
    provenance: Mapping[str, object] | None = None,
    on_step: OnStep | None = None,
    start: Start | None = None,
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
    for rows in _batches(requests, batch):
        chosen = [requests[row] for row in rows]
        latents = _denoise(pipe, chosen, steps, guidance, (width, height), on_step, start)
        for row, request, image in zip(rows, chosen, pictures(pipe.vae, latents), strict=True):
            settings = {"prompt": request.prompt, "seed": request.seed, "steps": steps, "guidance": guidance}
            if request.negative:
                settings["negative_prompt"] = request.negative
            whole = pasted(image, start) if start else image
            images[row] = mark(whole, {**settings, **(provenance or {})})
    return [images[row] for row in range(len(requests))]


def mark(image: Image.Image, provenance: Mapping[str, object]) -> Image.Image:
    """Return a copy that says, in PNG texts and XMP, that a model made it, and from what.

    Args:
        image: generated.
        provenance: such as prompt, seed, base and lora; values that are no text are written as JSON.
    """
    words = {k: v if isinstance(v, str) else json.dumps(v, sort_keys=True) for k, v in provenance.items()}
    marked = image.copy()
    marks = {"synthetic": "true", XMP_KEY: XMP.format(source=quoteattr(SOURCE_TYPE))}
    marked.info = {"text": {**image.info.get("text", {}), **words, **marks}}
    return marked


def _batches(requests: Sequence[Request], batch: int) -> Iterator[list[int]]:
    """Yield rows to draw together: pipelines treat no negative prompt and an empty one differently."""
    for negative in (False, True):
        rows = [row for row, request in enumerate(requests) if bool(request.negative) == negative]
        for start in range(0, len(rows), batch):
            yield rows[start : start + batch]


def _denoise(
    pipe: Any,
    requests: Sequence[Request],
    steps: int,
    guidance: float,
    size: tuple[int, int],
    on_step: OnStep | None,
    start: Start | None,
) -> "Tensor":
    """Return latents (n, c, h, w) by the pipeline's own call."""
    import torch

    generators = [torch.Generator().manual_seed(request.seed) for request in requests]
    batch = begun(pipe, start, steps, generators) if start else None
    sampler = pipe.scheduler

    def told(_pipe: Any, done: int, _timestep: Any, state: dict[str, Any]) -> dict[str, Any]:
        latents = batch.kept(done + 1, state["latents"]) if batch else state["latents"]
        if on_step is not None:
            on_step(done + 1, latents)
        return {"latents": latents}

    pipe.scheduler = batch.scheduler if batch else sampler
    try:
        return pipe(
            prompt=[request.prompt for request in requests],
            negative_prompt=[r.negative for r in requests] if requests[0].negative else None,
            generator=generators,
            latents=batch.latents.to(pipe.unet.dtype) if batch else None,
            num_inference_steps=steps,
            guidance_scale=guidance,
            width=size[0],
            height=size[1],
            output_type="latent",  # decoded below in float32, few at a time
            callback_on_step_end=told,
        ).images
    finally:
        pipe.scheduler = sampler


def pictures(vae: Any, latents: "Tensor") -> Iterator[Image.Image]:
    """Yield the pictures of latents (n, c, h, w)."""
    factor = 2 ** (len(vae.config.block_out_channels) - 1)  # pixels a latent is wide and high
    pixels_each = latents.shape[-2] * latents.shape[-1] * factor**2
    for part in latents.split(max(1, DECODED_AT_ONCE // pixels_each)):
        pixels = decode(vae, part).clamp(-1, 1).add(1).mul(127.5).round()
        for picture in pixels.byte().permute(0, 2, 3, 1).cpu().numpy():
            yield Image.fromarray(picture)
