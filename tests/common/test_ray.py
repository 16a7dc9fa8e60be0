"""Pictures judged on a Ray cluster of two workers: what comes back is what processes of this machine make."""

import signal
from collections.abc import Iterator
from contextlib import closing
from datetime import date
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from packages import stage
from portraits import RIGHTS, noise, picture
from valentina_pipeline.common.parallel import WorkerFailure, parallel_map
from valentina_pipeline.config.ingest import IngestConfig
from valentina_pipeline.image.ingest.ingest import ingest
from valentina_pipeline.image.ingest.result_cache import ResultCache
from valentina_pipeline.image.ingest.screening import ScreeningContext
from valentina_pipeline.image.ingest.source_image import SourceImage
from valentina_pipeline.image.io import png
from valentina_pipeline.image.safety.content_filter import ContentFilter

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        # under `uv run` it would install the project anew for its workers
        patch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        import ray
        from ray.cluster_utils import Cluster

        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        nodes.add_node(num_cpus=1)
        patch.setenv("RAY_ADDRESS", nodes.address)
        yield
        assert ray.is_initialized()  # nobody worked without it
        assert int(ray.cluster_resources()["CPU"]) == 2
        ray.shutdown()
        nodes.shutdown()


def test_a_worker_that_dies_loses_its_item_and_nothing_else() -> None:
    results = list(parallel_map(signal.raise_signal, [0, signal.SIGKILL, 0]))
    assert results == [None, WorkerFailure("its process crashed"), None]


def test_an_exception_of_the_work_is_raised_here() -> None:
    results = parallel_map(int, ["1", "one"])
    assert next(results) == 1
    with pytest.raises(ValueError, match="invalid literal"):
        next(results)


def test_ingest_gives_the_same_bytes_as_processes_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [
        png.encode(picture(0)),
        *(png.encode(noise(seed, 300, 280)) for seed in range(4)),
        b"no picture",
    ]
    originals = [
        SourceImage(f"{index}.png", partial(bytes, content), {}) for index, content in enumerate(pictures)
    ]
    limits = IngestConfig.model_validate({**stage("ingest"), "min_side": 200, "min_sharpness": 0})
    intake = ScreeningContext(limits, RIGHTS, date(2024, 6, 7), ContentFilter().unsafe)

    def taken(place: Path) -> tuple[dict[str, bytes], pd.DataFrame, pd.DataFrame]:
        with closing(ResultCache(place)) as journal:
            files, manifest, rejections = ingest(originals, intake, journal)
            return {name: file.read_bytes() for name, file in files.items()}, manifest, rejections

    by_ray = taken(tmp_path / "ray")
    monkeypatch.delenv("RAY_ADDRESS")
    by_processes = taken(tmp_path / "processes")
    assert by_ray[0] == by_processes[0] and len(by_ray[0]) >= 4
    pd.testing.assert_frame_equal(by_ray[1], by_processes[1])
    pd.testing.assert_frame_equal(by_ray[2], by_processes[2])
