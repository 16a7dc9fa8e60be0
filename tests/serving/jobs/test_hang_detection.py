"""Silence of a process that draws: how much of it is too much."""

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import pytest

from valentina_pipeline.serving.jobs import hang_detection
from valentina_pipeline.serving.jobs.hang_detection import HangDetector, Patience


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_step_may_take_three_times_the_longest_one_and_never_less_than_ten_seconds() -> None:
    clock = Clock()
    patience = Patience(clock)
    patience.begin("portrait")
    assert patience.seconds == hang_detection.FIRST_TIMEOUT_SECONDS["beginning"]
    clock.now = 40.0
    patience.end_phase("stepping")
    assert patience.seconds == 120  # the first step took no longer than what came before it
    for seconds in (6.0, 8.0, 2.0):
        clock.now += seconds
        patience.end_phase("stepping")
    assert patience.seconds == 24
    clock.now += 0.1
    patience.end_phase("finishing")
    assert patience.seconds == 240  # thirty steps, as it was not seen yet
    clock.now += 1.0
    patience.end_phase("beginning")
    assert patience.seconds == 120
    patience.begin("another size")
    assert patience.seconds == hang_detection.FIRST_TIMEOUT_SECONDS["beginning"]
    patience.begin("portrait")
    clock.now += 0.1
    patience.end_phase("stepping")
    clock.now += 0.1
    patience.end_phase("finishing")
    assert patience.seconds == hang_detection.MIN_TIMEOUT_SECONDS


def _idle(line: Connection) -> None:
    line.recv()


def _busy(line: Connection) -> None:
    while not line.poll():
        pass


@pytest.fixture
def spawned() -> Iterator[list[BaseProcess]]:
    started: list[BaseProcess] = []
    yield started
    for each in started:
        each.kill()
        each.join()


def _started(work: object, spawned: list[BaseProcess]) -> tuple[BaseProcess, Connection]:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(theirs,), daemon=True)  # type: ignore[arg-type]
    process.start()
    spawned.append(process)
    return process, ours


@pytest.mark.parametrize("work", [_idle, _busy])
def test_a_process_that_was_stopped_is_ended_long_before_what_was_never_seen_is_over(
    work: object, spawned: list[BaseProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(hang_detection.IDLE_TIMEOUT_SECONDS, "loading", 1.0)
    process, _ = _started(work, spawned)
    os.kill(process.pid or 0, signal.SIGSTOP)
    watch = HangDetector(process)
    with watch.listening():
        process.join(10)
    assert not process.is_alive()
    assert "while loading, without CPU time" in watch.hung


def test_what_works_without_a_word_is_given_its_time_and_no_more(
    spawned: list[BaseProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(hang_detection.IDLE_TIMEOUT_SECONDS, "loading", 0.6)
    monkeypatch.setitem(hang_detection.FIRST_TIMEOUT_SECONDS, "loading", 2.5)
    process, _ = _started(_busy, spawned)
    watch = HangDetector(process)
    with watch.listening():
        time.sleep(1.2)
        assert process.is_alive()
        process.join(10)
    assert watch.hung.startswith("hung: no message for ")
    assert "no processor" not in watch.hung


def test_nobody_is_ended_who_is_not_listened_to(
    spawned: list[BaseProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(hang_detection.IDLE_TIMEOUT_SECONDS, "loading", 0.3)
    process, line = _started(_idle, spawned)
    watch = HangDetector(process)
    time.sleep(1.5)
    assert process.is_alive() and not watch.hung
    watch.end()
    line.send(None)
    process.join(10)
