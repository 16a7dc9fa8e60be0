"""Package assembly, shared by `register` and `publish`, so that both get the same files."""

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
    """Inputs of the stages register and publish, as Kedro loads them.

    Attributes:
        lora: train_lora's output folder.
        metrics: evaluate's metrics; None, like the next three, for a LoRA without training images.
        train_metrics: train_lora's metrics.
        faces: align's rows with identity vectors.
        training_images: sha256, rights_id and split of each training and held-out image.
        rights: the concept's records.
        tiny_weights: tiny/weights; a base's relative path counts from the project's folder, two above.
        comparison_grid: report's comparison grid, if any.
        scenes: the scene library: category -> name -> words.
        concept: see Concept.
        base: see BaseConfig.
        train: see TrainConfig; None for a LoRA that was made elsewhere.
        evaluate: see EvaluateConfig.
        publish: see PublishConfig.
    """

    lora: Path
    metrics: dict[str, Any] | None
    train_metrics: dict[str, Any] | None
    faces: "pd.DataFrame | None"
    training_images: "pd.DataFrame | None"
    rights: tuple[RightsRecord, ...]
    tiny_weights: Path
    comparison_grid: "Image.Image | None"
    scenes: dict[str, Any]
    concept: dict[str, Any]
    base: dict[str, Any]
    train: dict[str, Any] | None
    evaluate: dict[str, Any]
    publish: dict[str, Any]

    @property
    def root(self) -> Path:
        """The project's folder."""
        return self.tiny_weights.parent.parent


def content_identity(inputs: PackageInputs) -> tuple[str, str]:
    """Return the hash of LoRA and base model together, and the hash of the base model alone.

    Raises:
        MissingModelError: the base model is not on this machine.
    """
    from valentina_pipeline.image.models.weights import base_hash, find_base_weights
    from valentina_pipeline.release.package import content_hash

    base = base_hash(find_base_weights(parse_config(BaseConfig, inputs.base, "base"), inputs.root))
    return content_hash(inputs.lora, base), base


def assemble_package(inputs: PackageInputs, decision: Mapping[str, Any]) -> dict[str, bytes | Path]:
    """Return the package's files by relative path; the same inputs and decision give the same bytes.

    Raises:
        MissingModelError: the base model is not on this machine.
    """
    from valentina_pipeline.common.missing_model import resolve_path
    from valentina_pipeline.image.io import png
    from valentina_pipeline.image.models.weights import base_hash, find_base_weights
    from valentina_pipeline.integrations.flavors import model_files
    from valentina_pipeline.release.contents import PackageContents
    from valentina_pipeline.release.package import build

    base = parse_config(BaseConfig, inputs.base, "base")
    publish = parse_config(PublishConfig, inputs.publish, "publish")
    weights = find_base_weights(base, inputs.root)
    return build(
        PackageContents(
            concept=parse_config(Concept, inputs.concept, "concept"),
            rights=inputs.rights,
            base=base,
            base_path=weights,
            base_hash=base_hash(weights),
            controlnets={kind: inputs.root / path for kind, path in base.controlnets.items()},
            lora=inputs.lora,
            train=None if inputs.train is None else parse_config(TrainConfig, inputs.train, "train_lora"),
            evaluate=parse_config(EvaluateConfig, inputs.evaluate, "evaluate"),
            publish=publish,
            metrics=inputs.metrics,
            train_metrics=inputs.train_metrics,
            decision=decision,
            faces=inputs.faces,
            training_images=inputs.training_images,
            comparison_grid=None if inputs.comparison_grid is None else png.encode(inputs.comparison_grid),
            engines=export_engines(inputs, base, publish) if publish.engines else {},
            scenes=_check_scenes(parse_scenes(inputs.scenes), inputs.concept["name"]),
            embedder=resolve_path(base.face_embedder.path, inputs.root),
            code=list_code_files(),
            model=model_files(LOADER, base.path, EXAMPLE, decision["content_hash"]),
        )
    )


def _check_scenes(library: dict[str, Scene], own: str) -> dict[str, Scene]:
    """Return the scenes if the prompt filter accepts all of them.

    Raises:
        InvalidScenesError: the prompt filter refuses a scene.
    """
    from valentina_pipeline.image.safety.policy.judge import UnsafePromptError
    from valentina_pipeline.image.safety.prompt_filter import refuse_words

    for name, scene in library.items():
        try:
            refuse_words(scene.words, own)
        except UnsafePromptError as err:
            raise InvalidScenesError(
                f"conf/base/prompts/scenes.yml: scene {name} is refused: {err.reason}"
            ) from err
    return library


def export_engines(inputs: PackageInputs, base: BaseConfig, publish: PublishConfig) -> dict[str, Path]:
    """Export the model for the configured engines besides torch: path in the package -> file.

    The files are temporary: they are deleted when this process ends.
    """
    from valentina_pipeline.image.export import onnx

    place = Path(mkdtemp(prefix="engines-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    model = onnx.fuse_lora(base, inputs.root, inputs.lora)
    files: dict[str, Path] = {}
    for engine in sorted(publish.engines):  # sd_cpp last: it rounds the weights
        (place / engine).mkdir()
        exported = onnx.ENGINES[engine](model, place / engine)
        files |= {f"{engine}/{name}": file for name, file in exported.items()}
    return files


def list_code_files() -> dict[str, Path]:
    """Return the source files that the MLflow loader imports or reads: path in the package -> file."""
    return {f"code/{file.relative_to(SRC).as_posix()}": file for file in import_closure(LOADER)}
