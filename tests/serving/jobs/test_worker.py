"""The process that draws, called in this one."""

import signal
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import pytest
import torch

from valentina_pipeline.serving.jobs.worker import WorkerConfig, WorkerFailed, _choose_num_threads, work


def test_as_many_threads_draw_as_were_asked_for(tmp_path: Path) -> None:
    ours, theirs = Pipe()
    before, interrupt = torch.get_num_threads(), signal.getsignal(signal.SIGINT)
    try:
        work(theirs, WorkerConfig(tmp_path / "none", tmp_path / "c2pa", engine="renderer", num_threads=3))
        assert torch.get_num_threads() == 3
        assert isinstance(ours.recv(), WorkerFailed)  # there is no package to draw from
    finally:
        torch.set_num_threads(before)
        signal.signal(signal.SIGINT, interrupt)


class Timed:
    """Stands in for an engine: text encoding takes `seconds` by the number of threads."""

    def __init__(self, **seconds: float) -> None:
        self._seconds = seconds

    def time_text_encoding(self) -> float:
        return self._seconds[f"with_{torch.get_num_threads()}"]


@pytest.mark.parametrize(
    ("num_cores", "seconds", "expected"),
    [
        (2, {"with_1": 1.0, "with_2": 0.6}, 2),  # a large network
        (2, {"with_1": 1.0, "with_2": 0.9}, 1),  # a small one: a core for the API
        (4, {"with_3": 1.0, "with_4": 0.8}, 4),
        (1, {}, 1),
        (16, {}, 15),
    ],
)
def test_the_last_core_is_used_where_it_makes_a_difference(
    num_cores: int, seconds: dict[str, float], expected: int
) -> None:
    before = torch.get_num_threads()
    try:
        engine: Any = Timed(**seconds)
        assert _choose_num_threads(engine, num_cores) == expected
    finally:
        torch.set_num_threads(before)
