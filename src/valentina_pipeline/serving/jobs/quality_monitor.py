"""Quality monitor: checks that the latest generated faces still resemble the character."""

from collections import defaultdict, deque
from collections.abc import Iterable
from statistics import fmean

from valentina_pipeline.serving.inference.input_images import Inputs
from valentina_pipeline.serving.inference.package import PackageInfo
from valentina_pipeline.serving.inference.request import ResolvedRequest

WINDOW = 64
"""Number of latest images."""

MIN_IMAGES, MIN_PROMPTS = 32, 8
"""Required before a verdict: one badly rendered scene says nothing about the others."""


class QualityMonitor:
    """Tracks the identity similarity of a package's images.

    Only images from text with just the character's LoRA at full weight count: others may differ on purpose.

    Args:
        about: the package. Its thresholds are the ones that its LoRA passed to become champion.
    """

    def __init__(self, about: PackageInfo) -> None:
        self._gates = about.identity
        self._own = ((about.trigger, 1.0),) if about.has_lora else ()
        self._latest: deque[tuple[str, float | None]] = deque(maxlen=WINDOW)

    def add(self, order: ResolvedRequest, identities: Iterable[float | None]) -> None:
        """Record the identities of a request's images; None is an image without a face."""
        if (order.settings.loras, order.settings.inputs) == (self._own, Inputs()):
            self._latest.extend((order.prompt, identity) for identity in identities)

    @property
    def identity(self) -> float | None:
        """Mean over prompts of the mean identity of their faces, None without a face."""
        faces: dict[str, list[float]] = defaultdict(list)
        for prompt, identity in self._latest:
            if identity is not None:
                faces[prompt].append(identity)
        return fmean(map(fmean, faces.values())) if faces else None

    @property
    def face_detection_rate(self) -> float | None:
        """Share of images with a face, None without images."""
        return fmean(identity is not None for _, identity in self._latest) if self._latest else None

    @property
    def failing(self) -> str:
        """Description of the metric below its threshold, or ""."""
        if (
            self._gates is None
            or len(self._latest) < MIN_IMAGES
            or len({prompt for prompt, _ in self._latest}) < MIN_PROMPTS
        ):
            return ""
        latest = f"of the last {len(self._latest)} images"
        if (found := self.face_detection_rate or 0.0) < self._gates.face_detection_rate:
            return (
                f"the share {latest} with a face is {found:.2f}, below {self._gates.face_detection_rate:.2f}"
            )
        if (identity := self.identity or 0.0) < self._gates.gate:
            return f"the identity {latest} is {identity:.2f}, below {self._gates.gate:.2f}"
        return ""
