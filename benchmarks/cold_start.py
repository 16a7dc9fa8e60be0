"""How long is it from starting a server to its first image, on what is it spent, and how long is it by hand?

    uv run python benchmarks/cold_start.py [PACKAGE]      # the project's package

By hand is a script for diffusers: load the base and the LoRA, draw an image of these steps and size; no
identity, no filter, no marks. Both take turns, each in a process of its own, after one start that fills the
page cache. Prints the median of the rounds and the ratio.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "data/06_models/valentina_moreau/package"
ORDER = {"prompt": "smiling, beach background", "seed": 1, "preset": "standard"}

BY_HAND = """
import json, sys
import torch
from diffusers import StableDiffusionXLPipeline
folder, order, file = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
pipe = StableDiffusionXLPipeline.from_pretrained(folder + "/base", torch_dtype=torch.float32)
pipe.load_lora_weights(folder + "/lora", weight_name="pytorch_lora_weights.safetensors")
rng = torch.Generator().manual_seed(order["seed"])
about = json.load(open(folder + "/presets.json"))["presets"][order["preset"]]
pipe(order["prompt"], generator=rng, num_inference_steps=about["steps"],
     guidance_scale=about["guidance_scale"], width=about["size"], height=about["size"]).images[0].save(file)
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("package", nargs="?", type=Path, default=PACKAGE)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    served(asked.package)
    rounds = [(served(asked.package), by_hand(asked.package)) for _ in range(asked.rounds)]
    spent, hand = [one for one, _ in rounds], statistics.median(other for _, other in rounds)
    for phase in spent[0]:
        print(f"{phase:20}{statistics.median(each[phase] for each in spent):6.2f} s")
    whole = statistics.median(sum(each.values()) for each in spent)
    print(f"{'the first image':20}{whole:6.2f} s   by hand {hand:.2f} s   ratio {whole / hand:.2f}")


def served(package: Path) -> dict[str, float]:
    """Start a server, order an image at once; return the seconds until it is there by what they went to."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="cold-") as state:
        command = [sys.executable, "-m", "valentina_pipeline.serving", str(package), "--port", "0"]
        server = subprocess.Popen([*command, "--state-dir", state], stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            url = next(word for word in server.stdout.readline().split() if word.startswith("http://"))
            with httpx.Client(base_url=url, timeout=60) as http:
                job = http.post("/v1/generations", json=ORDER).json()
                while job["state"] in ("queued", "running"):
                    time.sleep(0.02)
                    job = http.get(f"/v1/jobs/{job['id']}").json()
                http.get(job["images"][0]["url"]).raise_for_status()
                whole = time.monotonic() - begun
                lines = http.get("/metrics").text.splitlines()
        finally:
            server.terminate()
            server.wait(60)
    figures = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    name = "valentina_loading_seconds{phase="
    spent = {each.split('"')[1]: float(value) for each, value in figures.items() if each.startswith(name)}
    spent["inference"] = float(figures["valentina_inference_seconds_total"])
    return {"server": whole - sum(spent.values()), **spent}


def by_hand(package: Path) -> float:
    """Return the seconds that a script takes for an image of the same steps and size."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="cold-") as folder:
        command = [sys.executable, "-c", BY_HAND, str(package), json.dumps(ORDER), f"{folder}/image.png"]
        subprocess.run(command, check=True, capture_output=True)
    return time.monotonic() - begun


if __name__ == "__main__":
    main()
