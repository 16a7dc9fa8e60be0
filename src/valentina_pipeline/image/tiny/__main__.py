"""`python -m valentina_pipeline.image.tiny STAGE`: runs one stage of the recipe, see tiny/dvc.yaml.

Every stage resumes after an interruption: rendered people and training states are stored in tiny/state,
which neither git nor DVC tracks.
"""

import ctypes
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import click
import torch
import yaml
from diffusers import AutoencoderKL, ControlNetModel, StableDiffusionXLPipeline
from safetensors.torch import load_file, save

from valentina_pipeline.common.atomic_files import replace, replacing, replacing_folder
from valentina_pipeline.domain.artifacts import sha256
from valentina_pipeline.image.evaluate.attributes import AttributeJudges
from valentina_pipeline.image.evaluate.identity_judge import IdentityJudge
from valentina_pipeline.image.faces import dlib_network
from valentina_pipeline.image.faces.embedding import load_face_embedder
from valentina_pipeline.image.faces.tiny_facenet import FaceNetTiny
from valentina_pipeline.image.generate import canny
from valentina_pipeline.image.models.clip import load_clip
from valentina_pipeline.image.tiny import (
    clip,
    control,
    dataset,
    faces,
    judges,
    model_card,
    near_identity,
    unet,
    vae,
)
from valentina_pipeline.image.tiny.trainer import DEVICE, Plan
from valentina_pipeline.image.train import diffusion

TINY = Path("tiny")
WEIGHTS = TINY / "weights"
VAE = WEIGHTS / "base" / "vae"
UNET = WEIGHTS / "base" / "unet" / "diffusion_pytorch_model.safetensors"
CANNY = WEIGHTS / "controlnet_canny"
FACES = WEIGHTS / "faces.safetensors"
CONTROL = TINY / "control.json"
STATE = TINY / "state"

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt(3)."""


def _params() -> dict[str, Any]:
    return yaml.safe_load((TINY / "params.yaml").read_text("utf-8"))


def _splits() -> tuple[dataset.RenderedDataset, dataset.RenderedDataset]:
    render = _params()["render"]
    return dataset.split(_load_people(range(render["people"]), render["scenes"]), render["held_out"])


def _extra_people() -> dataset.RenderedDataset:
    """Return additional people with few images each, for the face embedder and the U-Net."""
    render = _params()["render"]
    first, more = render["people"], render["strangers"]
    return _load_people(range(first, first + more["people"]), more["scenes"])


def _load_people(people: range, scenes: int) -> dataset.RenderedDataset:
    seed = _params()["seed"]
    cache = STATE / f"world-{seed}-{people.start}-{people.stop}x{scenes}"
    return dataset.load(people, scenes, seed, cache)


def _plan(stage: str, *inputs: Path) -> tuple[Plan, int, int, Path]:
    """Return the plan, batch size, seed and state file of a stage.

    The state file depends on parameters, code and input files, so that a run never resumes from another's.
    """
    params = _params()
    chosen = params[stage]
    key = hashlib.sha256(json.dumps([params["seed"], params["threads"], params["render"], chosen]).encode())
    for file in (Path(__file__).with_name(f"{stage}.py"), *inputs):
        key.update(file.read_bytes())
    state = STATE / f"{stage}-{key.hexdigest()[:12]}.pt"
    plan = Plan(chosen["steps"], chosen["rate"], chosen["optimizer"])
    return plan, chosen["batch"], params["seed"], state


@click.group(help=__doc__)
def main() -> None:
    """Fix the number of threads, which rounding depends on, and keep freed memory for the next step."""
    torch.set_num_threads(_params()["threads"])
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):  # glibc only
        mallopt(M_MMAP_THRESHOLD, 32 << 20)  # the maximum
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


@main.command()
def render() -> None:
    """Render the people and write their numbers and hashes."""
    train, held_out = _splits()
    parts = {"train": train, "held_out": held_out, "strangers": _extra_people()}
    facts = {name: {"pictures": len(part.pixels), "sha256": part.digest()} for name, part in parts.items()}
    _write_json(TINY / "world.json", facts)


@main.command("vae")
def train_vae() -> None:
    """Train the VAE."""
    network = vae.train(_splits()[0], *_plan("vae"), Plan(**_params()["vae"]["whole"]))
    with replacing_folder(VAE) as folder:
        network.half().save_pretrained(folder)


@main.command("clip")
def train_clip() -> None:
    """Train the CLIP."""
    network = clip.train(_splits()[0], *_plan("clip"))
    with replacing_folder(WEIGHTS / "clip") as folder:
        clip.save(network, folder)


@main.command("faces")
def train_faces() -> None:
    """Train the face embedder."""
    coder = AutoencoderKL.from_pretrained(VAE).to(DEVICE)
    people = _splits()[0] + _extra_people()
    network = faces.train(people, coder, *_plan("faces", VAE / "diffusion_pytorch_model.safetensors"))
    halves = {k: v.half().contiguous() for k, v in network.state_dict().items()}
    replace(FACES, save(halves))


@main.command("unet")
def train_unet() -> None:
    """Train the U-Net and the text encoders, and assemble the base model."""
    coder = AutoencoderKL.from_pretrained(VAE).to(DEVICE)
    tokenizer = unet.tokenizer(STATE / "tokenizer")
    plan = _plan("unet", VAE / "diffusion_pytorch_model.safetensors", Path(diffusion.__file__))
    words = Plan(**_params()["unet"]["words"])
    network = unet.train(_splits()[0] + _extra_people(), coder, tokenizer, *plan, words)
    base = unet.assemble(network, coder.cpu(), tokenizer).to(dtype=torch.float16)
    with replacing_folder(WEIGHTS / "base") as folder:
        base.save_pretrained(folder)
        for name in ("tokenizer", "tokenizer_2"):  # vocabulary and merges: a third of tokenizer.json's size
            (folder / name / "tokenizer.json").unlink()
            for file in ("vocab.json", "merges.txt"):
                shutil.copy(STATE / "tokenizer" / file, folder / name / file)


@main.command("control")
def train_control() -> None:
    """Train the edge ControlNet and measure how well it follows edges."""
    pipe = StableDiffusionXLPipeline.from_pretrained(WEIGHTS / "base", dtype=torch.float32).to(DEVICE)
    plan = _plan("control", UNET, Path(diffusion.__file__), Path(canny.__file__))
    train, held_out = _splits()
    network = control.train(train, pipe, *plan)
    with replacing_folder(CANNY) as folder:
        network.half().save_pretrained(folder)
    params = _params()
    network = ControlNetModel.from_pretrained(CANNY).to(DEVICE)
    metrics = control.measure(network, pipe, held_out, params["control"]["pictures"], params["seed"])
    _write_json(CONTROL, metrics)


@main.command("judges")
def calibrate_judges() -> None:
    """Calibrate the evaluation's judges, on people whom no network was trained on."""
    chosen = _params()["judges"]
    people = _load_people(range(chosen["first"], chosen["first"] + chosen["people"]), chosen["scenes"])
    values = judges.calibrate(people, chosen["strangers"], load_face_embedder("tiny", FACES))
    text = json.dumps({"face_embedder": sha256(FACES), **values})
    replace(TINY / "judges.json", f"{text}\n".encode())


@main.command("card")
def write_card() -> None:
    """Measure the metrics on held-out people and write the model card."""
    pipe = StableDiffusionXLPipeline.from_pretrained(WEIGHTS / "base", dtype=torch.float32).to(DEVICE)
    network = FaceNetTiny()
    network.load_state_dict(load_file(FACES))
    network.eval()
    matcher = clip.build()
    matcher.load_state_dict(load_file(WEIGHTS / "clip" / "open_clip_model.safetensors"))
    matcher.eval()
    params = _params()
    panel = json.loads((TINY / "judges.json").read_text("utf-8"))
    metrics, sheet = model_card.measure(
        pipe,
        network,
        matcher,
        AttributeJudges.from_json(panel["attributes"]),
        _splits()[1],
        params["card"]["images"],
        params["seed"],
    )
    metrics["near_identity"] = _measure_near_identity(params, panel)
    with replacing(TINY / "samples.png") as partial:
        sheet.save(partial, "PNG")
    _write_json(TINY / "metrics.json", metrics)
    edge_scores = json.loads(CONTROL.read_text("utf-8"))
    replace(TINY / "README.md", model_card.text(metrics, edge_scores, params).encode())


def _measure_near_identity(params: dict[str, Any], panel: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return near_identity.measure's shares for the judges of the card."""
    chosen = params["judges"]
    first = chosen["first"] + chosen["people"]
    whitened = IdentityJudge.from_json(dlib_network.embed_main_face, panel["dlib"])
    judges = {
        "face embedder": near_identity.embed_with(load_face_embedder("tiny", FACES)),
        "dlib, whitened": whitened.vectors,
        "CLIP-I": load_clip("tiny", str(WEIGHTS / "clip")).images,
    }
    people = range(first, first + params["card"]["near_identity"])
    return near_identity.measure(judges, people, params["seed"])


def _write_json(file: Path, values: Any) -> None:
    replace(file, f"{json.dumps(values, indent=2)}\n".encode())


if __name__ == "__main__":
    main()
