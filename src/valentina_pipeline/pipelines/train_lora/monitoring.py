"""Callbacks of a training run: logged losses, sample images and evaluations."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valentina_pipeline.config.base_model import BaseConfig
from valentina_pipeline.config.train_lora import TrainConfig
from valentina_pipeline.domain.concept import Concept
from valentina_pipeline.domain.manifest import TRAIN

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

    from valentina_pipeline.image.models.base_model import BaseModel
    from valentina_pipeline.image.models.scorers import Scorers
    from valentina_pipeline.image.train.encoding import EncodedDataset
    from valentina_pipeline.training.callbacks import TrainingCallbacks

Evaluator = Callable[[], dict[str, float]]
Generate = Callable[[Sequence[str]], "list[Image.Image]"]

GRID_PROMPTS = 4


def watch(
    base: "BaseModel",
    model: BaseConfig,
    root: Path,
    character: Concept,
    cfg: TrainConfig,
    seed: int,
    data: "tuple[EncodedDataset, EncodedDataset | None]",
    captions: Sequence[str],
    faces: "pd.DataFrame",
    keep: Callable[[int], None],
) -> "TrainingCallbacks":
    """Return the callbacks that the configuration asks for.

    Args:
        base: the base model in training.
        model: its entry: paths of the scoring networks, resolution.
        root: the project's folder.
        character: the character.
        cfg: the effective parameters.
        seed: seed of the noise of evaluations and sample images.
        data: the training set, and the held-out set if there is one.
        captions: captions; the first GRID_PROMPTS are the prompts of sample images.
        faces: align's rows.
        keep: keeps the trained weights of a step.
    """
    from valentina_pipeline.image.generate.generate import ImageSpec, generate_images
    from valentina_pipeline.image.models.scorers import load_scorers
    from valentina_pipeline.image.train.validation import validation_losses
    from valentina_pipeline.integrations.tracking import current_tracker
    from valentina_pipeline.training.callbacks import TrainingCallbacks

    def generate(prompts: Sequence[str]) -> "list[Image.Image]":
        requests = [ImageSpec(prompt, seed + index) for index, prompt in enumerate(prompts)]
        return generate_images(
            base.pipe, requests, cfg.sample_inference_steps, cfg.sample_guidance_scale, model.resolution
        )

    training_set, held_out_set = data
    prompts = captions[:GRID_PROMPTS]
    evaluators: list[tuple[int, Evaluator]] = []
    if held_out_set is not None:
        evaluators.append((cfg.eval_every, lambda: validation_losses(base, held_out_set, training_set, seed)))
    if cfg.image_eval_every:
        chosen = [prompts[index % len(prompts)] for index in range(cfg.num_eval_images)]
        scorers = load_scorers(model, root)
        evaluators.append(
            (cfg.image_eval_every, _image_evaluator(generate, chosen, character.trigger, faces, scorers))
        )
    return TrainingCallbacks(
        log=current_tracker().log,
        sample=_sample_grid(generate, prompts, model.resolution),
        keep=keep,
        evaluators=evaluators,
    )


def _image_evaluator(
    generate: Generate, prompts: Sequence[str], trigger: str, faces: "pd.DataFrame", scorers: "Scorers"
) -> Evaluator:
    import numpy as np

    from valentina_pipeline.image.train.validation import image_metrics

    words = [prompt.replace(f"{trigger} ", "") for prompt in prompts]
    known = np.stack(
        faces.loc[faces["accepted"].astype(bool) & (faces["split"] == TRAIN), "embedding"].to_list()
    )
    return lambda: image_metrics(generate(prompts), words, known, scorers)


def _sample_grid(generate: Generate, prompts: Sequence[str], size: int) -> Callable[[int, Any], None]:
    from valentina_pipeline.image.io.contact_sheet import contact_sheet
    from valentina_pipeline.integrations.tracking import current_tracker

    def sample(step: int, _pipe: Any) -> None:
        sheet = contact_sheet(generate(prompts), prompts, columns=2, cell=max(size, 256))
        current_tracker().image("samples", sheet, step)

    return sample
