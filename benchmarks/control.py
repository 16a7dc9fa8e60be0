"""Do drawings of her keep to edges, and does she stay herself? By the control's scale, on the tiny world.

    uv run python benchmarks/control.py [PACKAGE] [--pictures 16]

Edges of rendered people whom the ControlNet was not trained on, each drawn once by the package's LoRA with
what varies of that person's caption. Prints a Markdown table: F1 of edges (image/generate/canny.py), mean
identity (cosine to her held-out portraits) where a face is found, how often one is; and ratios to scale 0.
"""

import argparse
import base64
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from valentina_pipeline.image.faces.similarity import face_scores
from valentina_pipeline.image.generate.canny import edge_f1, edges
from valentina_pipeline.image.io import png
from valentina_pipeline.image.io.contact_sheet import contact_sheet
from valentina_pipeline.image.models.scorers import load_scorers
from valentina_pipeline.image.renderer.wording import VARIABLE_TRAITS, caption_from_traits
from valentina_pipeline.image.tiny import dataset
from valentina_pipeline.serving.inference.control_models import Network
from valentina_pipeline.serving.inference.engine import InferenceEngine
from valentina_pipeline.serving.inference.package import read
from valentina_pipeline.serving.inference.request import parse_request

ROOT = Path(__file__).resolve().parents[1]
FACES = "data/03_primary/valentina_moreau/faces.parquet"
SCALES = (0.0, 0.5, 1.0)
HELD_OUT = 440
"""Number of the first person of the tiny world whom nothing was trained on."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    package = ROOT / "data/06_models/valentina_moreau/package"
    parser.add_argument("package", nargs="?", type=Path, default=package)
    parser.add_argument("--faces", type=Path, default=ROOT / FACES, help="align's table")
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument("--contact-sheet", type=Path, dest="output", help="where to write it")
    print(table(**vars(parser.parse_args())))


def table(package: Path, faces: Path, pictures: int, output: Path | None) -> str:
    about = read(package)
    network = Network(folder=ROOT / "tiny/weights/controlnet_canny", license="Apache-2.0")
    studio = InferenceEngine(about, root=ROOT, controls={"canny": network})
    judges = load_scorers(about.base, ROOT)
    rows = pd.read_parquet(faces)
    known = np.stack(list(rows[rows["accepted"] & (rows["split"] == "held_out")]["embedding"]))
    with tempfile.TemporaryDirectory() as cache:
        people = dataset.load(range(HELD_OUT, HELD_OUT + pictures), 1, 7, Path(cache))
    shown = [Image.fromarray(pixels) for pixels in people.pixels]
    lines, page = [], [*shown, *map(edges, shown)]
    for scale in SCALES:
        drawn = []
        for number, (picture, traits) in enumerate(zip(shown, people.attributes, strict=True)):
            words = caption_from_traits(traits, about.class_word, VARIABLE_TRAITS)
            control = {
                "kind": "canny",
                "image": base64.b64encode(png.encode(picture)).decode(),
                "scale": scale,
            }
            (one,) = studio.generate(parse_request({"prompt": words, "seed": number, "controls": [control]}))
            if one.image is None:
                raise SystemExit(f"seed {number}: {one.blocked_reason}")
            drawn.append(one.image)
        page += drawn
        kept = np.mean([edge_f1(image, edges(it)) for image, it in zip(drawn, shown, strict=True)])
        her = np.array([face_scores(image, known, judges)["identity"] for image in drawn])
        lines.append((scale, float(kept), float(np.nanmean(her)), float(np.mean(~np.isnan(her)))))
    if output:
        contact_sheet(page, [""] * len(page), columns=pictures, cell=128).save(output)
    first = lines[0]
    body = [
        f"| {scale:g} | {f1:.3f} | {f1 / first[1]:.2f} | {her:.3f} | {her / first[2]:.2f} | {found:.2f} |"
        for scale, f1, her, found in lines
    ]
    head = ["| scale | edges' F1 | ratio | identity | ratio | faces found |", "|---|---|---|---|---|---|"]
    return "\n".join([*head, *body])


if __name__ == "__main__":
    main()
