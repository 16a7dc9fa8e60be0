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
    """Inputs of a package.

    Attributes:
        concept: the character.
        rights: its records.
        base: the base model, as configured.
        base_path: folder or file of its weights.
        base_hash: hash of its weights.
        content_hash: hash of the LoRA's tensors and the base model together.
        controlnets: kind of control image -> folder of its ControlNet.
        lora: train_lora's output folder, flat.
        train: training parameters; None for a LoRA that was made elsewhere, as are metrics, train_metrics,
            faces, training_images and comparison_grid.
        evaluate: evaluation parameters.
        publish: default preset and engines.
        metrics: evaluate's metrics.
        train_metrics: train_lora's metrics.
        faces: align's rows: identity vector, accepted and split of each portrait.
        training_images: sha256, rights_id and split of each training and held-out image.
        comparison_grid: PNG bytes of the comparison grid: the LoRA beside the base model.
        engines: relative path -> file: exports for engines besides torch.
        scenes: the scene library.
        attribute_judges: judges of the attributes in an image, as JSON; None on a base model without them.
        embedder: path of the face embedder's weights, or a name that its loader resolves.
        code: relative path -> file: the modules that serve the package.
        model: relative path -> content: the files that make the folder an MLflow model.
    """

    concept: Concept
    rights: tuple[RightsRecord, ...]
    base: BaseConfig
    base_path: Path
    base_hash: str
    content_hash: str
    controlnets: Mapping[str, Path]
    lora: Path
    train: TrainConfig | None
    evaluate: EvaluateConfig
    publish: PublishConfig
    metrics: Mapping[str, Any] | None
    train_metrics: Mapping[str, Any] | None
    faces: "pd.DataFrame | None"
    training_images: "pd.DataFrame | None"
    comparison_grid: bytes | None
    engines: Mapping[str, Path]
    scenes: Mapping[str, Scene]
    attribute_judges: Mapping[str, Any] | None
    embedder: str
    code: Mapping[str, Path]
    model: Mapping[str, bytes]
