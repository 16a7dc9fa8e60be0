"""Whether the process that draws still does: one that is silent for too long hangs, and is ended.

A process can hang and live: a driver that waits for a GPU, a lock that nobody gives back, SIGSTOP. Only
what it gets done counts as a sign of life, never a heartbeat of some thread in it.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import Literal

import psutil

Phase = Literal["loading", "beginning", "stepping", "finishing"]
"""Until the networks are there; until the first step; until the next one; from the last one to the images."""

TIMES = 3
"""As often as its longest time so far a phase may take."""

LEAST = 10.0
"""Seconds of silence that are never too long: a busy machine stands still for some."""

UNSEEN: dict[Phase, float] = {"loading": 1800.0, "beginning": 600.0, "stepping": 600.0, "finishing": 60.0}
"""Seconds of a phase that was not seen yet: disks are slow, and torch compiles for minutes."""

FINISHING_STEPS = 30
"""Steps that the first finishing may take: it decodes, filters, compares faces and signs."""

STILL: dict[Phase, float] = {"loading": 120.0, "beginning": 15.0, "stepping": 15.0, "finishing": 15.0}
"""Seconds without any use of a processor: a phase that was never seen need not be waited out then."""

TICK = 0.25
LONGEST_TICK = 1.0
"""Seconds between two looks; more has passed only where this process itself was stopped."""

MOST_KINDS = 256
"""Kinds of batches whose times are remembered."""


class Patience:
    """Learns how long a process takes from one message to the next, and tells how long it may.

    Args:
        clock: seconds, from anywhere.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._longest: dict[tuple[object, Phase], float] = {}
        self.phase: Phase = "loading"
        self._kind: object = None
        self._began = clock()

    def begin(self, kind: object) -> None:
        """Expect the first step of a batch; those of one `kind` take equally long."""
        if len(self._longest) > len(UNSEEN) * MOST_KINDS:
            self._longest.clear()
        self._kind, self.phase, self._began = kind, "beginning", self._clock()

    def heard(self, expected: Phase) -> None:
        """Take note that the phase has ended, and that this one follows."""
        now, key = self._clock(), (self._kind, self.phase)
        self._longest[key] = max(self._longest.get(key, 0.0), now - self._began)
        self.phase, self._began = expected, now

    @property
    def seconds(self) -> float:
        """How long the phase may take."""
        seen = self._longest.get((self._kind, self.phase))
        first = self._longest.get((self._kind, "beginning"))  # it includes a step
        if seen is None and self.phase == "stepping":
            seen = first
        if seen is not None:
            return max(LEAST, TIMES * seen)
        step = self._longest.get((self._kind, "stepping"), first or 0.0)
        return max(UNSEEN[self.phase], FINISHING_STEPS * step if self.phase == "finishing" else 0.0)


class HangDetector:
    """Ends a process that keeps silent for too long while somebody listens to it.

    A thread of its own looks, as the one that listens may be held by half a message.

    Args:
        process: that is watched.

    Attributes:
        patience: how long it may be silent.
        hung: why the process was ended, "" where it was not.
    """

    def __init__(self, process: BaseProcess) -> None:
        self.patience = Patience()
        self.hung = ""
        self._process = process
        self._listening = False
        self._silent = self._still = self._used = 0.0
        self._over = threading.Event()
        threading.Thread(target=self._watch, name="pulse", daemon=True).start()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Have the process say something, or take what it is sent, inside the block and in time."""
        self._silent = self._still = 0.0
        self._listening = True
        try:
            yield
        finally:
            self._listening = False

    def end(self) -> None:
        """Watch no longer."""
        self._over.set()

    def _watch(self) -> None:
        before = time.monotonic()
        while not self._over.wait(TICK):
            now = time.monotonic()
            if self._listening:
                self._count(min(now - before, LONGEST_TICK))
            before = now

    def _count(self, seconds: float) -> None:
        used = _processor_seconds(self._process.pid)
        self._still = self._still + seconds if used == self._used else 0.0
        self._used = used
        self._silent += seconds
        phase, most = self.patience.phase, self.patience.seconds
        if self._silent > most or self._still > min(STILL[phase], most):
            used_none = ", and used no processor" if self._still > STILL[phase] else ""
            self.hung = f"hung: nothing came of it for {self._silent:.0f} s while {phase}{used_none}"
            self._process.kill()
            self._over.set()


def _processor_seconds(pid: int | None) -> float:
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return -1.0  # it is gone, which the one who listens finds out
    return times.user + times.system
