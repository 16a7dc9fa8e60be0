"""What `accelerate launch` starts twice: a small run of the base argv[2].

The first process writes its files into argv[1].
"""

import sys
from pathlib import Path

import tiny_bases
from runs import config, run
from valentina_pipeline.training.distributed import Processes

if __name__ == "__main__":
    folder, processes = Path(sys.argv[1]), Processes.joined()
    tiny_bases.sdxl_folder = lambda: Path(sys.argv[2])  # only the first process could write one of its own
    files = run(folder / "checkpoints", config(eval_every=2), processes=processes)
    processes.leave()
    for name, content in files.items():
        (folder / name).write_bytes(content)
