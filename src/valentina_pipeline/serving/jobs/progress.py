"""Progress of a running job: steps, preview and remaining time."""

import time
from dataclasses import dataclass

from valentina_pipeline.serving.jobs.job import State


@dataclass(frozen=True)
class Progress:
    """The progress of a job.

    Attributes:
        state: of the job.
        done: steps done.
        total: steps of all its batches.
        preview: a JPEG file, or b"".
        begun: `time.monotonic` at the start of this batch.
        before: steps done before this batch.
    """

    state: State
    done: int = 0
    total: int = 0
    preview: bytes = b""
    begun: float = 0.0
    before: int = 0

    @property
    def eta_seconds(self) -> float | None:
        """Remaining seconds without other jobs between, extrapolated from this batch; None before a step."""
        if self.done <= self.before:
            return None
        return (time.monotonic() - self.begun) / (self.done - self.before) * (self.total - self.done)
