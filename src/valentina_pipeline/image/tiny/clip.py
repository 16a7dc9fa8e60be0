"""The tiny CLIP, an open_clip model that measures CLIP-T and CLIP-I."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from valentina_pipeline.image.faces.tiny_facenet import to_network
from valentina_pipeline.image.renderer.wording import ALL_TRAITS, caption_from_traits
from valentina_pipeline.image.tiny.dataset import SIZE, RenderedDataset
from valentina_pipeline.image.tiny.trainer import DEVICE, Plan, train_network

CONFIG: dict[str, Any] = {
    "embed_dim": 96,
    "vision_cfg": {"image_size": SIZE, "layers": 4, "width": 128, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 48, "heads": 4, "layers": 3},
}
PREPROCESSING = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}


def build() -> nn.Module:
    """Return the untrained open_clip model of `CONFIG`."""
    return open_clip.model.CLIP(**CONFIG)


def train(dataset: RenderedDataset, plan: Plan, batch: int, seed: int, state: Path) -> nn.Module:
    """Train on image-caption pairs; each caption names a random subset of the attributes."""
    torch.manual_seed(seed)
    network = build()
    tokenizer = open_clip.SimpleTokenizer()

    def loss(step: int, rng: np.random.Generator, noise: torch.Generator) -> Tensor:
        rows = rng.choice(len(dataset.pixels), size=batch, replace=False)
        kept = [
            [t for t in ALL_TRAITS if rng.random() < share] for share in rng.uniform(0.4, 1.2, size=batch)
        ]
        captions = [
            caption_from_traits(dataset.attributes[i], "woman", k) for i, k in zip(rows, kept, strict=True)
        ]
        pixels = to_network(torch.from_numpy(dataset.pixels[rows])).to(DEVICE)
        images, texts, scale = network(pixels, tokenizer(captions).to(DEVICE))
        scores = scale * images @ texts.T
        truth = torch.arange(batch, device=DEVICE)
        return (functional.cross_entropy(scores, truth) + functional.cross_entropy(scores.T, truth)) / 2

    train_network(network, loss, plan, seed, state, "clip")
    return network


def save(network: nn.Module, folder: Path) -> None:
    """Write a float16 model folder for `open_clip.create_model_from_pretrained("local-dir:...")`."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {k: v.half().contiguous() for k, v in network.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    config = {"model_cfg": CONFIG, "preprocess_cfg": PREPROCESSING}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")


def retrieval(network: Any, dataset: RenderedDataset, among: int, seed: int) -> float:
    """Return the share of images whose full caption scores highest among `among` captions.

    The other captions belong to random other images of `dataset`.
    """
    rng = np.random.default_rng(seed)
    tokenizer = open_clip.SimpleTokenizer()
    captions = [caption_from_traits(a, "woman") for a in dataset.attributes]
    hits = []
    with torch.no_grad():
        pixels = to_network(torch.from_numpy(dataset.pixels))
        images = torch.cat([network.encode_image(part, normalize=True) for part in pixels.split(64)])
        texts = torch.cat(
            [
                network.encode_text(tokenizer(captions[i : i + 64]), normalize=True)
                for i in range(0, len(captions), 64)
            ]
        )
    for i in range(len(images)):
        rivals = [j for j in rng.permutation(len(images))[: among * 2] if captions[j] != captions[i]][
            : among - 1
        ]
        scores = texts[[i, *rivals]] @ images[i]
        hits.append(int(scores.argmax() == 0))
    return float(np.mean(hits))
