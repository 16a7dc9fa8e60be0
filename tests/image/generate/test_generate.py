from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

import tiny_bases
from valentina_pipeline.image.generate.generate import ImageSpec, generate_images
from valentina_pipeline.image.io import png
from valentina_pipeline.image.provenance.metadata import SOURCE_TYPE, add_provenance

REQUESTS = [
    ImageSpec("a woman", 1),
    ImageSpec("a man", 2, "blurry"),
    ImageSpec("the sky", 3),
    ImageSpec("a woman", 4),
]


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("family", ["sdxl", "sd15"])
def test_an_image_does_not_depend_on_what_is_drawn_beside_it(family: str) -> None:
    pipe = tiny_bases.loaded(family).pipe
    together = generate_images(pipe, REQUESTS, steps=2, guidance=4.0, size=tiny_bases.SIZE, batch=3)
    for request, image in zip(REQUESTS, together, strict=True):
        alone = generate_images(pipe, [request], steps=2, guidance=4.0, size=tiny_bases.SIZE)[0]
        assert image.size == (tiny_bases.SIZE,) * 2
        assert np.abs(pixels(image) - pixels(alone)).max() <= 1
        assert image.info["text"]["prompt"] == request.prompt
    assert np.abs(pixels(together[0]) - pixels(together[3])).max() > 5  # another seed


def test_the_picture_is_the_pipelines_own() -> None:
    import torch

    pipe = tiny_bases.loaded("sdxl").pipe
    ours = generate_images(pipe, [ImageSpec("a woman", 7)], steps=2, guidance=4.0, size=tiny_bases.SIZE)[0]
    own = pipe(
        "a woman",
        generator=torch.Generator().manual_seed(7),
        num_inference_steps=2,
        guidance_scale=4.0,
        height=tiny_bases.SIZE,
        width=tiny_bases.SIZE,
    ).images[0]
    assert np.abs(pixels(ours) - pixels(own)).max() <= 1


def test_every_drawn_image_carries_its_marks_into_the_file() -> None:
    pipe = tiny_bases.loaded("sd15").pipe
    request = ImageSpec("a wöman", 5, "blurry")
    image = generate_images(
        pipe, [request], 1, 1.5, tiny_bases.SIZE, provenance={"base": "b" * 64, "lora": None}
    )[0]
    texts = png.decode(png.encode(image)).info["text"]
    assert texts["synthetic"] == "true"
    assert SOURCE_TYPE in texts["XML:com.adobe.xmp"]
    assert (texts["prompt"], texts["seed"], texts["negative_prompt"]) == ("a wöman", "5", "blurry")
    assert (texts["base"], texts["lora"]) == ("b" * 64, "null")


def test_marking_leaves_the_given_image_alone_and_readers_of_xmp_find_the_source() -> None:
    plain = Image.new("RGB", (8, 8))
    marked = add_provenance(plain, {"seed": 1})
    assert plain.info == {}
    assert np.array_equal(pixels(plain), pixels(marked))
    packet = ElementTree.fromstring(png.decode(png.encode(marked)).info["text"]["XML:com.adobe.xmp"])
    description = packet.find(".//{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description")
    assert description is not None
    namespace = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
    assert description.get(f"{{{namespace}}}DigitalSourceType") == SOURCE_TYPE


def test_marks_cannot_be_overruled_by_provenance() -> None:
    assert (
        add_provenance(Image.new("RGB", (8, 8)), {"synthetic": "false"}).info["text"]["synthetic"] == "true"
    )


def test_nothing_to_draw_gives_nothing() -> None:
    assert generate_images(None, [], 1, 1.0, 64) == []
