"""How many pictures a second are taken in, against the same work by `datasets`, and what a second run costs?

    uv run python benchmarks/ingest.py                              # 400 small pictures, 24 large ones
    uv run python benchmarks/ingest.py --small 100000 --full 5000 --alone   # an archive: hours

`datasets` maps the function that judges one picture (decode, measure, look for nudity, encode as PNG, hash)
over as many processes and writes the PNGs. Prints pictures a second of both, the ratio, the second run as a
share of the first, and the peak memory of ours, all its processes together.
"""

import argparse
import io
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import date
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import psutil
import yaml
from PIL import Image

from valentina_pipeline.common.parallel import worker_count
from valentina_pipeline.config.ingest import IngestConfig
from valentina_pipeline.domain.rights import RightsRecord
from valentina_pipeline.image.ingest.ingest import ingest
from valentina_pipeline.image.ingest.result_cache import ResultCache
from valentina_pipeline.image.ingest.screening import AcceptedImage, ScreeningContext, screen_image
from valentina_pipeline.image.ingest.source_image import SourceImage
from valentina_pipeline.image.safety.content_filter import ContentFilter
from valentina_pipeline.integrations.sources.folder import LocalFolder

ROOT = Path(__file__).resolve().parents[1]
SMALL, FULL = (128, 128), (4000, 3000)
MASTERS = 20
"""Different large pictures: to encode one takes longer than to judge a small one."""

RIGHTS = RightsRecord(
    id="bench", holder="bench", covers="*", uses=("training",), license="CC0-1.0", synthetic=True,
    evidence="made here",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", type=int, default=400, help="pictures of 128 x 128")
    parser.add_argument("--full", type=int, default=24, help="pictures of 4000 x 3000")
    parser.add_argument("--alone", action="store_true", help="without `datasets`: for large counts")
    asked = parser.parse_args()
    for size, count in ((SMALL, asked.small), (FULL, asked.full)):
        if count:
            measure(size, count, asked.alone)


def measure(size: tuple[int, int], count: int, alone: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="ingest-") as temporary:
        folder = Path(temporary)
        write(folder / "in", size, count)
        ours, peak = timed(partial(by_us, folder))
        again, _ = timed(partial(by_us, folder))
        theirs = None if alone else timed(partial(by_datasets, folder))[0]
    pixels = f"{size[0]} x {size[1]}"
    print(f"{count:,} pictures of {pixels}, {worker_count()} processes")
    print(f"  ours      {count / ours:8.1f} a second   peak memory {peak / 2**30:.2f} GiB")
    if theirs:
        print(f"  datasets  {count / theirs:8.1f} a second   ours is {theirs / ours:.2f} times as fast")
    print(f"  again     {again:8.2f} s          {again / ours:.1%} of the first run")


def write(folder: Path, size: tuple[int, int], count: int) -> None:
    """Write JPEG files of coarse noise, no two alike; large ones are a few that lack ever more lines."""
    folder.mkdir()
    different = MASTERS if size == FULL else count
    for number in range(count):
        content = bytearray(encoded(number % different, size))
        height = content.index(b"\xff\xc0") + 5  # in the header of the frame: decoders read no further
        content[height : height + 2] = (size[1] - number // different).to_bytes(2, "big")
        (folder / f"{number:06d}.jpg").write_bytes(content)


@lru_cache(maxsize=MASTERS)
def encoded(seed: int, size: tuple[int, int]) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (24, 24, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def by_us(folder: Path) -> None:
    place = LocalFolder(folder / "in")
    limits = intake().limits
    originals = [
        SourceImage(entry.name, partial(place.read, entry, limits.max_bytes), {}, entry.version)
        for entry in place.entries()
    ]
    with closing(ResultCache(folder / "journal")) as journal:
        ingest(originals, intake(), journal)


def by_datasets(folder: Path) -> None:
    from datasets import Dataset, disable_caching, disable_progress_bars

    disable_caching()
    disable_progress_bars()
    (folder / "out").mkdir()
    names = [str(file) for file in sorted((folder / "in").iterdir())]
    Dataset.from_dict({"file": names}).map(
        partial(taken, folder / "out"), num_proc=worker_count(), remove_columns=["file"]
    )


def taken(out: Path, row: dict[str, str]) -> dict[str, str]:
    """Judge one picture as ingest does, and write its PNG."""
    made = screen_image(intake(), SourceImage(row["file"], Path(row["file"]).read_bytes, {}))
    if not isinstance(made, AcceptedImage):
        return {"facts": "", "reason": made.reason}
    (out / f"{made.facts['sha256']}.png").write_bytes(made.content)
    return {"facts": json.dumps(made.facts), "reason": ""}


def intake() -> ScreeningContext:
    implied = yaml.safe_load((ROOT / "conf/base/bases.yml").read_text("utf-8"))["tiny"]["ingest"]
    open_gates = {"min_side": 64, "min_sharpness": 0, "max_noise": 1000, "min_jpeg_quality": 0}
    open_gates |= {"brightness_range": [0, 1], "max_clipped_fraction": 1, "max_overlay_letters": 1_000_000}
    limits = IngestConfig.model_validate({**implied, **open_gates, "max_phash_distance": 0})
    return ScreeningContext(limits, (RIGHTS,), date.today(), ContentFilter().unsafe)


def timed(work: Callable[[], None]) -> tuple[float, int]:
    """Return the seconds of `work`, and the peak memory of this process and its children."""
    began = time.perf_counter()
    with watched() as peak:
        work()
    return time.perf_counter() - began, max(peak)


@contextmanager
def watched() -> Iterator[list[int]]:
    peak, done = [0], threading.Event()

    def watch() -> None:
        me = psutil.Process()
        while not done.wait(1.0):
            total = 0
            for process in (me, *me.children(recursive=True)):
                try:
                    total += process.memory_full_info().pss  # what processes share counts once
                except psutil.Error:
                    continue
            peak.append(total)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    yield peak
    done.set()
    thread.join()


if __name__ == "__main__":
    main()
