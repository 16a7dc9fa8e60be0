"""Retention: jobs and their images are deleted a day after they end."""

import time

from valentina_pipeline.serving.jobs.image_store import ImageStore
from valentina_pipeline.serving.jobs.store import JobStore

RETENTION_SECONDS = 24 * 3600.0
"""Seconds for which jobs and images are kept after they end."""

CHECK_INTERVAL_SECONDS = 60.0
"""Seconds between two deletions, at least."""


class Retention:
    """Deletion of old jobs.

    Args:
        jobs: the queue.
        images: the images of its jobs.
    """

    def __init__(self, jobs: JobStore, images: ImageStore) -> None:
        self._jobs = jobs
        self._images = images
        self._next_check = 0.0

    def delete_old_jobs(self) -> None:
        """Delete jobs that ended RETENTION_SECONDS ago, and their images; too soon a call does nothing."""
        now = time.monotonic()
        if now < self._next_check:
            return
        self._next_check = now + CHECK_INTERVAL_SECONDS
        for image in self._jobs.forget(RETENTION_SECONDS):
            if image.file:
                self._images.remove(image.file)
