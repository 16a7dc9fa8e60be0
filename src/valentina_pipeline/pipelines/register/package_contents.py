"""Contents of a package, gathered from the outputs of the stages."""

import atexit
import shutil
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

    from valentina_pipeline.release.contents import PackageContents

LOADER = "valentina_pipeline.serving.inference.pyfunc"
EXAMPLE = {"prompt": "smiling, wearing a red dress, beach background", "seed": 1, "preset": "standard"}


def gather_contents(
    root: Path,
    lora: Path,
    metrics: dict[str, Any] | None,
    train_metrics: dict[str, Any] | None,
    faces: "pd.DataFrame | None",
    training_images: "pd.DataFrame | None",
    rights: tuple[RightsRecord, ...],
    comparison_grid: "Image.Image | None",
    scenes: dict[str, Any],
    tiny_judges: dict[str, Any],
    concept: dict[str, Any],
    base: dict[str, Any],
    train_lora: dict[str, Any] | None,
    evaluate: dict[str, Any],
    publish: dict[str, Any],
) -> "PackageContents":
    """Return the contents of a package; the same arguments give the same contents.

    `root` is the project's folder, where relative paths of a base start; `scenes` is the scene library:
    category -> name -> words. The package gets the judges of `tiny_judges` if the evaluation used them.
    PackageContents and the models of config/ describe the other arguments.

    Raises:
        MissingModelError: the base model is not on this machine.
        InvalidScenesError: the prompt filter refuses a scene.
    """
    from valentina_pipeline.common.missing_model import resolve_path
    from valentina_pipeline.image.io import png
    from valentina_pipeline.image.models.weights import base_hash, find_base_weights
    from valentina_pipeline.integrations.flavors import model_files
    from valentina_pipeline.release.contents import PackageContents
    from valentina_pipeline.release.package import content_hash

    base_config = parse_config(BaseConfig, base, "base")
    published = parse_config(PublishConfig, publish, "publish")
    weights = find_base_weights(base_config, root)
    base_digest = base_hash(weights)
    content = content_hash(lora, base_digest)
    return PackageContents(
        concept=parse_config(Concept, concept, "concept"),
        rights=rights,
        base=base_config,
        base_path=weights,
        base_hash=base_digest,
        content_hash=content,
        controlnets={kind: root / path for kind, path in base_config.controlnets.items()},
        lora=lora,
        train=None if train_lora is None else parse_config(TrainConfig, train_lora, "train_lora"),
        evaluate=parse_config(EvaluateConfig, evaluate, "evaluate"),
        publish=published,
        metrics=metrics,
        train_metrics=train_metrics,
        faces=faces,
        training_images=training_images,
        comparison_grid=None if comparison_grid is None else png.encode(comparison_grid),
        engines=export_engines(root, base_config, lora, published) if published.engines else {},
        scenes=_check_scenes(parse_scenes(scenes), concept["name"]),
        attribute_judges=tiny_judges["attributes"] if metrics and "identification" in metrics else None,
        embedder=resolve_path(base_config.face_embedder.path, root),
        code=list_code_files(),
        model=model_files(LOADER, base_config.path, EXAMPLE, content),
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


def export_engines(root: Path, base: BaseConfig, lora: Path, publish: PublishConfig) -> dict[str, Path]:
    """Export the model for the configured engines besides torch: path in the package -> file.

    The files are temporary: they are deleted when this process ends.
    """
    from valentina_pipeline.image.export import onnx

    place = Path(mkdtemp(prefix="engines-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    model = onnx.fuse_lora(base, root, lora)
    files: dict[str, Path] = {}
    for engine in sorted(publish.engines):  # sd_cpp last: it rounds the weights
        (place / engine).mkdir()
        exported = onnx.ENGINES[engine](model, place / engine)
        files |= {f"{engine}/{name}": file for name, file in exported.items()}
    return files


def list_code_files() -> dict[str, Path]:
    """Return the source files that the MLflow loader imports or reads: path in the package -> file."""
    return {f"code/{file.relative_to(SRC).as_posix()}": file for file in import_closure(LOADER)}
