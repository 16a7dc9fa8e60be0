"""What is seen of a run on the way: its losses, held-out pictures, and what it draws."""

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

Figures = Callable[[], dict[str, float]]
Paint = Callable[[Sequence[str]], "list[Image.Image]"]

GRID_PROMPTS = 4


def watch(
    base: "BaseModel",
    model: BaseConfig,
    root: Path,
    person: Concept,
    cfg: TrainConfig,
    seed: int,
    data: "tuple[EncodedDataset, EncodedDataset | None]",
    captions: Sequence[str],
    faces: "pd.DataFrame",
) -> "TrainingCallbacks":
    """Return who watches a run, as its configuration asks for it.

    Args:
        base: what is trained in.
        model: where its judges are, and its resolution.
        root: the project's folder.
        person: who is learned.
        cfg: the effective parameters.
        seed: of the noise of looks and drawn images.
        data: what is trained on, and what is held out, if anything.
        captions: of pictures, the first of which are prompts of drawn images.
        faces: align's rows.
    """
    from valentina_pipeline.image.generate.sampling import ImageSpec, generate_images
    from valentina_pipeline.image.models.scorers import load_scorers
    from valentina_pipeline.image.train.validation import validation_losses
    from valentina_pipeline.integrations.tracking import current_tracker
    from valentina_pipeline.training.callbacks import TrainingCallbacks

    def paint(prompts: Sequence[str]) -> "list[Image.Image]":
        requests = [ImageSpec(prompt, seed + index) for index, prompt in enumerate(prompts)]
        return generate_images(base.pipe, requests, cfg.sample_steps, cfg.sample_guidance, model.resolution)

    seen, unseen = data
    prompts = captions[:GRID_PROMPTS]
    looks: list[tuple[int, Figures]] = []
    if unseen is not None:
        looks.append((cfg.look_every, lambda: validation_losses(base, unseen, seen, seed)))
    if cfg.draw_every:
        chosen = [prompts[index % len(prompts)] for index in range(cfg.draw_images)]
        looks.append(
            (cfg.draw_every, _drawn(paint, chosen, person.trigger, faces, load_scorers(model, root)))
        )
    return TrainingCallbacks(
        log=current_tracker().log, sample=_grid(paint, prompts, model.resolution), looks=looks
    )


def _drawn(
    paint: Paint, prompts: Sequence[str], trigger: str, faces: "pd.DataFrame", judges: "Scorers"
) -> Figures:
    import numpy as np

    from valentina_pipeline.image.train.validation import image_metrics

    words = [prompt.replace(f"{trigger} ", "") for prompt in prompts]
    known = np.stack(faces.loc[faces["kept"].astype(bool) & (faces["split"] == TRAIN), "embedding"].to_list())
    return lambda: image_metrics(paint(prompts), words, known, judges)


def _grid(paint: Paint, prompts: Sequence[str], size: int) -> Callable[[int, Any], None]:
    from valentina_pipeline.image.io.contact_sheet import contact_sheet
    from valentina_pipeline.integrations.tracking import current_tracker

    def sample(step: int, _pipe: Any) -> None:
        sheet = contact_sheet(paint(prompts), prompts, columns=2, cell=max(size, 256))
        current_tracker().image("samples", sheet, step)

    return sample
