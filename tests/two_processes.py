"""What `accelerate launch` starts twice: a small run, whose files the first process writes into argv[1]."""

import sys
from pathlib import Path

from runs import config, run
from valentina_pipeline.image.processes import Processes

if __name__ == "__main__":
    folder, processes = Path(sys.argv[1]), Processes.joined()
    files = run(folder / "checkpoints", config(look_every=2), processes=processes)
    processes.leave()
    for name, content in files.items():
        (folder / name).write_bytes(content)
