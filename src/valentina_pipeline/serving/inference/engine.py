"""Inference engine: load a package's networks once and generate images with several LoRAs at once."""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valentina_pipeline.domain.samplers import SAMPLERS
from valentina_pipeline.image.safety.content_filter import ContentFilter
from valentina_pipeline.image.safety.sd_safety_checker import SafetyChecker
from valentina_pipeline.serving.inference.adapters import Adapter, read_adapters
from valentina_pipeline.serving.inference.conditioning import (
    ControlModels,
    InputRefusedError,
    check_input_images,
    open_images,
    start,
)
from valentina_pipeline.serving.inference.control_models import Network, read_controls
from valentina_pipeline.serving.inference.identity import AttributeReading, load_identity_scorer
from valentina_pipeline.serving.inference.lora_stack import LoraStack
from valentina_pipeline.serving.inference.package import InvalidPackageError, PackageInfo, check_rights, read
from valentina_pipeline.serving.inference.preview_renderer import PreviewRenderer
from valentina_pipeline.serving.inference.request import (
    Engine,
    GenerationRequest,
    ResolvedRequest,
    Settings,
    refuse_beyond,
    resolve_request,
)

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from valentina_pipeline.image.generate.generate import ImageSpec, OnStep
    from valentina_pipeline.image.models.base_model import BaseModel


RENDERER_WARNING = (
    "the renderer reads only expression, pose, dress, place and light from the prompt; "
    "steps, guidance, sampler and negative prompt have no effect"
)
"""Warning of each image that the renderer made."""


@dataclass(frozen=True)
class GenerationResult:
    """One generated or refused image.

    Attributes:
        image: watermarked; None where a check refused it.
        order: the resolved request.
        seed: the image's seed.
        blocked_reason: the reason where there is no image, else "".
        identity: cosine similarity of the face to the character's portraits, -1 to 1; None without a face,
            an image or the networks that measure it.
        attributes: attributes that the prompt names, and what judges see; () without judges.
        warnings: a sentence for each part of the request that had no effect.
    """

    image: "Image.Image | None"
    order: ResolvedRequest
    seed: int
    blocked_reason: str
    identity: float | None
    attributes: tuple[AttributeReading, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Conditioning:
    """Conditioning of a batch: its specifications with the same settings, input images and metadata."""

    settings: Settings
    specs: "list[ImageSpec]"
    input_images: "dict[str, Image.Image]"
    metadata: dict[str, Any]


class InferenceEngine:
    """A loaded package that generates images. It is thread-safe: threads take turns.

    Args:
        about: the package.
        base: a folder or hub id of the same base model elsewhere; None takes the one that the package
            embeds or names.
        root: the project. Its ledgers and registry say whether the package may generate, and relative paths
            of a base model that is not embedded start here; None is the working directory.
        shelf: further LoRAs by name.
        engine: the backend.
        controls: control networks by kind.
        compile: compile the U-Net's blocks with torch, which takes half a minute at the first images.

    Attributes:
        device: the device that computes, such as "cpu" or "cuda:0".
        memory: placement of the networks in memory; see image/models/offload.py.

    Raises:
        MissingModelError: the base model is not on this machine, or the package has no export for the engine.
        InvalidPackageError: the base model is not the one that the LoRA was trained on, or the renderer
            has no parameters of the character.
        InvalidCheckerError: the base model's safety checker cannot be used.
    """

    def __init__(
        self,
        about: PackageInfo,
        base: str | None = None,
        root: Path | None = None,
        shelf: Mapping[str, Adapter] | None = None,
        engine: Engine = "torch",
        controls: Mapping[str, Network] | None = None,
        compile: bool = False,
    ) -> None:
        self.about = about
        self._root = root
        self.shelf = dict(shelf or {})
        self.controls = dict(controls or {})
        self.engine = engine
        self.device = "cpu"
        self.memory: dict[str, Any] = {}
        self._checker: SafetyChecker | None = None
        self._pipe: Any = None
        if engine == "torch":
            from valentina_pipeline.image.lora.loading import load_pipeline

            self._base = _load_base(about, base, root)
            self._pipe = load_pipeline(self._base, about.folder / "lora")
            if compile:
                self._base.compile()
            self._lora_stack = LoraStack(self._base, about.trigger, self.shelf)
            self._control_models = ControlModels(self._base.unet, self.controls)
            self.device, self.memory = str(self._base.device), vars(self._base.placement)
            self._checker = SafetyChecker.load_if_available(self._base.path)
        elif engine == "onnx":
            self._pipe = _load_onnx_pipeline(about)
            self.device = self._pipe.unet.runs_on
        else:
            self._renderer = PreviewRenderer(about)
        self._base_scheduler = self._pipe.scheduler if self._pipe else None
        self._filter = ContentFilter()
        # a rendered face is the character's by its parameters
        self._identity_scorer = load_identity_scorer(about, root) if engine != "renderer" else None
        self._lock = threading.Lock()

    @classmethod
    def open(
        cls,
        folder: Path,
        base: str | None = None,
        root: Path | None = None,
        lora_dir: Path | None = None,
        engine: Engine = "torch",
        compile: bool = False,
    ) -> "InferenceEngine":
        """Return an engine for the package in `folder` and the networks in the folder `lora_dir`.

        Raises:
            InvalidPackageError: the folder is not a package, is damaged, or may not generate.
            InvalidAdapterError: see `read_adapters` and `read_controls`.
            MissingModelError: the base model is not on this machine, or the package has no export for the
                engine.
        """
        about = read(folder, root)
        shelf = read_adapters(lora_dir, about) if lora_dir else None
        controls = read_controls(about, root or Path.cwd(), lora_dir)
        return cls(about, base, root, shelf, engine, controls, compile)

    def generate(self, request: GenerationRequest, on_step: "OnStep | None" = None) -> list[GenerationResult]:
        """Generate the images of one request.

        Args:
            request: a validated request.
            on_step: called after each step of a batch; an exception that it raises stops generation.

        Raises:
            UnsafePromptError: the prompt policy refuses a prompt.
            InvalidRequestError: see `resolve_request`.
            InvalidAdapterError: a LoRA does not fit the base model.
        """
        return self.draw([self.order(request)], on_step)[0]

    def order(self, request: GenerationRequest) -> ResolvedRequest:
        """Return the resolved request, with this engine's adapters and control networks."""
        return resolve_request(request, self.about, self.shelf, self.engine, self.controls)

    def draw(
        self, orders: Sequence[ResolvedRequest], on_step: "OnStep | None" = None
    ) -> list[list[GenerationResult]]:
        """Generate the images of several orders; orders with equal settings share batches.

        An image depends only on its own order, except for rounding, which depends on the batch.

        Returns:
            The images of each order, in order.

        Raises:
            InvalidPackageError: rights that cover the package have ended or were revoked.
            InvalidAdapterError: a LoRA does not fit the base model.
        """
        check_rights(self.about, self._root)
        done: dict[tuple[int, int], GenerationResult] = {}
        for settings in dict.fromkeys(order.settings for order in orders):
            images = [
                (row, order, seed)
                for row, order in enumerate(orders)
                for seed in order.seeds
                if order.settings == settings
            ]
            results = self._generate_batch(settings, [(order, seed) for _, order, seed in images], on_step)
            for (row, _, seed), result in zip(images, results, strict=True):
                done[row, seed] = result
        return [[done[row, seed] for seed in order.seeds] for row, order in enumerate(orders)]

    def _generate_batch(
        self,
        settings: Settings,
        order_seeds: Sequence[tuple[ResolvedRequest, int]],
        on_step: "OnStep | None",
    ) -> list[GenerationResult]:
        """Return a result for each (order, seed); all orders have the same settings."""
        try:
            conditioning = self._prepare(settings, order_seeds)
        except InputRefusedError as err:
            return [GenerationResult(None, order, seed, str(err), None) for order, seed in order_seeds]
        images = self._sample(conditioning, on_step)
        return [
            self._finish(image, order, seed) for image, (order, seed) in zip(images, order_seeds, strict=True)
        ]

    def _prepare(
        self, settings: Settings, order_seeds: Sequence[tuple[ResolvedRequest, int]]
    ) -> _Conditioning:
        """Return everything that the images depend on, with input images that are checked.

        Raises:
            InputRefusedError: an input image is unsafe or shows the face of somebody else.
        """
        from valentina_pipeline.image.generate.generate import ImageSpec

        input_images = open_images(order_seeds[0][0].pictures)
        check_input_images(settings.inputs, input_images, self.about, self._filter, self._identity_scorer)
        # the request may have been accepted for another engine
        refuse_beyond(settings, self.about, self.engine)
        specs = [
            ImageSpec(order.prompt, seed, order.negative_prompt, weighted=True) for order, seed in order_seeds
        ]
        metadata = {
            "base_sha256": self.about.base_hash,
            "lora_sha256": self.about.lora_hash,
            "width": settings.width,
            "height": settings.height,
            "scheduler": settings.scheduler,
            "loras": settings.loras,
            **({} if self.engine == "torch" else {"engine": self.engine}),
            **settings.inputs.marks(),
        }
        return _Conditioning(settings, specs, input_images, metadata)

    def _sample(self, conditioning: _Conditioning, on_step: "OnStep | None") -> "list[Image.Image]":
        """Return the images of the specifications, in order."""
        from valentina_pipeline.image.generate.controlnet import apply_controls
        from valentina_pipeline.image.generate.generate import generate_images

        settings, specs, metadata = conditioning.settings, conditioning.specs, conditioning.metadata
        size = (settings.width, settings.height)
        with self._lock:  # sampler and adapters are state of the shared pipeline
            if self.engine == "renderer":
                sampling = {"steps": settings.steps, "guidance_scale": settings.guidance_scale}
                return self._renderer.draw(specs, size, {**sampling, **metadata})
            controls = []
            if self.engine == "torch":
                self._lora_stack.compose(settings.loras)
                controls = self._control_models.controls(settings.inputs, conditioning.input_images)
            self._pipe.scheduler = _scheduler(settings.scheduler, self._base_scheduler)
            with apply_controls(self._pipe.unet, controls):
                return generate_images(
                    self._pipe,
                    specs,
                    settings.steps,
                    settings.guidance_scale,
                    size,
                    batch_size(settings),
                    metadata,
                    on_step,
                    start(settings.inputs, conditioning.input_images),
                )

    def _finish(self, image: "Image.Image", order: ResolvedRequest, seed: int) -> GenerationResult:
        """Return the result of an image: filtered, watermarked and compared with the character."""
        from valentina_pipeline.image.provenance.metadata import add_provenance
        from valentina_pipeline.image.provenance.watermark import add_watermark

        if reason := self._unsafe(image):  # before the watermark, which could change the result
            return GenerationResult(None, order, seed, reason, None)
        marked = add_watermark(add_provenance(image, {"preset": order.preset}))
        scorer = self._identity_scorer
        identity, attributes = scorer.score(marked, order.prompt) if scorer else (None, ())
        warnings = (RENDERER_WARNING,) if self.engine == "renderer" else ()
        return GenerationResult(marked, order, seed, "", identity, attributes, warnings)

    @property
    def measures(self) -> bool:
        """True where images are compared with the character's portraits."""
        return self._identity_scorer is not None

    def time_text_encoding(self) -> float:
        """Return the seconds in which the torch engine encodes one prompt."""
        import torch

        began = time.perf_counter()
        with torch.inference_mode():
            self._pipe.encode_prompt(
                self.about.trigger,
                device=self._pipe.device,
                num_images_per_prompt=1,
                do_classifier_free_guidance=False,
            )
        return time.perf_counter() - began

    def preview(self, latents: "Tensor") -> "Image.Image | None":
        """Return a preview from the latents (c, h, w) of an unfinished image; None if it is unsafe."""
        import torch

        from valentina_pipeline.image.generate.generate import decode_latents
        from valentina_pipeline.image.provenance.watermark import add_watermark

        with torch.inference_mode():
            image = next(decode_latents(self._pipe.vae, latents[None]))
        return None if self._unsafe(image) else add_watermark(image)

    def _unsafe(self, image: "Image.Image") -> str | None:
        """Return the reason why the image is unsafe, or None."""
        return self._filter.unsafe(image) or (self._checker.unsafe(image) if self._checker else None)


def batch_size(settings: Settings) -> int:
    """Return the number of images per batch: 8 with sides of 128 or 512 pixels, 2 with sides of 1024."""
    return max(1, min(8, 2**21 // (settings.width * settings.height)))


def _load_base(about: PackageInfo, override: str | None, root: Path | None) -> "BaseModel":
    from valentina_pipeline.image.models.base_model import load_base
    from valentina_pipeline.image.models.weights import base_hash

    path = override or ("base" if about.base.bundle_in_package else about.base.path)
    parent = about.folder if about.base.bundle_in_package and not override else root or Path.cwd()
    model = load_base(about.base.model_copy(update={"path": path}), parent, offload=True)
    if (found := base_hash(model.path)) != about.base_hash:
        raise InvalidPackageError(
            f"{model.path} holds other weights (sha256 {found[:12]}) than the base model that this LoRA "
            f"was trained on ({about.base_hash[:12]}): to get that model, {about.base.download_instructions}"
        )
    return model


def _load_onnx_pipeline(about: PackageInfo) -> Any:
    from valentina_pipeline.common.missing_model import MissingModelError
    from valentina_pipeline.serving.inference.onnx_pipeline import pipeline

    folder = about.folder / "onnx"
    if not folder.is_dir():
        raise MissingModelError(
            f"an export of {about.name} for ONNX Runtime", about.base.license, "publish with engines: [onnx]"
        )
    return pipeline(folder)


def _scheduler(name: str, default: Any) -> Any:
    """Return the sampler by its name, with the base model's noise schedule."""
    import diffusers

    if name == "default":
        return default
    sampler = SAMPLERS[name]
    return getattr(diffusers, sampler.diffusers).from_config(default.config, **sampler.settings)
