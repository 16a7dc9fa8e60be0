"""Steps, a preview and the time left of a job that is being drawn."""

import time
from dataclasses import dataclass

from valentina_pipeline.serving.jobs.job import State


@dataclass(frozen=True)
class Progress:
    """The progress of a job.

    Attributes:
        state: where it is.
        done: steps done.
        total: steps of all its batches.
        preview: a JPEG file, b"" where there is none.
        begun: `time.monotonic` when the drawing of this batch began.
        before: steps done before this batch.
    """

    state: State
    done: int = 0
    total: int = 0
    preview: bytes = b""
    begun: float = 0.0
    before: int = 0

    @property
    def seconds_left(self) -> float | None:
        """Seconds that it will take if no other job has a turn, going by how long this batch took so far."""
        if self.done <= self.before:
            return None
        return (time.monotonic() - self.begun) / (self.done - self.before) * (self.total - self.done)
