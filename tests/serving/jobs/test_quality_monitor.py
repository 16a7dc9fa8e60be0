"""When what is served is no longer like her."""

from dataclasses import replace
from pathlib import Path

import pytest

from valentina_pipeline.serving.inference.package import PackageInfo, read
from valentina_pipeline.serving.inference.request import GenerationRequest, ResolvedRequest, resolve_request
from valentina_pipeline.serving.jobs.quality_monitor import WINDOW, QualityMonitor


@pytest.fixture(scope="module")
def about(package: Path) -> PackageInfo:
    about = read(package)
    return replace(about, identity=replace(about.identity, gate=0.7, face_detection_rate=0.9))


def orders(about: PackageInfo, count: int) -> list[ResolvedRequest]:
    return [resolve_request(GenerationRequest(prompt=f"scene {n}"), about) for n in range(count)]


def seen(about: PackageInfo, prompts: int, each: list[float | None]) -> QualityMonitor:
    watch = QualityMonitor(about)
    for order in orders(about, prompts):
        watch.add(order, each)
    return watch


def test_below_a_gate_it_says_which_and_by_how_much(about: PackageInfo) -> None:
    assert seen(about, 8, [0.8] * 4).failing == ""
    assert seen(about, 8, [0.6] * 4).failing == "the identity of the last 32 images is 0.60, below 0.70"
    said = "the share of the last 32 images with a face is 0.75, below 0.90"
    assert seen(about, 8, [0.8] * 3 + [None]).failing == said
    assert "0.00, below 0.90" in seen(about, 8, [None] * 4).failing


def test_few_images_or_few_scenes_are_no_verdict(about: PackageInfo) -> None:
    assert seen(about, 8, [0.1] * 3).failing == ""
    assert seen(about, 7, [0.1] * 9).failing == ""


def test_a_scene_that_is_asked_for_often_counts_as_one(about: PackageInfo) -> None:
    watch = seen(about, 8, [0.8] * 3)
    watch.add(orders(about, 1)[0], [0.1] * 30)
    assert watch.failing == ""
    assert watch.identity is not None and watch.identity > 0.7


def test_only_the_last_images_count(about: PackageInfo) -> None:
    watch = seen(about, 8, [0.1] * 8)
    assert watch.failing
    for order in orders(about, 8):
        watch.add(order, [0.9] * (WINDOW // 8))
    assert watch.failing == ""


def test_other_adapters_and_other_weights_do_not_count(about: PackageInfo) -> None:
    watch = QualityMonitor(about)
    weak = GenerationRequest(prompt="a", loras=({"name": about.trigger, "weight": 0.5},))
    watch.add(resolve_request(weak, about), [0.1])
    assert watch.identity is None
