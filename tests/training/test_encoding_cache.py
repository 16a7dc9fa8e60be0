from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

import tiny_bases
from runs import samples
from valentina_pipeline.image.train.encoding import PromptEmbedCache, encode_samples
from valentina_pipeline.training.encoding_cache import Cache


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def test_what_was_made_once_is_read_and_a_torn_file_is_made_again(tmp_path: Path) -> None:
    made: list[int] = []

    def compute() -> dict[str, Tensor]:
        made.append(1)
        return {"t": torch.arange(3.0)}

    cache = Cache(tmp_path, {"base": "b"})
    assert cache.get("x", compute)["t"].tolist() == cache.get("x", compute)["t"].tolist() == [0, 1, 2]
    assert len(made) == 1
    (file,) = files(tmp_path)
    file.write_bytes(file.read_bytes()[:-4])
    assert cache.get("x", compute)["t"].tolist() == [0, 1, 2]
    assert len(made) == 2
    assert not list(tmp_path.rglob("*.partial"))


def test_another_input_or_base_never_meets_a_stale_entry(tmp_path: Path) -> None:
    one, other = (Cache(tmp_path, {"base": name}) for name in ("b", "c"))
    for value, (cache, of) in enumerate([(one, "x"), (one, "y"), (other, "x")]):
        assert cache.get(of, lambda value=value: {"t": torch.tensor([value])})["t"].item() == value


def test_an_edited_picture_or_caption_is_encoded_anew_and_an_unchanged_one_is_not(tmp_path: Path) -> None:
    base = tiny_bases.loaded("sdxl")
    cache = Cache(tmp_path, {})
    plain = samples(2)
    fresh = encode_samples(base, plain)
    first = encode_samples(base, plain, cache=cache)
    again = encode_samples(base, plain, cache=cache)
    for one, two, three in zip(fresh.latents, first.latents, again.latents, strict=True):
        assert torch.equal(one, two)
        assert torch.equal(two, three)
    assert len(files(tmp_path)) == 2
    brighter = plain[0].image.copy()
    brighter.putpixel((0, 0), (1, 2, 3))
    encode_samples(base, [replace(plain[0], image=brighter), plain[1]], cache=cache)
    assert len(files(tmp_path)) == 3
    texts = PromptEmbedCache(base, cache)
    texts(["one", "two", "one"])
    assert len(files(tmp_path)) == 5
    context, pooled = PromptEmbedCache(base, cache)(["two"])
    own = PromptEmbedCache(base)(["two"])
    assert torch.equal(context, own[0])
    assert pooled is not None and own[1] is not None and torch.equal(pooled, own[1])
    assert len(files(tmp_path)) == 5
