"""A package put together, as `register` decides on it and `publish` writes it: the same files twice."""

import atexit
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from valentina_pipeline.common.code_fingerprint import SRC, import_closure
from valentina_pipeline.config.base_model import BaseConfig
from valentina_pipeline.config.evaluate import EvaluateConfig
from valentina_pipeline.config.publish import PublishConfig
from valentina_pipeline.config.train_lora import TrainConfig
from valentina_pipeline.config.validation import parse_config
from valentina_pipeline.domain.concept import Concept
from valentina_pipeline.domain.rights import RightsRecord
from valentina_pipeline.domain.scene import InvalidScenesError, Scene, parse_scenes

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

LOADER = "valentina_pipeline.serving.inference.pyfunc"
EXAMPLE = {"prompt": "smiling, wearing a red dress, beach background", "seed": 1, "preset": "standard"}


@dataclass(frozen=True)
class PackageInputs:
    """What the stages register and publish are given, as Kedro loads it.

    Attributes:
        lora: train_lora's folder.
        metrics: evaluate's figures; None, as the next three, where the LoRA came without pictures.
        train_metrics: train_lora's figures.
        faces: align's, with identity vectors.
        used_pictures: sha256, rights_id and split of each picture that the LoRA stands on.
        rights: the concept's records.
        weights: tiny/weights; a base's relative path counts from the project's folder, two above.
        grid: evaluate's, where there is one.
        scenes: the scene library: category -> name -> words.
        concept: see Concept.
        base: see BaseConfig.
        train: see TrainConfig, where it was trained here.
        evaluate: see EvaluateConfig.
        publish: see PublishConfig.
    """

    lora: Path
    metrics: dict[str, Any] | None
    train_metrics: dict[str, Any] | None
    faces: "pd.DataFrame | None"
    used_pictures: "pd.DataFrame | None"
    rights: tuple[RightsRecord, ...]
    weights: Path
    grid: "Image.Image | None"
    scenes: dict[str, Any]
    concept: dict[str, Any]
    base: dict[str, Any]
    train: dict[str, Any] | None
    evaluate: dict[str, Any]
    publish: dict[str, Any]

    @property
    def root(self) -> Path:
        """The project's folder."""
        return self.weights.parent.parent


def content_identity(material: PackageInputs) -> tuple[str, str]:
    """Return the hash of LoRA and base together, and of the base alone.

    Raises:
        MissingModel: the base is not on this machine.
    """
    from valentina_pipeline.image.models.weights import base_folder, base_hash
    from valentina_pipeline.release.package import content_hash

    base = base_hash(base_folder(parse_config(BaseConfig, material.base, "base"), material.root))
    return content_hash(material.lora, base), base


def assemble_package(material: PackageInputs, decision: Mapping[str, Any]) -> dict[str, bytes | Path]:
    """Return the package's files by relative path; the same material and decision give the same bytes.

    Raises:
        MissingModel: the base is not on this machine.
    """
    from valentina_pipeline.common.missing_model import resolve_path
    from valentina_pipeline.image.io import png
    from valentina_pipeline.image.models.weights import base_folder, base_hash
    from valentina_pipeline.integrations.flavors import model_files
    from valentina_pipeline.release.contents import PackageContents
    from valentina_pipeline.release.package import build

    base = parse_config(BaseConfig, material.base, "base")
    publish = parse_config(PublishConfig, material.publish, "publish")
    folder = base_folder(base, material.root)
    return build(
        PackageContents(
            concept=parse_config(Concept, material.concept, "concept"),
            rights=material.rights,
            base=base,
            base_folder=folder,
            base_hash=base_hash(folder),
            controls={kind: material.root / path for kind, path in base.controls.items()},
            lora=material.lora,
            train=None if material.train is None else parse_config(TrainConfig, material.train, "train_lora"),
            evaluate=parse_config(EvaluateConfig, material.evaluate, "evaluate"),
            publish=publish,
            metrics=material.metrics,
            train_metrics=material.train_metrics,
            decision=decision,
            faces=material.faces,
            used_pictures=material.used_pictures,
            grid=None if material.grid is None else png.encode(material.grid),
            engines=export_engines(material, base, publish) if publish.engines else {},
            scenes=_checked(parse_scenes(material.scenes), material.concept["name"]),
            embedder=resolve_path(base.face_embedder.path, material.root),
            code=list_code_files(),
            model=model_files(LOADER, base.path, EXAMPLE, decision["content_hash"]),
        )
    )


def _checked(library: dict[str, Scene], own: str) -> dict[str, Scene]:
    """Return the scenes, after asking the policy for prompts about each.

    Raises:
        InvalidScenesError: one is refused.
    """
    from valentina_pipeline.image.safety.policy.judge import UnsafePromptError
    from valentina_pipeline.image.safety.prompt_filter import refuse_words

    for name, scene in library.items():
        try:
            refuse_words(scene.words, own)
        except UnsafePromptError as err:
            raise InvalidScenesError(f"scene {name} of conf/base/prompts/scenes.yml: {err.reason}") from err
    return library


def export_engines(material: PackageInputs, base: BaseConfig, publish: PublishConfig) -> dict[str, Path]:
    """Return what other engines than torch draw with: path in the package -> file.

    The files are there until this process ends.
    """
    from valentina_pipeline.image.export import onnx

    place = Path(mkdtemp(prefix="engines-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    model = onnx.fuse_lora(base, material.root, material.lora)
    files: dict[str, Path] = {}
    for engine in sorted(publish.engines, reverse=True):  # native's rounding comes last
        (place / engine).mkdir()
        made = onnx.ENGINES[engine](model, place / engine)
        files |= {f"{engine}/{name}": file for name, file in made.items()}
    return files


def list_code_files() -> dict[str, Path]:
    """Return the files that the loader imports or reads: path in the package -> file."""
    return {f"code/{file.relative_to(SRC).as_posix()}": file for file in import_closure(LOADER)}
