"""What a package is made from, small: a random base, its untrained LoRA and invented figures."""

import json
from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pandas as pd
import yaml
from PIL import Image

import tiny_bases
from valentina_pipeline.domain.rights import RightsRecord
from valentina_pipeline.image.lora.adapter import Kind
from valentina_pipeline.integrations import ledgers
from valentina_pipeline.pipelines.register.package_contents import gather_contents
from valentina_pipeline.release.package import build

ROOT = Path(__file__).parents[1]

DECISION = {
    "status": "champion",
    "reasons": [],
    "content_hash": "c" * 64,
    "gates": {"identity.ratio_to_ceiling": {"min": 0.8}, "face_detection_rate.lora.mean": {"min": 0.9}},
}
IDENTITY = {"mean": 0.7, "ci_low": 0.66, "ci_high": 0.74}


def concept() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "conf/base/concepts/valentina_moreau.yml").read_text("utf-8"))


def rights() -> tuple[RightsRecord, ...]:
    return ledgers.read(ROOT / "conf/base/rights/valentina_moreau")


def stage(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / "conf/base/bases.yml").read_text("utf-8"))["tiny"][name]


def figure(mean: float, half: float = 0.04) -> dict[str, float]:
    return {"mean": mean, "ci_low": mean - half, "ci_high": mean + half}


def metrics(**identity: Any) -> dict[str, Any]:
    """Figures that pass every gate."""
    return {
        "identity": {
            "lora": figure(0.7),
            "base": figure(0.25),
            "base_trigger": figure(0.0),
            "ceiling": figure(0.84),
            "floor": figure(0.02),
            "gain_over_base": 0.45,
            "ratio_to_ceiling": 0.833,
            **identity,
        },
        "face_detection_rate": {"lora": figure(0.95), "base": figure(0.93)},
        "clip_t": {"lora": figure(0.3), "base": figure(0.31), "relative_drop": 0.032},
        "clip_i": {"lora": figure(0.8), "base": figure(0.5)},
        "diversity": {"lora": figure(0.2), "base": figure(0.3)},
        "attributes": {
            "clothes_color": {"lora": figure(0.3), "base": figure(0.1), "real": figure(0.94)},
            "all": {"lora": figure(0.8), "base": figure(0.82), "real": figure(0.96)},
        },
        "attributes_drop": figure(0.02),
        "identification": {"num_strangers": 25},
        "identity_scale": {"lowest": 0.72, "gain": 0.3},
        "memorization": {"nearest_mean": 0.6, "rate": 0.02, "threshold": 0.9},
        "num_images": 48,
    }


def train_metrics() -> dict[str, Any]:
    return {
        "steps": 300,
        "train_loss_last": 0.1,
        "train_loss_mean_last_50": 0.12,
        "trainable_parameters": 1234,
        "adapter_bytes": 5000,
    }


def manifest() -> pd.DataFrame:
    rows = [(f"{n:064x}", "valentina-moreau-2024", "held_out" if n < 2 else "train") for n in range(6)]
    return pd.DataFrame(rows, columns=["sha256", "rights_id", "split"])


def base() -> dict[str, Any]:
    """The random SDXL, with the tiny world's face embedder."""
    chosen = {"kind": "tiny", "path": str(ROOT / "tiny/weights/faces.safetensors")}
    config = tiny_bases.config("sdxl", tiny_bases.sdxl_folder()).model_dump()
    return {**config, "face_embedder": chosen}


def faces() -> pd.DataFrame:
    """Align's rows of the same pictures, each face the same."""
    return manifest().assign(accepted=True, embedding=[np.full(128, 128**-0.5)] * 6)


def grid() -> Image.Image:
    return Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))


@lru_cache(maxsize=8)
def lora(seed: int = 1, kind: Kind = "lora") -> Path:
    """The files of a LoRA of the random SDXL, or of its kin, with random weights: it changes the image."""
    import torch

    from valentina_pipeline.image.lora.adapter import AdapterSpec, inject
    from valentina_pipeline.image.lora.formats import AdapterMetadata, export_adapter
    from valentina_pipeline.image.models.base_model import load_base
    from valentina_pipeline.image.models.weights import base_hash

    folder = tiny_bases.sdxl_folder()
    base = load_base(tiny_bases.config("sdxl", folder), ROOT)
    adapter = inject(base, AdapterSpec(kind, 2, 4, "attention"), text=True, seed=seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for weights in adapter.weights().values():
            weights.data.normal_(0, 0.2)
    notes = AdapterMetadata("valentina_moreau", base_hash(folder), "0" * 64, 64, "v_prediction")
    place = Path(mkdtemp(prefix="lora-", dir=folder.parent))
    for name, content in export_adapter(adapter, notes).items():
        (place / name).write_bytes(content)
    return place


def inputs(root: Path, seed: int = 1, **changes: Any) -> dict[str, Any]:
    """What the stage register takes besides `register`."""
    weights = root / "tiny/weights"
    weights.mkdir(parents=True, exist_ok=True)
    return {
        "lora": lora(seed),
        "metrics": metrics(),
        "train_metrics": train_metrics(),
        "faces": faces(),
        "training_images": manifest(),
        "project_root": root,
        "tiny_weights": weights,
        "comparison_grid": grid(),
        "scenes": yaml.safe_load((ROOT / "conf/base/prompts/scenes.yml").read_text("utf-8")),
        "tiny_judges": json.loads((ROOT / "tiny/judges.json").read_text("utf-8")),
        "rights": rights(),
        "concept": concept(),
        "base": base(),
        "train_lora": stage("train_lora"),
        "evaluate": {**stage("evaluate"), "num_inference_steps": 4},
        "publish": stage("publish"),
        **changes,
    }


def built(root: Path, decision: dict[str, Any] = DECISION, **changes: Any) -> dict[str, bytes | Path]:
    """The files of the package that register builds from `inputs`."""
    given = inputs(root, **changes)
    del given["tiny_weights"]
    return build(gather_contents(given.pop("project_root"), **given), decision)
