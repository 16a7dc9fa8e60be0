"""A process that draws nothing, and says of each image that it was asked for it: the queue is what is tried.

As a program it is a server without HTTP: python drawing.py DATABASE STATE PACKAGE
"""

import os
import signal
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

from valentina_pipeline.serving.inference.package import read
from valentina_pipeline.serving.jobs import worker_process
from valentina_pipeline.serving.jobs.dispatcher import Dispatcher
from valentina_pipeline.serving.jobs.metrics import Metrics
from valentina_pipeline.serving.jobs.store import JobStore
from valentina_pipeline.serving.jobs.worker import Batch, BatchDone, GeneratedImage, Ready, WorkerConfig

LEASE = 1.0
SECONDS = 0.02
"""That an image takes."""


def work(server: Connection, opening: WorkerConfig) -> None:
    """Draw as `worker.work` does; each image is a line of `drawn` in the folder that the key would be in."""
    server.send(Ready("nowhere", "torch", {"networks": 0.0}, False, {}))
    try:
        while (told := server.recv()) is not None:
            if isinstance(told, Batch):
                for job, order in told.orders.items():
                    for seed in order.seeds:
                        if order.prompt == "die":
                            os._exit(1)
                        time.sleep(SECONDS)
                        with (opening.signing / "drawn").open("a") as lines:
                            lines.write(f"{job} {seed}\n")
                        server.send([GeneratedImage(job, seed, b"an image", "", None, "torch")])
                server.send(BatchDone(SECONDS))
    except (EOFError, OSError):
        return  # the server is gone


def desk(jobs: JobStore, package: Path, state: Path) -> Dispatcher:
    """Return a desk; it has `work` draw where a test puts that in the place of the process's own."""
    return Dispatcher(jobs, read(package), WorkerConfig(package, state), state / "images", Metrics())


if __name__ == "__main__":
    worker_process.work = work  # type: ignore[attr-defined]
    made = desk(JobStore(sys.argv[1], lease=LEASE), Path(sys.argv[3]), Path(sys.argv[2]))
    made.start()
    print("begun", flush=True)
    signal.pause()
