"""The tracking process: it ends with its stage, and an end of its own is one warning."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from valentina_pipeline.integrations.stage_tracking import TrackingProcess, open_stage
from valentina_pipeline.integrations.tracking import NullTracker, current_tracker

STAGE = """
import os, signal
from valentina_pipeline.integrations.stage_tracking import TrackingProcess, open_stage
tracking = TrackingProcess()
tracking.call(open_stage, "ingest", [])
print(tracking._process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_stage_leaves_no_tracking_process(tmp_path: Path) -> None:
    stage = subprocess.run([sys.executable, "-c", STAGE], capture_output=True, cwd=tmp_path)
    assert stage.returncode == -signal.SIGKILL
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(int(stage.stdout)).wait(60)
    assert list(tmp_path.iterdir()) == []


def test_a_tracking_process_that_ended_is_one_warning_and_the_stage_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tracking = TrackingProcess()
    assert current_tracker() is tracking
    assert tracking._process is not None
    os.kill(tracking._process.pid, signal.SIGKILL)
    tracking._process.wait()
    with caplog.at_level(logging.WARNING):
        for step in range(3):
            tracking.log({"loss": 1.0}, step)
        tracking.call(open_stage, "ingest", [])
    tracking.end()
    assert caplog.text.count("tracking process has ended") == 1
    assert isinstance(current_tracker(), NullTracker)
