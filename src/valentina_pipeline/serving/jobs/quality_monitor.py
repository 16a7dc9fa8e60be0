"""Quality of what is served, over time: whether the faces drawn last are still the character's."""

from collections import defaultdict, deque
from collections.abc import Iterable
from statistics import fmean

from valentina_pipeline.serving.inference.input_images import Inputs
from valentina_pipeline.serving.inference.package import PackageInfo
from valentina_pipeline.serving.inference.request import ResolvedRequest

WINDOW = 64
"""Images that are looked back on."""

LEAST_IMAGES, LEAST_PROMPTS = 32, 8
"""Before there is a verdict: one scene that she is bad at says nothing about the others."""


class QualityMonitor:
    """Follows the identity of what a package draws.

    Only images by her LoRA alone at full weight and from words count: others are meant to look different.

    Args:
        about: the package, whose gates are those that its LoRA passed to become champion.
    """

    def __init__(self, about: PackageInfo) -> None:
        self._gates = about.identity
        self._own = ((about.trigger, 1.0),) if about.has_lora else ()
        self._seen: deque[tuple[str, float | None]] = deque(maxlen=WINDOW)

    def add(self, order: ResolvedRequest, identities: Iterable[float | None]) -> None:
        """Take note of an order's images; None is one without a face."""
        if (order.settings.adapters, order.settings.inputs) == (self._own, Inputs()):
            self._seen.extend((order.prompt, identity) for identity in identities)

    @property
    def identity(self) -> float | None:
        """The mean over prompts of the mean identity of each one's faces, None without a face."""
        faces: dict[str, list[float]] = defaultdict(list)
        for prompt, identity in self._seen:
            if identity is not None:
                faces[prompt].append(identity)
        return fmean(map(fmean, faces.values())) if faces else None

    @property
    def face_found(self) -> float | None:
        """The share of images that show a face, None without images."""
        return fmean(identity is not None for _, identity in self._seen) if self._seen else None

    @property
    def failing(self) -> str:
        """Which figure is below its gate, in words, or "" ."""
        if (
            self._gates is None
            or len(self._seen) < LEAST_IMAGES
            or len({prompt for prompt, _ in self._seen}) < LEAST_PROMPTS
        ):
            return ""
        last = f"of the last {len(self._seen)} images"
        if (found := self.face_found or 0.0) < self._gates.face_found:
            return f"the share {last} that show a face is {found:.2f}, below {self._gates.face_found:.2f}"
        if (identity := self.identity or 0.0) < self._gates.gate:
            return f"the identity {last} is {identity:.2f}, below {self._gates.gate:.2f}"
        return ""
