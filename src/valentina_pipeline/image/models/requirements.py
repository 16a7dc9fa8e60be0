"""Check that all models of a run are on this machine before any work begins."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from valentina_pipeline.common.missing_model import MissingModelError, has_hub_model, resolve_path
from valentina_pipeline.config.align import AlignConfig
from valentina_pipeline.config.base_model import BaseConfig
from valentina_pipeline.config.caption import CaptionConfig
from valentina_pipeline.config.evaluate import EvaluateConfig
from valentina_pipeline.config.ingest import IngestConfig
from valentina_pipeline.config.validation import parse_config
from valentina_pipeline.domain.base_files import CONTROLNET_FILES


def find_missing_models(params: Mapping[str, Any], root: Path) -> list[MissingModelError]:
    """Return one error for each model of a run that is not on this machine.

    Files are looked up by name. No weights are read and nothing is downloaded.

    Args:
        params: effective parameters of all stages.
        root: project folder; paths are relative to it.

    Raises:
        ValueError: a model has another family or format.
    """
    missing = []
    base = parse_config(BaseConfig, params["base"], "base")
    ingest = parse_config(IngestConfig, params["ingest"], "ingest")
    align = parse_config(AlignConfig, params["align"], "align")
    caption = parse_config(CaptionConfig, params["caption"], "caption")
    evaluate = parse_config(EvaluateConfig, params["evaluate"], "evaluate")
    for require in _requirements(base, ingest, align, caption, evaluate, root):
        try:
            require()
        except MissingModelError as err:
            missing.append(err)
    return missing


def _requirements(
    base: BaseConfig,
    ingest: IngestConfig,
    align: AlignConfig,
    caption: CaptionConfig,
    evaluate: EvaluateConfig,
    root: Path,
) -> Iterator[Callable[[], object]]:
    """Yield one function per model, which raises MissingModelError if the model is missing."""
    from valentina_pipeline.image.align import background_removal
    from valentina_pipeline.image.caption import captioners
    from valentina_pipeline.image.evaluate import attribute_questions
    from valentina_pipeline.image.faces import embedding
    from valentina_pipeline.image.ingest import iqa, upscale
    from valentina_pipeline.image.models import clip
    from valentina_pipeline.image.models.weights import find_base_weights

    embedder, scorer = base.face_embedder, base.clip
    yield partial(find_base_weights, base, root)
    yield partial(embedding.require_embedder, embedder.kind, resolve_path(embedder.path, root))
    yield partial(clip.require_clip, scorer.kind, resolve_path(scorer.path, root))
    for kind, path in base.controlnets.items():
        yield partial(_require_controlnet, base, kind, root / path)
    if ingest.clip_iqa_model:
        yield partial(clip.require_clip, "open_clip", ingest.clip_iqa_model)
    if ingest.brisque_model:
        yield partial(iqa.require_brisque, ingest.brisque_model)
    if ingest.upscale_model:
        yield partial(
            _require_hub_model, ingest.upscale_model, upscale.missing_upscaler(ingest.upscale_model)
        )
    if align.background_model:
        segmenter = align.background_model
        yield partial(_require_hub_model, segmenter, background_removal.missing_segmenter(segmenter))
    if caption.captioner != "attributes":
        model = caption.model or captioners.CAPTIONERS[caption.captioner].model
        yield partial(_require_hub_model, model, captioners.missing_captioner(caption))
    if evaluate.attribute_model:
        model = resolve_path(evaluate.attribute_model, root)
        yield partial(_require_hub_model, model, attribute_questions.missing_questions_model(model))


def _require_controlnet(base: BaseConfig, kind: str, folder: Path) -> None:
    if missing := [name for name in CONTROLNET_FILES if not (folder / name).is_file()]:
        raise MissingModelError(
            f"controlnets.{kind} ({folder} lacks {', '.join(missing)})",
            base.license,
            base.download_instructions,
        )


def _require_hub_model(model: str, missing: MissingModelError) -> None:
    if not has_hub_model(model):
        raise missing
