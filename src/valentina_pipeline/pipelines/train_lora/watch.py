"""What is seen of a run on the way: its losses, held-out pictures, and what it draws."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valentina_pipeline.config import BaseConfig, TrainConfig
from valentina_pipeline.domain.concept import Concept
from valentina_pipeline.domain.manifest import TRAIN

if TYPE_CHECKING:
    import pandas as pd

    from valentina_pipeline.image.base import BaseModel
    from valentina_pipeline.image.encoding import Encoded
    from valentina_pipeline.image.train import Watch

Figures = Callable[[], dict[str, float]]

GRID_PROMPTS = 4


def watch(
    base: "BaseModel",
    model: BaseConfig,
    root: Path,
    person: Concept,
    cfg: TrainConfig,
    seed: int,
    data: "tuple[Encoded, Encoded | None]",
    captions: Sequence[str],
    faces: "pd.DataFrame",
) -> "Watch":
    """Return who watches a run, as its configuration asks for it.

    Args:
        base: what is trained in.
        model: where its judges are, and its resolution.
        root: the project's folder.
        person: who is learned.
        cfg: see config.py.
        seed: of the noise of looks and drawn images.
        data: what is trained on, and what is held out, if anything.
        captions: of pictures, the first of which are prompts of drawn images.
        faces: align's rows.
    """
    from valentina_pipeline.image.train import Watch
    from valentina_pipeline.image.validate import held_out_figures
    from valentina_pipeline.integrations.tracking import active

    seen, unseen = data
    prompts = captions[:GRID_PROMPTS]
    looks: list[tuple[int, Figures]] = []
    if unseen is not None:
        looks.append((cfg.look_every, lambda: held_out_figures(base, unseen, seen, seed)))
    if cfg.draw_every:
        looks.append((cfg.draw_every, _drawn(base, model, root, person, cfg, seed, prompts, faces)))
    return Watch(log=active().log, sample=_grid(prompts, cfg, seed, model.resolution), looks=looks)


def _drawn(
    base: "BaseModel",
    model: BaseConfig,
    root: Path,
    person: Concept,
    cfg: TrainConfig,
    seed: int,
    prompts: Sequence[str],
    faces: "pd.DataFrame",
) -> Figures:
    import numpy as np

    from valentina_pipeline.image.generate import Request, draw
    from valentina_pipeline.image.judge import load_judges
    from valentina_pipeline.image.validate import drawn_figures

    judges = load_judges(model, root)
    chosen = [prompts[index % len(prompts)] for index in range(cfg.draw_images)]
    words = [prompt.replace(f"{person.trigger} ", "") for prompt in chosen]
    requests = [Request(prompt, seed + index) for index, prompt in enumerate(chosen)]
    known = np.stack(faces.loc[faces["kept"].astype(bool) & (faces["split"] == TRAIN), "embedding"].to_list())

    def look() -> dict[str, float]:
        images = draw(base.pipe, requests, cfg.sample_steps, cfg.sample_guidance, model.resolution)
        return drawn_figures(images, words, known, judges)

    return look


def _grid(prompts: Sequence[str], cfg: TrainConfig, seed: int, size: int) -> Callable[[int, Any], None]:
    from valentina_pipeline.image.generate import Request, draw
    from valentina_pipeline.image.sheet import contact_sheet
    from valentina_pipeline.integrations.tracking import active

    requests = [Request(prompt, seed + index) for index, prompt in enumerate(prompts)]

    def sample(step: int, pipe: Any) -> None:
        images = draw(pipe, requests, cfg.sample_steps, cfg.sample_guidance, size)
        active().image("samples", contact_sheet(images, prompts, columns=2, cell=max(size, 256)), step)

    return sample
