from dataclasses import replace

import torch
from hypothesis import given
from hypothesis import strategies as st

import tiny_bases
from runs import samples
from valentina_pipeline.image.train.encoding import PromptEmbedCache, encode_samples
from valentina_pipeline.image.train.samples import augment_caption, flip_sample

TAGS = st.lists(st.sampled_from(["v woman", "red dress", "beach", "smiling", "hat"]), min_size=1, max_size=5)
CHANCES = st.floats(0, 1, exclude_max=True)


@given(TAGS, CHANCES, st.integers(0, 5))
def test_shuffled_tags_are_the_same_tags_and_those_in_front_stay(
    tags: list[str], chance: float, keep: int
) -> None:
    varied = augment_caption(", ".join(tags), chance, keep, 0.0)
    assert sorted(varied.split(", ")) == sorted(tags)
    assert varied.split(", ")[:keep] == tags[:keep]
    assert augment_caption(", ".join(tags), chance, keep, 0.0) == varied


@given(TAGS, CHANCES, st.integers(-1, 5), st.floats(0, 1))
def test_dropped_tags_are_never_those_in_front(
    tags: list[str], chance: float, keep: int, dropout: float
) -> None:
    front = 1 if keep < 0 else keep
    left = augment_caption(", ".join(tags), chance, keep, dropout)
    kept = left.split(", ") if left else []
    assert kept[:front] == tags[:front]
    assert not set(kept) - set(tags)
    if dropout == 1:
        assert kept == tags[:front]
    if keep < 0:
        rest = iter(tags)
        assert all(tag in rest for tag in kept)  # in the caption's order


def test_a_picture_without_a_face_counts_the_same_everywhere() -> None:
    base = tiny_bases.loaded("sdxl")
    sample = replace(samples(1)[0], face=None)
    assert flip_sample(sample).face is None
    assert encode_samples(base, [sample], 5.0, 0.0).places[0].unique().tolist() == [1.0]


def test_captions_without_end_are_embedded_anew_when_they_were_forgotten() -> None:
    base = tiny_bases.loaded("sdxl")
    texts = PromptEmbedCache(base)
    texts.MAX_CAPTIONS = 2  # type: ignore[misc]
    first = texts(["a", "b"])[0]
    again = texts(["c", "b", "a"])[0]
    assert len(texts.known) == 2
    torch.testing.assert_close(again[[2, 1]], first, rtol=0, atol=0)
