"""What does the watermark survive, what does it cost, and does anything else have it?

    uv run python benchmarks/watermark.py                 # the project's package, 32 drawings
    uv run python benchmarks/watermark.py PACKAGE --unmarked 500

Drawings of the tiny base (128 px, preset draft) and rendered portraits of 512 and 1024 px are marked and
treated as files are: the share in which the mark is still found, and the least score. Then how much a
picture changes (PSNR, SSIM), in what its identity and the content filter see of that, what marking and
looking cost, and how often the mark is found in pictures that never had it.
"""

import argparse
import io
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from valentina_pipeline.image.provenance.watermark import add_watermark, detect
from valentina_pipeline.image.renderer.render import render
from valentina_pipeline.image.renderer.traits import random_identity, random_scene

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "data/06_models/valentina_moreau/package"
PROMPTS = ("smiling, beach background", "at night, city", "wearing a red dress", "surprised, close-up")

Treatment = Callable[[Image.Image], Image.Image]


def saved(kind: str, quality: int) -> Treatment:
    def treated(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, kind, quality=quality)
        return Image.open(buffer).convert("RGB")

    return treated


def resized(by: float) -> Treatment:
    return lambda image: image.resize(
        (round(image.width * by), round(image.height * by)), Image.Resampling.BICUBIC
    )


def cropped(side: float) -> Treatment:
    def treated(image: Image.Image) -> Image.Image:
        width, height = round(image.width * side), round(image.height * side)
        left, top = round((image.width - width) * 0.3), round((image.height - height) * 0.6)
        return image.crop((left, top, left + width, top + height))

    return treated


def then(*treatments: Treatment) -> Treatment:
    def treated(image: Image.Image) -> Image.Image:
        for treatment in treatments:
            image = treatment(image)
        return image

    return treated


TREATMENTS: dict[str, Treatment] = {
    "as it is": lambda image: image,
    **{f"JPEG {quality}": saved("JPEG", quality) for quality in (95, 90, 80, 70, 60)},
    "WebP 80": saved("WEBP", 80),
    **{f"resized to {by:.0%}": resized(by) for by in (0.5, 0.75, 1.5, 2)},
    **{f"cropped to {side:.0%} of each side": cropped(side) for side in (0.9, 0.75, 0.5)},
    "screenshot at 125 %, JPEG 85": then(resized(1.25), saved("JPEG", 85)),
    "screenshot at 80 %, JPEG 85": then(resized(0.8), saved("JPEG", 85)),
    "resized to 50 %, JPEG 85": then(resized(0.5), saved("JPEG", 85)),
    "cropped to 75 %, JPEG 80": then(cropped(0.75), saved("JPEG", 80)),
    "brightness + 20 %": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "contrast - 20 %": lambda image: ImageEnhance.Contrast(image).enhance(0.8),
    "grey": lambda image: image.convert("L"),
    "mirrored": ImageOps.mirror,
    "turned by 2 degrees": lambda image: image.rotate(2, Image.Resampling.BICUBIC),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("package", nargs="?", type=Path, default=PACKAGE)
    parser.add_argument("--drawings", type=int, default=32)
    parser.add_argument("--unmarked", type=int, default=1000, help="portraits of 128 px, in four forms each")
    asked = parser.parse_args()
    drawings = drawn(asked.package, asked.drawings)
    sets = {"drawn, 128 px": drawings, "512 px": portraits(24, 512), "1024 px": portraits(12, 1024)}
    marked = {name: [add_watermark(image) for image in images] for name, images in sets.items()}
    print(f"{'':34}" + "".join(f"{name:>20}" for name in sets))
    for name, treatment in TREATMENTS.items():
        cells = [survival([treatment(image) for image in images]) for images in marked.values()]
        print(f"{name:34}" + "".join(f"{cell:>20}" for cell in cells), flush=True)
    for name, images in sets.items():
        print(f"{name}: {changed(images, marked[name])}; {cost(images)}", flush=True)
    print(seen(drawings, marked["drawn, 128 px"]))
    print(unmarked([*drawings, *sets["512 px"], *sets["1024 px"]], portraits(asked.unmarked, 128)))


def drawn(package: Path, count: int) -> list[Image.Image]:
    """Return drawings without the mark, as the studio draws them."""
    from valentina_pipeline.image.generate.generate import ImageSpec, generate_images
    from valentina_pipeline.image.lora.loading import load_pipeline
    from valentina_pipeline.image.models.base_model import load_base
    from valentina_pipeline.serving.inference.package import read

    about = read(package)
    preset = about.presets["draft"]
    base = load_base(about.base.model_copy(update={"path": "base"}), about.folder)
    prompts = [about.subject(PROMPTS[seed % len(PROMPTS)]) for seed in range(count)]
    begun = time.perf_counter()
    images = generate_images(
        load_pipeline(base, about.folder / "lora"),
        [ImageSpec(prompt, seed) for seed, prompt in enumerate(prompts)],
        preset.steps,
        preset.guidance_scale,
        preset.size,
    )
    print(f"drawing: {(time.perf_counter() - begun) / count * 1e3:.0f} ms an image")
    return images


def portraits(count: int, size: int) -> list[Image.Image]:
    made = []
    for number in range(count):
        rng = np.random.default_rng([size, number])
        who, scene = random_identity(rng), random_scene(rng)
        made.append(Image.fromarray(render(who, scene, number, size)))
    return made


def survival(images: Sequence[Image.Image]) -> str:
    traces = [detect(image) for image in images]
    return f"{np.mean([trace.found for trace in traces]):.0%} ({min(t.score for t in traces):.1f})"


def changed(before: Sequence[Image.Image], after: Sequence[Image.Image]) -> str:
    pairs = [
        tuple(np.asarray(image, np.float64) for image in pair) for pair in zip(before, after, strict=True)
    ]
    psnr = [10 * np.log10(255**2 / np.mean((one - other) ** 2)) for one, other in pairs]
    ssim = [similarity(one.mean(-1), other.mean(-1)) for one, other in pairs]
    return f"PSNR {np.mean(psnr):.1f} dB (least {min(psnr):.1f}), SSIM {np.mean(ssim):.4f} ({min(ssim):.4f})"


def similarity(one: np.ndarray, other: np.ndarray) -> float:
    """Return SSIM (Wang et al. 2004) with its window of 11 pixels."""

    def around(values: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(values, (11, 11), 1.5)

    mean, mean_other = around(one), around(other)
    spread, spread_other = around(one**2) - mean**2, around(other**2) - mean_other**2
    common = around(one * other) - mean * mean_other
    a, b = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    likeness = (2 * mean * mean_other + a) * (2 * common + b)
    return float(np.mean(likeness / ((mean**2 + mean_other**2 + a) * (spread + spread_other + b))))


def cost(images: Sequence[Image.Image]) -> str:
    begun = time.perf_counter()
    marked = [add_watermark(image) for image in images]
    between = time.perf_counter()
    for image in marked:
        detect(image)
    found = time.perf_counter()
    for image in images[:8]:
        detect(image)
    missed = (time.perf_counter() - found) / len(images[:8])
    each = [(later - earlier) / len(images) * 1e3 for earlier, later in ((begun, between), (between, found))]
    return (
        f"marking {each[0]:.0f} ms, looking {each[1]:.0f} ms where it is and {missed * 1e3:.0f} ms where not"
    )


def seen(before: Sequence[Image.Image], after: Sequence[Image.Image]) -> str:
    """Say what the face embedder and the content filter see of the mark."""
    from valentina_pipeline.image.faces.canonical_crop import face_crop
    from valentina_pipeline.image.faces.detection import detect_faces
    from valentina_pipeline.image.faces.embedding import load_face_embedder
    from valentina_pipeline.image.safety.content_filter import ContentFilter

    network = load_face_embedder("tiny", str(ROOT / "tiny/weights/faces.safetensors"))
    faces = detect_faces(before)  # the same crop of both
    rows = [row for row, found in enumerate(faces) if found]
    one, other = (
        network.embed([face_crop(images[row], faces[row][0], network.size) for row in rows])
        for images in (before, after)
    )
    apart = (one @ one.T)[~np.eye(len(rows), dtype=bool)].mean()
    centre = one.mean(0) / np.linalg.norm(one.mean(0))
    filter_ = ContentFilter()
    refused = [sum(bool(filter_.unsafe(image)) for image in images) for images in (before, after)]
    return (
        f"identity of {len(rows)} faces: cosine {(one * other).sum(-1).mean():.3f} with and without the mark "
        f"({apart:.3f} between drawings), to their mean {(one @ centre).mean():.3f} before, "
        f"{(other @ centre).mean():.3f} after; the filter refuses {refused[0]} before, {refused[1]} after"
    )


def unmarked(images: Sequence[Image.Image], small: Sequence[Image.Image]) -> str:
    forms = ("as it is", "JPEG 70", "cropped to 75% of each side", "resized to 150%")
    traces = [detect(TREATMENTS[form](image)) for form in forms for image in (*images, *small)]
    chance = np.array([trace.chance for trace in traces])
    said = ", ".join(f"{np.mean(chance < at):.2%} below {at:g}" for at in (0.1, 0.01, 0.001))
    return (
        f"never marked: found in {sum(t.found for t in traces)} of {len(traces)}, "
        f"highest score {max(t.score for t in traces):.1f}; chance said to be {said}"
    )


if __name__ == "__main__":
    main()
