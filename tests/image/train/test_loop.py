import json
import multiprocessing
import os
import platform
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load, load_file

import tiny_bases
from runs import NOTES, ROOT, config, made, run, samples
from untraced import untraced
from valentina_pipeline.common.threads import processor_kind
from valentina_pipeline.config.train_lora import TrainConfig
from valentina_pipeline.image.train import diffusion
from valentina_pipeline.image.train.encoding import PromptEmbedCache, encode_prompt, encode_samples, tokenize
from valentina_pipeline.image.train.loop import SINGLE_PROCESS, LossDivergedError, train
from valentina_pipeline.image.train.loss import DiffusionLoss, NoiseSchedule
from valentina_pipeline.image.train.samples import Sample, data_hash, fit, flip_sample
from valentina_pipeline.image.train.trainer import Trainer, TrainState
from valentina_pipeline.training import checkpoints as checkpoint_files
from valentina_pipeline.training.callbacks import TrainingCallbacks
from valentina_pipeline.training.checkpoints import Checkpoints, State
from valentina_pipeline.training.distributed import Processes
from valentina_pipeline.training.finite import NotFiniteError
from valentina_pipeline.training.interrupts import TrainingInterrupted


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("sdxl", {}),
        ("sdxl", {"text_encoder_lr": 0.0, "target_modules": "attention+conv"}),
        ("sd15", {"loss_weighting": "none"}),
        ("sd15", {"text_encoder_lr": 0.0, "precision": "bf16", "target_modules": "attention+conv"}),
    ],
)
def test_training_lowers_the_loss_on_what_it_sees(family: str, changes: dict, tmp_path: Path) -> None:
    cfg = config(max_steps=24, learning_rate=1e-2, save_every=100, **changes)
    logged: list[float] = []
    files = run(tmp_path, cfg, family, log=lambda metrics, step: logged.append(metrics["train_loss"]))
    losses = json.loads(files["run"])["losses"]
    assert losses == logged
    still = {"learning_rate": 1e-12, "text_encoder_lr": cfg.text_encoder_lr * 1e-12}
    unmoved = run(tmp_path / "still", cfg.model_copy(update=still), family)
    frozen = json.loads(unmoved["run"])["losses"]
    # draw by draw against the untrained network: timesteps differ in loss more than training changes it
    assert losses[0] == pytest.approx(frozen[0], rel=1e-2)
    assert sum(losses[4:]) < sum(frozen[4:])


EXACT: list[dict[str, object]] = [
    {"method": "dora", "gradient_accumulation_steps": 2, "ema_decay": 0.9},
    {"method": "rslora", "optimizer": "adafactor", "lr_scheduler": "one_cycle"},
    {"method": "lokr", "optimizer": "prodigy", "learning_rate": 1.0, "text_encoder_lr": 0.0},
    {"method": "textual_inversion", "keep_tokens": 1, "caption_tag_dropout_rate": 0.5},
    {"method": "pivotal", "noise_offset": 0.1, "loss_weighting": "debiased"},
    {"method": "full", "timestep_range": (100, 900), "text_encoder_lr": 0.0},
    {"optimizer": "schedule_free", "lr_scheduler": "constant", "eval_every": 2, "best_metric": "val_loss"},
]


@pytest.mark.parametrize("changes", EXACT, ids=lambda changes: ", ".join(map(str, changes.values())))
def test_every_method_and_optimiser_goes_on_exactly_where_it_was_stopped(
    changes: dict[str, object], tmp_path: Path
) -> None:
    goes_on_exactly(config(max_steps=6, save_every=100, **changes), tmp_path)


def test_compiled_blocks_and_checkpointing_go_on_exactly_where_they_were_stopped(tmp_path: Path) -> None:
    cfg = config(max_steps=6, save_every=100, compile=True, gradient_checkpointing=True)
    with untraced():
        goes_on_exactly(cfg, tmp_path, stops=(2,))  # each run compiles anew


def goes_on_exactly(cfg: TrainConfig, tmp_path: Path, stops: tuple[int, ...] = (2, 4)) -> None:
    expected = run(tmp_path / "whole", cfg)

    def interrupt(metrics: dict[str, float], step: int) -> None:
        if step + 1 in stops:  # the step that is under way then is the last
            os.kill(os.getpid(), signal.SIGINT)

    for already in stops:
        with pytest.raises(TrainingInterrupted, match=f"after step {already}"):
            run(tmp_path / "stopped", cfg, log=interrupt)
    assert run(tmp_path / "stopped", cfg) == expected


def test_a_run_that_is_killed_eight_times_ends_in_the_same_bytes(tmp_path: Path) -> None:
    cfg = config(max_steps=20, save_every=1)  # batches of 2 cross the ends of the epochs of 3 pictures
    expected = run(tmp_path / "whole", cfg)
    folder, out = tmp_path / "killed", tmp_path / "out"
    # forked, so that a killed process costs a few steps and not the imports too
    context = multiprocessing.get_context("fork")
    for already in range(0, 16, 2):
        process = context.Process(
            target=run_into, args=(out, folder, cfg), kwargs={"log": waits_at(already + 2)}
        )
        process.start()
        while process.is_alive() and not reached(folder, already):
            time.sleep(0.002)
        time.sleep(random.uniform(0, 0.2))  # while it loads, steps, writes or removes
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    assert not out.exists()
    process = context.Process(target=run_into, args=(out, folder, cfg))
    process.start()
    process.join()
    assert {file.name: file.read_bytes() for file in out.iterdir()} == expected


def waits_at(last: int) -> Callable[[Any, int], None]:
    """Return what keeps a fast run from its end: it waits after the step `last` until it is killed."""
    return lambda metrics, step: signal.pause() if step == last else None


def run_into(out: Path, folder: Path, cfg: TrainConfig, **watch: Any) -> None:
    files = run(folder, cfg, **watch)
    out.mkdir()
    for name, content in files.items():
        (out / name).write_bytes(content)


def reached(folder: Path, step: int) -> bool:
    return any(int(file.stem.removeprefix("step-")) >= step for file in folder.glob("step-*.json"))


def test_ctrl_c_saves_a_checkpoint_and_says_how_to_go_on(tmp_path: Path) -> None:
    cfg = config(save_every=100)
    expected = run(tmp_path / "whole", cfg)

    def interrupt(metrics: dict[str, float], step: int) -> None:
        if step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(TrainingInterrupted, match="stopped after step 3 of 4: `dvc repro` resumes it"):
        run(tmp_path / "stopped", cfg, log=interrupt)
    assert signal.getsignal(signal.SIGINT) is before
    steps: list[int] = []
    assert run(tmp_path / "stopped", cfg, log=lambda metrics, step: steps.append(step)) == expected
    assert steps == [4]


def test_drawing_samples_on_the_way_changes_nothing(tmp_path: Path) -> None:
    drawn: list[int] = []

    def sample(step: int, pipe: object) -> None:
        from valentina_pipeline.image.generate.generate import ImageSpec, generate_images

        assert generate_images(pipe, [ImageSpec("v woman", 1)], 1, 2.0, tiny_bases.SIZE)
        drawn.append(step)

    cfg = config(sample_every=2)
    assert run(tmp_path / "a", cfg, sample=sample) == run(tmp_path / "b", config())
    assert drawn == [2, 4]


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_last_good_checkpoint(tmp_path: Path) -> None:
    def spoil(metrics: dict[str, float], step: int) -> None:
        if step == 3:
            with torch.no_grad():
                next(iter(learned.weights.values())).fill_(float("nan"))

    cfg = config()
    base, learned = made(cfg)
    data = encode_samples(base, samples())
    with pytest.raises(
        LossDivergedError, match=r"loss of step 4 is nan: lower train_lora.learning_rate.*step-0000002"
    ):
        train(base, learned, data, cfg, 9, Checkpoints(tmp_path), TrainingCallbacks(log=spoil))


POISONED: list[dict[str, object]] = [
    {"method": "lora", "ema_decay": 0.9},
    {"method": "pivotal"},
    {"method": "lokr", "optimizer": "prodigy", "learning_rate": 1.0, "text_encoder_lr": 0.0},
    {"optimizer": "schedule_free", "lr_scheduler": "constant"},
]


@pytest.mark.parametrize("changes", POISONED, ids=lambda changes: ", ".join(map(str, changes.values())))
def test_a_gradient_that_is_no_number_reaches_no_checkpoint_and_a_rerun_gets_away_from_it(
    changes: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = config(save_every=1, **changes)
    expected = run(tmp_path / "well", cfg)
    right, steps = torch.nn.utils.clip_grad_norm_, iter((1, 2, 3))

    def clip(parameters: Any, *args: Any) -> torch.Tensor:
        found = list(parameters)
        if next(steps) == 3:
            next(p.grad for p in found if p.grad is not None).fill_(float("nan"))
        return right(found, *args)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clip)
    said = r"step 3: the gradient is not finite: lower train_lora.learning_rate; .*step-0000002"
    with pytest.raises(LossDivergedError, match=said):
        run(tmp_path / "poisoned", cfg)
    monkeypatch.undo()
    for file in (tmp_path / "poisoned").glob("*.safetensors"):
        assert all(tensor.isfinite().all() for tensor in load_file(file).values())
    assert run(tmp_path / "poisoned", cfg) == expected


def test_weights_that_are_no_numbers_after_the_last_step_are_no_result(tmp_path: Path) -> None:
    cfg = config(max_steps=1)
    base, learned = made(cfg)
    data = encode_samples(base, samples())

    def spoil(metrics: dict[str, float], step: int) -> None:
        with torch.no_grad():
            next(iter(learned.weights.values())).fill_(float("inf"))

    with pytest.raises(LossDivergedError, match=r"tensors of the trained weights are not finite, such as"):
        train(base, learned, data, cfg, 9, Checkpoints(tmp_path), TrainingCallbacks(log=spoil))
    with pytest.raises(NotFiniteError, match=r"1 of .* tensors of the file are not finite"):
        learned.files(NOTES)


def test_a_poisoned_checkpoint_of_an_earlier_version_is_left_for_the_one_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(State(1, {"weight/a": torch.ones(2)}, {}))
    bad = State(2, {"weight/a": torch.ones(2), "optimizer/a": torch.tensor([1.0, float("nan")])}, {})
    with pytest.raises(NotFiniteError, match="1 of 2 tensors of step 2 are not finite, such as optimizer/a"):
        checkpoints.save(bad)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_files, "refuse_not_finite", lambda tensors, what: None)
        checkpoints.save(bad)
    found = checkpoints.latest()
    assert found is not None and found.step == 1
    assert "step-0000002.safetensors is damaged (1 of 2 tensors of the checkpoint" in caplog.text
    assert not checkpoints._path(2).exists()


class Overflowing(Processes):
    """Has every gradient overflow, as half precision's does where its scale is too large."""

    def average(self, tensors: Iterable[torch.Tensor]) -> None:
        for each in tensors:
            each.fill_(float("inf"))


def test_half_precision_s_large_scale_leaves_a_step_out_and_nothing_else(tmp_path: Path) -> None:
    cfg = config()
    base, learned = made(cfg)
    loss = DiffusionLoss(base, encode_samples(base, samples()), NoiseSchedule.of(base), cfg, 9, None)
    mover = Trainer.of(learned.weights, learned.rates, learned.spans, loss, SINGLE_PROCESS)
    mover.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    mover.processes = Overflowing()
    before = {name: weight.detach().clone() for name, weight in mover.weights.items()}
    for scale in (2.0, 1.0, 0.5):
        mover.step(0, TrainState())
        assert mover.scaler.get_scale() == scale
    with pytest.raises(NotFiniteError, match="the gradient is not finite"):  # no scale was too large
        mover.step(0, TrainState())
    assert all(torch.equal(before[name], weight) for name, weight in mover.weights.items())


def test_text_is_embedded_as_the_pipeline_embeds_it() -> None:
    for family in ("sdxl", "sd15"):
        base = tiny_bases.loaded(family)
        captions = [*(s.caption for s in samples(2)), ""]
        context, pooled = PromptEmbedCache(base)(captions)
        with torch.no_grad():
            own = base.pipe.encode_prompt(
                prompt=captions,
                device=base.device,
                num_images_per_prompt=1,
                do_classifier_free_guidance=False,
            )
        torch.testing.assert_close(context, own[0])
        torch.testing.assert_close(encode_prompt(base, tokenize(base, captions))[0], own[0])
        if family == "sdxl":
            torch.testing.assert_close(pooled, own[2])


def test_pictures_of_several_sizes_go_to_buckets_that_batches_do_not_mix() -> None:
    tall = Sample("tall", Image.new("RGB", (300, 600)), "tall", (100.0, 100.0, 200.0, 300.0))
    square = Sample("square", Image.new("RGB", (500, 500)), "square", (0.0, 0.0, 500.0, 500.0))
    fitted = fit([tall, square, tall], 256 * 256)
    assert [sample.image.size for sample in fitted] == [(192, 320), (256, 256), (192, 320)]
    assert fitted[0].original == (300, 600)
    assert fitted[0].corner == (0, 32)
    assert fitted[0].face == pytest.approx((64, 32, 128, 160))
    base = tiny_bases.loaded("sdxl")
    data = encode_samples(base, fitted)
    assert data.groups == [[0, 2], [1]]
    assert data.conditions[0].tolist() == [600, 300, 32, 0, 320, 192]
    assert fit([square], 64 * 64) == [square]
    with pytest.raises(ValueError, match="no training images"):
        encode_samples(base, [])


def test_a_mirrored_sample_has_its_face_on_the_other_side() -> None:
    sample = samples(1)[0]
    flipped = flip_sample(sample)
    assert flipped.face == (tiny_bases.SIZE - 24.0, 4.0, tiny_bases.SIZE - 8.0, 28.0)
    assert np.array_equal(np.array(flipped.image), np.array(sample.image)[:, ::-1])
    assert flip_sample(flipped).face == sample.face


def test_a_face_counts_where_it_is_in_each_picture() -> None:
    base = tiny_bases.loaded("sdxl")
    left = samples(1)[0]
    half = tiny_bases.SIZE / 2
    right = replace(left, face=(half, 0.0, tiny_bases.SIZE, tiny_bases.SIZE))
    left = replace(left, face=(0.0, 0.0, half, tiny_bases.SIZE))
    places = torch.stack(encode_samples(base, [left, right], 3.0).places)
    assert places.shape[1:] == (1, tiny_bases.SIZE // 8, tiny_bases.SIZE // 8)
    middle = places.shape[-1] // 2
    assert places[0, ..., :middle].unique().tolist() == places[1, ..., middle:].unique().tolist() == [1.5]
    assert places[0, ..., middle:].unique().tolist() == places[1, ..., :middle].unique().tolist() == [0.5]


def test_what_a_mask_blackens_has_no_share_in_the_loss() -> None:
    base = tiny_bases.loaded("sdxl")
    side, half = tiny_bases.SIZE, tiny_bases.SIZE // 2
    mask = Image.new("L", (side, side))
    mask.paste(255, (0, 0, half, side))
    mask.paste(51, (0, 0, half, half))
    sample = replace(samples(1)[0], mask=mask)
    whole = encode_samples(base, [replace(sample, mask=None)], 3.0).places[0]
    places, flipped = encode_samples(base, [sample, flip_sample(sample)], 3.0).places
    middle = places.shape[-1] // 2
    assert places[..., middle:].count_nonzero() == flipped[..., :middle].count_nonzero() == 0
    torch.testing.assert_close(places[:, middle:, :middle], whole[:, middle:, :middle])
    torch.testing.assert_close(places[:, :middle, :middle], 0.2 * whole[:, :middle, :middle])
    predicted = torch.rand(1, 4, *places.shape[1:], requires_grad=True)
    diffusion.loss(predicted, torch.rand_like(predicted), torch.ones(1), places[None]).backward()
    assert predicted.grad is not None and predicted.grad[..., :middle].all()
    assert predicted.grad[..., middle:].count_nonzero() == 0


def test_a_mask_is_scaled_and_cut_with_its_picture() -> None:
    mask = Image.new("L", (300, 600))
    mask.paste(255, (100, 100, 200, 300))
    tall = Sample("tall", mask.convert("RGB"), "tall", None, mask=mask)
    cut, plain = fit([tall, Sample("square", Image.new("RGB", (500, 500)), "square", None)], 256 * 256)
    assert plain.mask is None and cut.mask is not None and cut.mask.size == cut.image.size
    shown = np.asarray(cut.image.convert("L")).astype(int) > 128
    assert np.array_equal(shown, np.asarray(cut.mask) > 128) and shown.any()


def test_the_data_hash_changes_with_a_pixel_a_caption_and_a_face() -> None:
    plain = samples(2)
    brighter = plain[0].image.copy()
    brighter.putpixel((0, 0), (1, 2, 3))
    changed = [
        [replace(plain[0], image=brighter), plain[1]],
        [replace(plain[0], caption="other words"), plain[1]],
        [replace(plain[0], face=(0.0, 0.0, 8.0, 8.0)), plain[1]],
        [replace(plain[0], repeats=2), plain[1]],
        [replace(plain[0], weight=0.5), plain[1]],
        [replace(plain[0], mask=Image.new("L", plain[0].image.size, 255)), plain[1]],
        [replace(plain[0], mask=Image.new("L", plain[0].image.size, 254)), plain[1]],
    ]
    assert data_hash(plain) == data_hash(samples(2))
    assert len({data_hash(plain), *map(data_hash, changed)}) == 8
    # of before there were masks: LoRAs of pictures without one keep their hash
    assert data_hash(plain) == "95b1dd189ba252b395117430db94996f1190b8b2e05a0b0e04e69144c77bdc60"


def test_a_torn_checkpoint_is_passed_over_with_a_message(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = Checkpoints.of(tmp_path, {"seed": 1})
    for step in (1, 2, 3):
        checkpoints.save(State(step, {"t": torch.full((3,), float(step))}, {"losses": [0.5] * step}))
    assert sorted(f.name for f in checkpoints.folder.glob("*.safetensors")) == [
        "step-0000002.safetensors",
        "step-0000003.safetensors",
    ]
    last = checkpoints.last_path()
    assert last is not None
    last.write_bytes(last.read_bytes()[:-1])
    state = checkpoints.latest()
    assert state is not None
    assert (state.step, state.tensors["t"].tolist(), len(state.facts["losses"])) == (2, [2, 2, 2], 2)
    assert "damaged" in caplog.text
    checkpoints._path(2).with_suffix(".json").write_text("{")
    assert checkpoints.latest() is None
    checkpoints.remove()
    assert not checkpoints.folder.exists()


def test_a_run_with_other_inputs_never_sees_these_checkpoints(tmp_path: Path) -> None:
    one, other = Checkpoints.of(tmp_path, {"seed": 1}), Checkpoints.of(tmp_path, {"seed": 2})
    one.save(State(1, {"t": torch.zeros(1)}, {}))
    assert other.latest() is None
    other.save(State(1, {"t": torch.zeros(1)}, {}))
    other.remove()
    assert one.latest() is not None


def test_two_processes_learn_what_one_does_with_twice_the_accumulation(tmp_path: Path) -> None:
    # without a GPU, too, that is the flag for several processes on one machine: they talk by gloo
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2"]
    launch += ["--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0"]
    ended = subprocess.run(
        [*launch, str(ROOT / "tests/two_processes.py"), str(tmp_path), str(tiny_bases.sdxl_folder())],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    both = {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    alone = run(tmp_path / "alone", config(gradient_accumulation_steps=2, eval_every=2))
    shared, single = (json.loads(files["run"]) for files in (both, alone))
    np.testing.assert_allclose(shared["losses"], single["losses"], rtol=1e-5)
    assert shared["eval_metrics"].keys() == single["eval_metrics"].keys()
    weights = [load(files["pytorch_lora_weights.safetensors"]) for files in (both, alone)]
    for name, weight in weights[0].items():
        torch.testing.assert_close(weight, weights[1][name], rtol=1e-3, atol=1e-5)


def test_a_run_that_gets_worse_stops_early_and_ends_at_its_best_look(tmp_path: Path) -> None:
    cfg = config(
        max_steps=12, learning_rate=3.0, eval_every=1, best_metric="val_loss", early_stopping_patience=2
    )
    came = json.loads(run(tmp_path, cfg)["run"])
    val_losses = {int(step): figures["val_loss"] for step, figures in came["eval_metrics"].items()}
    best = min(val_losses, key=lambda step: val_losses[step])
    assert len(came["losses"]) == best + 2 < 12


def test_a_loss_a_hundred_times_the_first_ones_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = DiffusionLoss.__call__

    def wild(self: DiffusionLoss, step: int, rows: Any, slots: Any) -> torch.Tensor:
        return real(self, step, rows, slots) * (1e6 if step == 22 else 1)

    monkeypatch.setattr(DiffusionLoss, "__call__", wild)
    said = r"loss of step 23 is \d.*: lower train_lora.learning_rate; .*step-0000020"
    with pytest.raises(LossDivergedError, match=said):
        run(tmp_path, config(max_steps=30, save_every=5))


def test_another_instruction_set_is_another_kind_of_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = processor_kind("cpu")
    assert platform.machine() in kind
    other = {**torch.cpu.get_capabilities(), "amx_tile": "amx_tile" not in kind.split()}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: other)
    assert processor_kind("cpu") != kind
