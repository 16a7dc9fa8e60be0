"""Contents of a package, before they become files."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valentina_pipeline.config.base_model import BaseConfig
from valentina_pipeline.config.evaluate import EvaluateConfig
from valentina_pipeline.config.publish import PublishConfig
from valentina_pipeline.config.train_lora import TrainConfig
from valentina_pipeline.domain.concept import Concept
from valentina_pipeline.domain.rights import RightsRecord
from valentina_pipeline.domain.scene import Scene

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class PackageContents:
    """What a package is made from.

    Attributes:
        concept: who was learnt.
        rights: its records.
        base: the base model, as configured.
        base_folder: its weights.
        base_hash: of them.
        controls: kind of picture -> folder of the ControlNet for it.
        lora: train_lora's folder, flat.
        train: how it was trained; None, as the figures, faces, pictures and grid, of a LoRA made elsewhere.
        evaluate: how it was measured.
        publish: the default preset.
        metrics: evaluate's figures.
        train_metrics: train_lora's figures.
        decision: release.decide's.
        faces: align's rows: identity vector, kept and split of each portrait.
        used_pictures: sha256, rights_id and split of each picture that the LoRA stands on.
        grid: a PNG's bytes: the LoRA beside the bare base.
        engines: relative path -> file: what other engines than torch draw with.
        scenes: the scene library.
        embedder: where the face embedder's weights are, or a name that its loader knows.
        code: relative path -> file: the modules that serve the package.
        model: relative path -> content: the files that make the folder an MLflow model.
    """

    concept: Concept
    rights: tuple[RightsRecord, ...]
    base: BaseConfig
    base_folder: Path
    base_hash: str
    controls: Mapping[str, Path]
    lora: Path
    train: TrainConfig | None
    evaluate: EvaluateConfig
    publish: PublishConfig
    metrics: Mapping[str, Any] | None
    train_metrics: Mapping[str, Any] | None
    decision: Mapping[str, Any]
    faces: "pd.DataFrame | None"
    used_pictures: "pd.DataFrame | None"
    grid: bytes | None
    engines: Mapping[str, Path]
    scenes: Mapping[str, Scene]
    embedder: str
    code: Mapping[str, Path]
    model: Mapping[str, bytes]
