"""A package with its networks loaded: draws orders, several LoRAs at once, without loading the base again."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valentina_pipeline.image.safety.content_filter import ContentFilter
from valentina_pipeline.image.safety.sd_safety_checker import SafetyChecker
from valentina_pipeline.serving.inference import identity as likeness
from valentina_pipeline.serving.inference.adapters import Adapter, read_adapters
from valentina_pipeline.serving.inference.conditioning import (
    ControlModels,
    InputRefusedError,
    check_input_images,
    open_images,
    start,
)
from valentina_pipeline.serving.inference.control_models import Network, read_controls
from valentina_pipeline.serving.inference.lora_stack import LoraStack
from valentina_pipeline.serving.inference.package import InvalidPackageError, PackageInfo, check_rights, read
from valentina_pipeline.serving.inference.preview_renderer import PreviewRenderer
from valentina_pipeline.serving.inference.request import (
    SCHEDULERS,
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

    from valentina_pipeline.image.generate.sampling import OnStep
    from valentina_pipeline.image.models.base_model import BaseModel


RENDERED = (
    "the renderer reads expression, pose, dress, place and light from the prompt, and nothing else; "
    "steps, guidance, sampler and negative prompt change nothing"
)
"""A warning with each image of the renderer."""


@dataclass(frozen=True)
class GenerationResult:
    """What one image of an order came to.

    Attributes:
        image: marked as generated; None where the content filter refused it.
        order: as drawn.
        seed: of the image.
        refused: why there is no image, else "".
        identity: the face's likeness to the character's portraits, -1 to 1; None without a face, an image
            or the networks that measure it.
        warnings: what of the request counted for nothing, a sentence each.
    """

    image: "Image.Image | None"
    order: ResolvedRequest
    seed: int
    refused: str
    identity: float | None
    warnings: tuple[str, ...] = ()


class InferenceEngine:
    """A package, ready to draw. Safe to share between threads, which wait for each other.

    Args:
        about: the package.
        base: a folder or hub id of the same base model elsewhere; None takes the one that the package
            embeds or names.
        root: the project: its ledgers and registry say whether the package may draw, and relative paths of
            a base that is not embedded count from it; None is the working directory.
        shelf: further LoRAs by name.
        engine: what draws.
        controls: networks that keep to pictures, by kind.
        compile: have torch compile the U-Net's blocks, which takes the first images half a minute.

    Attributes:
        device: where it draws, such as "cpu" or "cuda:0".
        memory: how torch uses it: see image/models/offload.py.

    Raises:
        MissingModelError: the base is not on this machine, or the package has nothing for this engine.
        InvalidPackageError: the base found is not the one that the LoRA was trained on, or the renderer
            does not know the character.
        InvalidCheckerError: the base's safety checker cannot be used.
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

            self._base = _loaded(about, base, root)
            self._pipe = load_pipeline(self._base, about.folder / "lora")
            if compile:
                self._base.compile()
            self._composition = LoraStack(self._base, about.trigger, self.shelf)
            self._steering = ControlModels(self._base.unet, self.controls)
            self.device, self.memory = str(self._base.device), vars(self._base.placement)
            self._checker = SafetyChecker.load_if_available(self._base.folder)
        elif engine == "onnx":
            self._pipe = _exported(about)
            self.device = self._pipe.unet.runs_on
        else:
            self._renderer = PreviewRenderer(about)
        self._own_scheduler = self._pipe.scheduler if self._pipe else None
        self._filter = ContentFilter()
        # a rendered face is hers by its parameters
        self._likeness = likeness.load_identity_scorer(about, root) if engine != "procedural" else None
        self._turn = threading.Lock()

    @classmethod
    def open(
        cls,
        folder: Path,
        base: str | None = None,
        root: Path | None = None,
        adapters: Path | None = None,
        engine: Engine = "torch",
        compile: bool = False,
    ) -> "InferenceEngine":
        """Return the package of a folder, checked and loaded, with the networks of `adapters` beside it.

        Raises:
            InvalidPackageError: it is none, is damaged, or may not draw.
            BadAdapter: see `adapters.read_shelf` and `controls.read_controls`.
            MissingModelError: the base is not on this machine, or the package has nothing for this engine.
        """
        about = read(folder, root)
        shelf = read_adapters(adapters, about) if adapters else None
        controls = read_controls(about, root or Path.cwd(), adapters)
        return cls(about, base, root, shelf, engine, controls, compile)

    def generate(self, request: GenerationRequest, on_step: "OnStep | None" = None) -> list[GenerationResult]:
        """Draw a request's images.

        Args:
            request: what is asked for.
            on_step: told after each step of a batch; what it raises ends the drawing.

        Raises:
            UnsafePrompt: a prompt is refused by the policy.
            BadRequest: see `request.settled`.
            BadAdapter: a LoRA does not fit the base.
        """
        return self.draw([self.order(request)], on_step)[0]

    def order(self, request: GenerationRequest) -> ResolvedRequest:
        """Return what is drawn for a request: `request.settled` with what there is here."""
        return resolve_request(request, self.about, self.shelf, self.engine, self.controls)

    def draw(
        self, orders: Sequence[ResolvedRequest], on_step: "OnStep | None" = None
    ) -> list[list[GenerationResult]]:
        """Draw orders, those with the same settings together; an image depends on its own order alone.

        But for rounding, which batches change.

        Returns:
            For each order its images, in order.

        Raises:
            InvalidPackageError: rights that the package stands on ended or were taken back meanwhile.
            BadAdapter: a LoRA does not fit the base.
        """
        check_rights(self.about, self._root)
        done: dict[tuple[int, int], GenerationResult] = {}
        for settings in dict.fromkeys(order.settings for order in orders):
            rows = [
                (row, seed)
                for row, order in enumerate(orders)
                for seed in order.seeds
                if order.settings == settings
            ]
            try:
                images = self._images([(orders[row], seed) for row, seed in rows], settings, on_step)
            except InputRefusedError as err:
                done |= {
                    (row, seed): GenerationResult(None, orders[row], seed, str(err), None)
                    for row, seed in rows
                }
                continue
            for (row, seed), image in zip(rows, images, strict=True):
                done[row, seed] = self._seen(image, orders[row], seed)
        return [[done[row, seed] for seed in order.seeds] for row, order in enumerate(orders)]

    def _seen(self, image: "Image.Image", order: ResolvedRequest, seed: int) -> GenerationResult:
        """Return what may be shown of a drawn image, and how like the character it is."""
        from valentina_pipeline.image.provenance.watermark import add_watermark

        if reason := self._unsafe(image):  # before the watermark, which changes what a detector sees
            return GenerationResult(None, order, seed, reason, None)
        shown = add_watermark(image)
        identity = self._likeness.score(shown) if self._likeness else None
        return GenerationResult(
            shown, order, seed, "", identity, (RENDERED,) if self.engine == "procedural" else ()
        )

    @property
    def measures(self) -> bool:
        """Whether images are compared with the character's portraits."""
        return self._likeness is not None

    def preview(self, latents: "Tensor") -> "Image.Image | None":
        """Return the picture of one image's latents (c, h, w) in mid-drawing; None if it is unsafe."""
        import torch

        from valentina_pipeline.image.generate.sampling import decode_latents
        from valentina_pipeline.image.provenance.watermark import add_watermark

        with torch.inference_mode():
            image = next(decode_latents(self._pipe.vae, latents[None]))
        return None if self._unsafe(image) else add_watermark(image)

    def _images(
        self, wanted: Sequence[tuple[ResolvedRequest, int]], settings: Settings, on_step: "OnStep | None"
    ) -> "list[Image.Image]":
        """Return an image for each order and seed, all of the same settings.

        Raises:
            InputRefusedError: for what a picture shows that they are given.
        """
        from valentina_pipeline.image.generate.controlnet import apply_controls
        from valentina_pipeline.image.generate.sampling import ImageSpec as One
        from valentina_pipeline.image.generate.sampling import generate_images
        from valentina_pipeline.image.provenance.metadata import add_provenance

        size = (settings.width, settings.height)
        marks = {
            "base_sha256": self.about.base_hash,
            "lora_sha256": self.about.lora_hash,
            "width": settings.width,
            "height": settings.height,
            "scheduler": settings.scheduler,
            "adapters": settings.adapters,
            **({} if self.engine == "torch" else {"engine": self.engine}),
            **settings.inputs.marks(),
        }
        pictures = open_images(wanted[0][0].pictures)
        check_input_images(settings.inputs, pictures, self.about, self._filter, self._likeness)
        requests = [One(order.prompt, seed, order.negative_prompt, weighted=True) for order, seed in wanted]
        refuse_beyond(settings, self.about, self.engine)  # it may have been accepted for another engine
        with self._turn:  # sampler and adapters are the pipeline's own
            if self.engine == "procedural":
                asked_for = {"steps": settings.steps, "guidance": settings.guidance}
                images = self._renderer.draw(requests, size, {**asked_for, **marks})
            else:
                steering = []
                if self.engine == "torch":
                    self._composition.compose(settings.adapters)
                    steering = self._steering.controls(settings.inputs, pictures)
                self._pipe.scheduler = _scheduler(settings.scheduler, self._own_scheduler)
                with apply_controls(self._pipe.unet, steering):
                    images = generate_images(
                        self._pipe,
                        requests,
                        settings.steps,
                        settings.guidance,
                        size,
                        batch_size(settings),
                        marks,
                        on_step,
                        start(settings.inputs, pictures),
                    )
        return [
            add_provenance(image, {"preset": order.preset})
            for (order, _), image in zip(wanted, images, strict=True)
        ]

    def _unsafe(self, image: "Image.Image") -> str | None:
        """Return why the picture is not shown, or None."""
        return self._filter.unsafe(image) or (self._checker.unsafe(image) if self._checker else None)


def batch_size(settings: Settings) -> int:
    """Return how many images are drawn at once: 8 of 128 or 512 pixels, 2 of 1024."""
    return max(1, min(8, 2**21 // (settings.width * settings.height)))


def _loaded(about: PackageInfo, elsewhere: str | None, root: Path | None) -> "BaseModel":
    from valentina_pipeline.image.models.base_model import load_base
    from valentina_pipeline.image.models.weights import base_hash

    path = elsewhere or ("base" if about.base.embed else about.base.path)
    below = about.folder if about.base.embed and not elsewhere else root or Path.cwd()
    model = load_base(about.base.model_copy(update={"path": path}), below, offload=True)
    if (found := base_hash(model.folder)) != about.base_hash:
        raise InvalidPackageError(
            f"{model.folder} holds other weights (sha256 {found[:12]}) than the base that this LoRA was "
            f"trained on ({about.base_hash[:12]}): to get that one, {about.base.obtain}"
        )
    return model


def _exported(about: PackageInfo) -> Any:
    from valentina_pipeline.common.missing_model import MissingModelError
    from valentina_pipeline.serving.inference.onnx_pipeline import pipeline

    folder = about.folder / "onnx"
    if not folder.is_dir():
        raise MissingModelError(
            f"an export of {about.name} for ONNX Runtime", about.base.licence, "publish with engines: [onnx]"
        )
    return pipeline(folder)


def _scheduler(name: str, own: Any) -> Any:
    """Return the sampler by its name in `SCHEDULERS`, with the base's noise schedule."""
    import diffusers

    if name == "base":
        return own
    kind, settings = SCHEDULERS[name]
    return getattr(diffusers, kind).from_config(own.config, **settings)
