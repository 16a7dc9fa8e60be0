"""How fast does a GPU train and generate at SDXL's own width, beside plain diffusers in the same run?

    uv run python benchmarks/gpu.py            # SDXL at 1024 px with random weights: about ten minutes
    uv run python benchmarks/gpu.py --small    # the same program on any machine: narrow, 64 px, few steps
    uv run python benchmarks/gpu.py train      # one section: train, quantized, generate or tiny

Sections run in processes of their own, with a time limit each. A setting that fails is a line with the
reason, and the others go on; the exit status is then 1. Prints for each setting the seconds of a step or
image, their range, and the peak memory while it was timed. The share of the peak TFLOP/s counts what torch's
FLOP counter counts in one step of the plain loop, so that work done twice (checkpointing) counts once.
"""

import argparse
import gc
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from PIL import Image
from torch import nn
from train_step import CAPTION, RANK, ours, plain, random_base

CUDA = torch.cuda.is_available()

FAILED: list[str] = []
"""Settings of this process that failed."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sections", nargs="*", help=f"{', '.join(SECTIONS)}; default: all")
    parser.add_argument("--small", action="store_true", help="an eighth of the width, 64 px, few steps")
    parser.add_argument(
        "--peak-tflops", type=float, default=989.0, help="of the GPU: 989 is an H100's or H200's"
    )
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if unknown := set(args.sections) - set(SECTIONS):
        parser.error(f"{', '.join(sorted(unknown))}: must be one of {', '.join(SECTIONS)}")
    if args.inside:
        SECTIONS[args.sections[0]].measure(args)
        sys.exit(1 if FAILED else 0)
    if not CUDA and not args.small:
        parser.error("there is no GPU here: --small runs the same program on a CPU")
    card = torch.cuda.get_device_name() if CUDA else "CPU"
    minutes = sum(section.seconds for section in SECTIONS.values()) // 60
    print(f"{card}, torch {torch.__version__}, {minutes} minutes at most", flush=True)
    sys.exit(1 if [name for name in args.sections or SECTIONS if not _run_section(name)] else 0)


def _run_section(name: str) -> bool:
    """Run a section in a process of its own; return True if all of it worked."""
    print(f"\n{name}", flush=True)
    options = [option for option in sys.argv[1:] if option not in SECTIONS]
    began = time.perf_counter()
    limit = None if "--small" in options else SECTIONS[name].seconds
    try:
        status = subprocess.run(
            [sys.executable, "-u", __file__, name, *options, "--inside"], timeout=limit
        ).returncode
    except subprocess.TimeoutExpired:
        print(f"stopped at its limit of {limit} s")
        status = 1
    print(f"{name} took {time.perf_counter() - began:.0f} s", flush=True)
    return status == 0


def measure_train(args: argparse.Namespace) -> None:
    """Time training steps of the plain loop with cached latents and texts, and of ours in its settings."""
    flops: dict[int, int] = {}
    plain_seconds: dict[int, float] = {}
    for batch in (1, 4):
        variants = [("cached", []), ("ours", []), ("ours", ["checkpointing"]), ("ours", ["any kernel"])]
        for loop, flags in [*variants, ("ours", ["compile"])]:
            settings = _train_settings(args, batch, loop, flags)
            label = f"batch {batch} {'plain loop' if loop == 'cached' else 'ours'} {' '.join(flags)}".strip()
            with _reported(label) as report:
                exact = loop == "ours" and "any kernel" not in flags
                if loop == "cached":
                    flops[batch] = _count_flops(_training_step(settings, exact))
                times = _time(_training_step(settings, exact), warm_up=3, count=3 if args.small else 12)
                line = _describe(times, 1)
                plain_seconds.setdefault(batch, statistics.median(times))
                if batch in flops:
                    share = flops[batch] / statistics.median(times) / args.peak_tflops / 1e12
                    line += f", {share:.1%} of {args.peak_tflops:g} TFLOP/s"
                report(f"{line}, {plain_seconds[batch] / statistics.median(times):.2f} times the plain loop")


def measure_quantized(args: argparse.Namespace) -> None:
    """Time training steps on a base model that is loaded from its folder in 8 and in 4 bits."""
    from valentina_pipeline.image.models.base_model import load_base

    with tempfile.TemporaryDirectory() as folder:
        random_base(_width(args), CUDA).pipe.to("cpu").save_pretrained(folder)
        for quantize in ("none", "int8", "nf4"):
            for batch in (1, 4):
                with _reported(f"batch {batch} {quantize}, with checkpointing") as report:
                    settings = _train_settings(args, batch, "ours", ["checkpointing"])
                    load = partial(load_base, _config(folder, _side(args)), Path(), "bf16", quantize)
                    step = partial(_training_step, settings, True, load)
                    report(_describe(_time(step(), warm_up=2, count=3 if args.small else 8), 1))


def measure_generate(args: argparse.Namespace) -> None:
    """Time images with a LoRA: diffusers' pipeline as its documentation shows it, and ours."""
    plain_seconds: dict[int, float] = {}
    side, steps, count = (64, 2, 2) if args.small else (1024, 30, 3)
    for compiled in (False, True):
        for maker, generate in (("plain diffusers", _generate_plain), ("ours", _generate_ours)):
            pipe = None  # frees the memory of the one before
            _free_memory()
            pipe = _pipe_with_lora(args, maker == "ours")
            if compiled:
                pipe.unet.compile_repeated_blocks(dynamic=maker == "ours" or None)
            for batch in (1, 4):
                with _reported(f"{maker} batch {batch}{' compiled' if compiled else ''}") as report:
                    times = _time(partial(generate, pipe, batch, steps, side), warm_up=1, count=count)
                    seconds = statistics.median(times) / batch
                    plain_seconds.setdefault(batch, seconds)
                    ratio = plain_seconds[batch] / seconds
                    report(f"{_describe(times, batch)} an image, {ratio:.2f} times plain diffusers")


def measure_tiny(args: argparse.Namespace) -> None:
    """Time the stages of the recipe of the tiny base, with a twentieth of its steps and few people."""
    params = yaml.safe_load(Path("tiny/params.yaml").read_text("utf-8"))
    share = 0.001 if args.small else 0.05
    params["render"] |= {"people": 28, "held_out": 8, "strangers": {"people": 40, "scenes": 3}}
    for stage in ("vae", "clip", "faces", "unet", "control"):
        params[stage]["steps"] = max(2, int(params[stage]["steps"] * share))
    params["vae"]["whole"]["steps"] = max(2, int(params["vae"]["whole"]["steps"] * share))
    params["control"]["pictures"], params["card"]["images"] = (2, 8) if args.small else (8, 40)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "tiny").mkdir()
        Path(folder, "tiny/params.yaml").write_text(yaml.safe_dump(params), "utf-8")
        for stage in ("render", "vae", "clip", "faces", "unet", "control", "card"):
            with _reported(f"{stage} {params.get(stage, {}).get('steps', '')}".strip()) as report:
                began = time.perf_counter()
                command = [sys.executable, "-m", "valentina_pipeline.image.tiny", stage]
                done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
                if done.returncode:
                    raise RuntimeError(done.stderr.strip().splitlines()[-1])
                report(f"{time.perf_counter() - began:.1f} s with imports")


@contextmanager
def _reported(label: str) -> Iterator[Callable[[str], None]]:
    """Yield a function that prints the setting's measurement; print the reason where it fails."""
    try:
        yield lambda text: print(f"  {label}: {text}{_peak_memory()}", flush=True)
    except Exception as err:  # one setting must not cost the others their turn
        FAILED.append(label)
        print(f"  {label}: failed, {type(err).__name__}: {err}", flush=True)


def _peak_memory() -> str:
    return f", peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if CUDA else ""


def _describe(times: list[float], images: int) -> str:
    low, middle, high = (each / images for each in (min(times), statistics.median(times), max(times)))
    return f"{middle:.3f} s ({low:.3f} to {high:.3f})"


def _time(call: Callable[[int], object], warm_up: int, count: int) -> list[float]:
    """Return the seconds of each of `count` calls after `warm_up` calls, whose memory does not count."""
    wait: Callable[[], None] = torch.cuda.synchronize if CUDA else lambda: None
    for index in range(warm_up):
        call(index)
    wait()
    if CUDA:
        torch.cuda.reset_peak_memory_stats()
    times = []
    for index in range(warm_up, warm_up + count):
        began = time.perf_counter()
        call(index)
        wait()
        times.append(time.perf_counter() - began)
    return times


def _count_flops(step: Callable[[int], None]) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        step(0)
    return counter.get_total_flops()


def _free_memory() -> None:
    gc.collect()
    torch._dynamo.reset()
    torch.cuda.empty_cache()


def _side(args: argparse.Namespace) -> int:
    return 64 if args.small else 1024


def _width(args: argparse.Namespace) -> float:
    return 0.125 if args.small else 1.0


def _train_settings(args: argparse.Namespace, batch: int, loop: str, flags: list[str]) -> argparse.Namespace:
    return argparse.Namespace(
        loop=loop, batch=batch, side=_side(args), width=_width(args), precision="bf16" if CUDA else "fp32",
        checkpointing="checkpointing" in flags, compile="compile" in flags,
    )  # fmt: skip


def _training_step(
    settings: argparse.Namespace, exact: bool, load: Callable[[], Any] | None = None
) -> Callable[[int], None]:
    """Return a step of the plain loop or of ours, on a base model of its own.

    With `exact` each step runs as the stage runs it, with deterministic kernels.
    """
    from valentina_pipeline.common.threads import reproducible

    _free_memory()
    rng = np.random.default_rng(0)
    shape = (settings.side, settings.side, 3)
    images = [Image.fromarray(rng.integers(0, 255, shape, np.uint8)) for _ in range(8)]
    base = load() if load else random_base(settings.width, CUDA)
    step = ours(base, images, settings) if settings.loop == "ours" else plain(base, images, settings)

    def run(index: int) -> None:
        with reproducible(torch.get_num_threads()) if exact else nullcontext():
            step(index)

    return run


def _config(folder: str, side: int) -> Any:
    from valentina_pipeline.config.base_model import BaseConfig

    entry = yaml.safe_load(Path("conf/base/bases.yml").read_text("utf-8"))["sdxl"]["model"]
    return BaseConfig.model_validate({**entry, "path": folder, "resolution": side})


def _pipe_with_lora(args: argparse.Namespace, as_ours: bool) -> Any:
    """Return SDXL's pipeline with a LoRA of random weights on the attention layers."""
    from peft import LoraConfig

    pipe = random_base(_width(args), CUDA).pipe
    if not as_ours:
        for network in (pipe.unet, pipe.vae):
            network.to(memory_format=torch.contiguous_format)
        pipe.vae.to(pipe.unet.dtype)
    targets = ["to_k", "to_q", "to_v", "to_out.0"]
    pipe.unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=targets))
    for name, weight in pipe.unet.named_parameters():
        if "lora_" in name:
            nn.init.normal_(weight.data, std=1e-3)
            weight.data = weight.data.to(pipe.unet.dtype)
    pipe.unet.requires_grad_(False).eval()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _generate_plain(pipe: Any, batch: int, steps: int, side: int, seed: int) -> list[Image.Image]:
    generators = [torch.Generator(pipe.device).manual_seed(seed * batch + slot) for slot in range(batch)]
    return pipe(
        [CAPTION] * batch, generator=generators, num_inference_steps=steps, guidance_scale=6.0, height=side,
        width=side,
    ).images  # fmt: skip


def _generate_ours(pipe: Any, batch: int, steps: int, side: int, seed: int) -> list[Image.Image]:
    from valentina_pipeline.image.generate.generate import ImageSpec, generate_images

    specs = [ImageSpec(CAPTION, seed * batch + slot) for slot in range(batch)]
    return generate_images(pipe, specs, steps, 6.0, side, batch)


class Section(NamedTuple):
    """Measurement and its limit in seconds on a GPU."""

    measure: Callable[[argparse.Namespace], None]
    seconds: int


SECTIONS = {
    "train": Section(measure_train, 300),
    "generate": Section(measure_generate, 220),
    "quantized": Section(measure_quantized, 120),
    "tiny": Section(measure_tiny, 80),
}


if __name__ == "__main__":
    main()
