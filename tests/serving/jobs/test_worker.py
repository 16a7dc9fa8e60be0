"""The process that draws, called in this one."""

import signal
from multiprocessing import Pipe
from pathlib import Path

import torch

from valentina_pipeline.serving.jobs.worker import WorkerConfig, WorkerFailed, work


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
