"""A package put together, as `register` decides on it and `publish` writes it: the same files twice."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valentina_pipeline.config import (
    BaseConfig,
    EvaluateConfig,
    PublishConfig,
    TrainConfig,
    validated,
)
from valentina_pipeline.domain.concept import Concept
from valentina_pipeline.domain.rights import RightsRecord

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

LOADER = "valentina_pipeline.serving.studio.engine"
EXAMPLE = {"prompt": "smiling, wearing a red dress, beach background", "seed": 1, "preset": "standard"}


@dataclass(frozen=True)
class Material:
    """What the stages register and publish are given, as Kedro loads it.

    Attributes:
        lora: train_lora's folder.
        metrics: evaluate's figures.
        train_metrics: train_lora's figures.
        used_pictures: sha256, rights_id and split of each picture that the LoRA stands on.
        rights: the concept's records.
        weights: tiny/weights; a base's relative path counts from the project's folder, two above.
        serving: the package valentina_pipeline.serving.studio, as a folder.
        grid: evaluate's.
        concept: domain/concept.py's Concept.
        base: config.py's BaseConfig.
        train: config.py's TrainConfig.
        evaluate: config.py's EvaluateConfig.
        publish: config.py's PublishConfig.
    """

    lora: Path
    metrics: dict[str, Any]
    train_metrics: dict[str, Any]
    used_pictures: "pd.DataFrame"
    rights: tuple[RightsRecord, ...]
    weights: Path
    serving: Path
    grid: "Image.Image"
    concept: dict[str, Any]
    base: dict[str, Any]
    train: dict[str, Any]
    evaluate: dict[str, Any]
    publish: dict[str, Any]

    @property
    def root(self) -> Path:
        """The project's folder."""
        return self.weights.parent.parent


def identified(material: Material) -> tuple[str, str]:
    """Return the hash of LoRA and base together, and of the base alone.

    Raises:
        MissingModel: the base is not on this machine.
    """
    from valentina_pipeline.image.base import base_folder, base_hash
    from valentina_pipeline.release.package import content_hash

    base = base_hash(base_folder(validated(BaseConfig, material.base, "base"), material.root))
    return content_hash(material.lora, base), base


def assembled(material: Material, decision: Mapping[str, Any]) -> dict[str, bytes | Path]:
    """Return the package's files by relative path; the same material and decision give the same bytes.

    Raises:
        MissingModel: the base is not on this machine.
    """
    from valentina_pipeline.image import png
    from valentina_pipeline.image.base import base_folder, base_hash
    from valentina_pipeline.integrations.flavours import model_files
    from valentina_pipeline.release.package import Parts, build

    base = validated(BaseConfig, material.base, "base")
    folder = base_folder(base, material.root)
    return build(
        Parts(
            concept=validated(Concept, material.concept, "concept"),
            rights=material.rights,
            base=base,
            base_folder=folder,
            base_hash=base_hash(folder),
            controls={kind: material.root / path for kind, path in base.controls.items()},
            lora=material.lora,
            train=validated(TrainConfig, material.train, "train_lora"),
            evaluate=validated(EvaluateConfig, material.evaluate, "evaluate"),
            publish=validated(PublishConfig, material.publish, "publish"),
            metrics=material.metrics,
            train_metrics=material.train_metrics,
            decision=decision,
            used_pictures=material.used_pictures,
            grid=png.encode(material.grid),
            code=shipped(material.serving),
            model=model_files(LOADER, base.path, EXAMPLE, decision["content_hash"]),
        )
    )


def shipped(serving: Path) -> dict[str, Path]:
    """Return the modules that a package needs to draw: path in the package -> file.

    They are imported here by name, so that `kedro dvc` sees them: an edit of one is a new package. What
    is in `serving` comes as a folder, for pipelines and serving do not import each other.
    """
    import valentina_pipeline
    from valentina_pipeline import config, domain, image
    from valentina_pipeline.domain import concept, content
    from valentina_pipeline.image import (
        adapted,
        base,
        control,
        decode,
        edges,
        faces,
        generate,
        lora,
        lora_files,
        missing,
        png,
        redraw,
        safety,
        tokens,
    )

    of_images = (
        adapted, base, control, decode, edges, faces, generate, lora, lora_files, missing, png, redraw,
        safety, tokens,
    )  # fmt: skip
    modules = (valentina_pipeline, config, domain, concept, content, image, *of_images)
    top = Path(str(valentina_pipeline.__file__)).parent
    files = [Path(str(module.__file__)) for module in modules]
    names = [file.relative_to(top) for file in files]
    drawing = sorted(serving.glob("*.py"))  # `serving` itself becomes a namespace package
    files += drawing
    names += [file.relative_to(serving.parents[1]) for file in drawing]
    return {f"code/{top.name}/{n.as_posix()}": file for n, file in zip(names, files, strict=True)}
