"""How fast is a training step, beside the loop that diffusers' SDXL LoRA example performs?

    uv run python benchmarks/train_step.py    # small width on this machine's CPU; gpu.py has SDXL's own

Three loops take turns on one random-weight model of SDXL's architecture, with the same precision, batch and
rank: "example" encodes pictures and captions in each step, as the example does; "cached" is the same loop
with both encoded before; "ours" is image/train/loop.py's. Each runs in a process of its own, so that its peak
memory is its own. Prints seconds a step, peak memory, floating-point operations, and the ratios.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

RANK = 32
LOOPS = ("example", "cached", "ours")
CAPTION = "photo of valentina woman, smiling, looking left, red dress, beach background"


def main() -> None:
    args = arguments()
    if args.loop:
        print(json.dumps(measured(args)))
    else:
        compare(args)


def compare(args: argparse.Namespace) -> None:
    """Time the loops in turn, each in processes of its own, and print what came of it."""
    rounds: dict[str, list[dict[str, float]]] = {loop: [] for loop in LOOPS}
    for _ in range(args.rounds):
        for loop, results in rounds.items():
            results.append(in_a_process(loop))
    print(f"\n{args.side} px, rank {RANK}, {args.precision}, torch {torch.__version__}")
    seconds = {}
    for loop, results in rounds.items():
        times = [result["seconds"] for result in results]
        seconds[loop] = statistics.median(times)
        memory, flops = (max(result[what] for result in results) for what in ("memory", "flops"))
        line = f"{loop:8} {seconds[loop]:.3f} s a step ({min(times):.3f} to {max(times):.3f})"
        print(f"{line}, peak {memory / 2**30:.2f} GiB, {flops / 1e12:.3f} TFLOP")
    for loop in [loop for loop in LOOPS if loop != "ours"]:
        print(f"ours is {seconds[loop] / seconds['ours']:.2f} times as fast as {loop}", flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side", type=int, default=128, help="pixels")
    parser.add_argument("--steps", type=int, default=12, help="timed, after two that are not")
    parser.add_argument("--rounds", type=int, default=2, help="of each loop, taking turns")
    parser.add_argument("--batch", type=int, default=4, help="images of a step")
    parser.add_argument("--loop", choices=LOOPS, help=argparse.SUPPRESS)  # for the processes that it starts
    parser.set_defaults(precision="fp32", checkpointing=False, compile=False)
    return parser.parse_args()


def in_a_process(loop: str) -> dict[str, float]:
    command = [sys.executable, __file__, *sys.argv[1:], "--loop", loop]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])


def measured(args: argparse.Namespace) -> dict[str, float]:
    from torch.utils.flop_counter import FlopCounterMode

    base = random_base(0.125, on_gpu=False)
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 255, (args.side, args.side, 3), np.uint8)) for _ in range(8)]
    step = ours(base, pictures, args) if args.loop == "ours" else plain(base, pictures, args)
    for index in range(2):
        step(index)
    taken = []
    for index in range(args.steps):
        began = time.perf_counter()
        step(2 + index)
        taken.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    with FlopCounterMode(display=False) as counter:
        step(2 + args.steps)
    return {"seconds": statistics.median(taken), "memory": peak, "flops": counter.get_total_flops()}


def plain(base: Any, pictures: list[Image.Image], args: argparse.Namespace) -> Callable[[int], None]:
    """The step of diffusers' train_text_to_image_lora_sdxl.py, as it is described there, in plain PyTorch."""
    from diffusers import DDPMScheduler
    from peft import LoraConfig
    from torch.nn import functional
    from torchvision import transforms

    unet, vae = (
        base.unet.to(memory_format=torch.contiguous_format),
        base.vae.to(memory_format=torch.contiguous_format),
    )
    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=["to_k", "to_q", "to_v", "to_out.0"]))
    weights = [p for p in unet.parameters() if p.requires_grad]
    for weight in weights:
        weight.data = weight.data.float()
    if args.checkpointing:
        unet.enable_gradient_checkpointing()
    unet.train()
    optimiser = torch.optim.AdamW(weights, lr=1e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1.0)
    noising = DDPMScheduler.from_config(base.pipe.scheduler.config)
    prepare = transforms.Compose([transforms.ToTensor(), transforms.Normalize([0.5], [0.5])])

    def latents_of(chosen: list[Image.Image]) -> torch.Tensor:
        pixels = torch.stack([prepare(image) for image in chosen]).to(vae.device, vae.dtype)
        with torch.no_grad():
            return vae.encode(pixels).latent_dist.sample() * vae.config.scaling_factor

    def text_of(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        context, pooled = [], None
        with torch.no_grad():
            for tokenizer, encoder in zip(base.tokenizers, base.text_encoders.values(), strict=True):
                ids = tokenizer(
                    [CAPTION] * count,
                    padding="max_length",
                    max_length=77,
                    truncation=True,
                    return_tensors="pt",
                ).input_ids.to(encoder.device)
                out = encoder(ids, output_hidden_states=True)
                context.append(out.hidden_states[-2])
                pooled = out[0]
        return torch.cat(context, dim=-1), pooled

    kept_latents = torch.cat([latents_of([image]) for image in pictures])
    kept_text = text_of(args.batch)

    def step(index: int) -> None:
        rows = [(index * args.batch + slot) % len(pictures) for slot in range(args.batch)]
        cached = args.loop == "cached"
        clean = kept_latents[rows] if cached else latents_of([pictures[row] for row in rows])
        context, pooled = kept_text if cached else text_of(args.batch)
        noise = torch.randn_like(clean)
        timesteps = torch.randint(0, noising.config.num_train_timesteps, (args.batch,), device=clean.device)
        noisy = noising.add_noise(clean, noise, timesteps)
        ids = torch.tensor(
            [[args.side, args.side, 0, 0, args.side, args.side]] * args.batch, device=clean.device
        )
        extra = {"text_embeds": pooled, "time_ids": ids.to(context.dtype)}
        with torch.autocast(clean.device.type, torch.bfloat16, enabled=args.precision == "bf16"):
            predicted = unet(noisy, timesteps, context, added_cond_kwargs=extra).sample
            loss = functional.mse_loss(predicted.float(), noise.float(), reduction="mean")
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        loss.detach().item()  # logged each step

    return step


def ours(base: Any, pictures: list[Image.Image], args: argparse.Namespace) -> Callable[[int], None]:
    import yaml

    from valentina_pipeline.config.train_lora import TrainConfig
    from valentina_pipeline.image.train.encoding import PromptEmbedCache, encode_samples
    from valentina_pipeline.image.train.loop import configure_for_training
    from valentina_pipeline.image.train.loss import DiffusionLoss, NoiseSchedule
    from valentina_pipeline.image.train.methods import build_method
    from valentina_pipeline.image.train.samples import Sample
    from valentina_pipeline.image.train.trainer import Trainer, TrainState
    from valentina_pipeline.training.distributed import Processes

    with open("conf/base/bases.yml") as file:  # noqa: PTH123
        implied = yaml.safe_load(file)["sdxl"]["train_lora"]
    chosen = {"rank": RANK, "batch_size": args.batch, "precision": args.precision, "compile": args.compile}
    cfg = TrainConfig.model_validate({**implied, **chosen, "gradient_checkpointing": args.checkpointing})
    learned = build_method(base, cfg, "valentina", "woman", 0)
    face = (0.0, 0.0, float(args.side), float(args.side))
    samples = [Sample(str(index), image, CAPTION, face) for index, image in enumerate(pictures)]
    data = encode_samples(base, samples)
    loss = DiffusionLoss(base, data, NoiseSchedule.of(base), cfg, 0, PromptEmbedCache(base))
    mover = Trainer.of(learned.weights, learned.rates, learned.spans, loss, Processes())
    configure_for_training(base, cfg)
    run = TrainState()

    def step(index: int) -> None:
        mover.step(index, run).item()

    return step


def random_base(width: float, on_gpu: bool) -> Any:
    """Return a BaseModel of SDXL's architecture, random weights, at a share of its width."""
    from pathlib import Path

    from diffusers import (
        AutoencoderKL,
        EulerDiscreteScheduler,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    from valentina_pipeline.image.models.base_model import BaseModel

    torch.manual_seed(0)
    device, dtype = ("cuda", torch.bfloat16) if on_gpu else ("cpu", torch.float32)
    first, second = (max(64, int(size * width) // 64 * 64) for size in (768, 1280))
    tokenizer = CLIPTokenizer.from_pretrained(Path("tiny/weights/base/tokenizer"))

    def text(size: int, layers: int, kind: type) -> Any:
        config = CLIPTextConfig(
            vocab_size=49408, hidden_size=size, intermediate_size=4 * size, num_hidden_layers=layers,
            num_attention_heads=size // 64, projection_dim=size,
        )  # fmt: skip
        return kind(config)

    with torch.device(device):
        channels = tuple(int(each * width) for each in (320, 640, 1280))
        unet = UNet2DConditionModel(
            sample_size=128,
            block_out_channels=channels,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10),
            attention_head_dim=tuple(max(1, each // 64) for each in channels),
            norm_num_groups=8 if width < 1 else 32,
            cross_attention_dim=first + second,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=second + 6 * 256,
        )
        vae = AutoencoderKL(
            block_out_channels=tuple(int(each * width) for each in (128, 256, 512, 512)),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            latent_channels=4,
            norm_num_groups=8 if width < 1 else 32,
            scaling_factor=0.13025,
        )
        encoders = text(first, 12, CLIPTextModel), text(second, 32, CLIPTextModelWithProjection)
    pipe = StableDiffusionXLPipeline(
        vae=vae,
        unet=unet.to(dtype),
        text_encoder=encoders[0].to(dtype),
        text_encoder_2=encoders[1].to(dtype),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        scheduler=EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
        add_watermarker=False,
    )
    for part in (pipe.unet, pipe.vae, pipe.text_encoder, pipe.text_encoder_2):
        part.requires_grad_(False).eval()
    for part in (pipe.unet, pipe.vae):
        part.to(memory_format=torch.channels_last)
    return BaseModel("sdxl", Path(), pipe)


if __name__ == "__main__":
    main()
