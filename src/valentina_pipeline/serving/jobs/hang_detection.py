"""Hang detection: kill the worker process when it sends no message for too long.

A process can hang although it is alive: a driver waits for a GPU, a lock is never released, SIGSTOP. Only
progress counts as a sign of life, not the heartbeat of a thread.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import Literal

import psutil

Phase = Literal["loading", "beginning", "stepping", "finishing", "idle"]
"""Until the networks are loaded; until the first step; until the next step; from the last step to images;
until an idle process answers."""

MAX_TIMES_LONGEST = 3
"""A phase may take this many times its longest duration so far."""

MIN_TIMEOUT_SECONDS = 10.0
"""Minimum timeout: a busy machine may stall for some seconds."""

FIRST_TIMEOUT_SECONDS: dict[Phase, float] = {
    "loading": 1800.0,
    "beginning": 600.0,
    "stepping": 600.0,
    "finishing": 60.0,
    "idle": 60.0,
}
"""Timeouts of phases without a measured duration: disks are slow, and torch compiles for minutes."""

MAX_FINISHING_STEPS = 30
"""Timeout of the first finishing phase in steps: it decodes, filters, compares faces and signs."""

IDLE_TIMEOUT_SECONDS: dict[Phase, float] = {
    "loading": 120.0,
    "beginning": 15.0,
    "stepping": 15.0,
    "finishing": 15.0,
    "idle": 15.0,
}
"""Timeouts without any CPU time, which end a phase before its timeout."""

CHECK_SECONDS = 0.25
MAX_CHECK_SECONDS = 1.0
"""Seconds between checks; a longer interval means that this process itself was stopped."""

MAX_KINDS = 256
"""Kinds of batches with remembered durations."""


class Patience:
    """Timeouts between messages, from the durations measured so far.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._longest: dict[tuple[object, Phase], float] = {}
        self.phase: Phase = "loading"
        self._kind: object = None
        self._began = clock()

    def begin(self, kind: object, phase: Phase = "beginning") -> None:
        """Start the phase of a batch's first step, or `phase`. Batches of one `kind` take equally long."""
        if len(self._longest) > len(FIRST_TIMEOUT_SECONDS) * MAX_KINDS:
            self._longest.clear()
        self._kind, self.phase, self._began = kind, phase, self._clock()

    def end_phase(self, following: Phase) -> None:
        """Record the duration of the current phase and start the following one."""
        now, key = self._clock(), (self._kind, self.phase)
        self._longest[key] = max(self._longest.get(key, 0.0), now - self._began)
        self.phase, self._began = following, now

    @property
    def seconds(self) -> float:
        """Timeout of the current phase."""
        longest = self._longest.get((self._kind, self.phase))
        first = self._longest.get((self._kind, "beginning"))  # it includes a step
        if longest is None and self.phase == "stepping":
            longest = first
        if longest is not None:
            return max(MIN_TIMEOUT_SECONDS, MAX_TIMES_LONGEST * longest)
        step = self._longest.get((self._kind, "stepping"), first or 0.0)
        return max(
            FIRST_TIMEOUT_SECONDS[self.phase],
            MAX_FINISHING_STEPS * step if self.phase == "finishing" else 0.0,
        )


class HangDetector:
    """Kills a process that sends no message within its timeout while the server waits for one.

    A separate thread checks, because the receiving thread may block on an incomplete message.

    Args:
        process: to watch.

    Attributes:
        patience: its timeouts.
        hung: why the process was killed, else "".
    """

    def __init__(self, process: BaseProcess) -> None:
        self.patience = Patience()
        self.hung = ""
        self._process = process
        self._listening = False
        self._silent = self._idle = self._used = 0.0
        self._stopped = threading.Event()
        threading.Thread(target=self._watch, name="hang-detector", daemon=True).start()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Expect inside the block that the process sends or receives a message within its timeout."""
        self._silent = self._idle = 0.0
        self._listening = True
        try:
            yield
        finally:
            self._listening = False

    def end(self) -> None:
        """Stop watching."""
        self._stopped.set()

    def _watch(self) -> None:
        before = time.monotonic()
        while not self._stopped.wait(CHECK_SECONDS):
            now = time.monotonic()
            if self._listening:
                self._count(min(now - before, MAX_CHECK_SECONDS))
            before = now

    def _count(self, seconds: float) -> None:
        used = _cpu_seconds(self._process.pid)
        self._idle = self._idle + seconds if used == self._used else 0.0
        self._used = used
        self._silent += seconds
        phase, timeout = self.patience.phase, self.patience.seconds
        if self._silent > timeout or self._idle > min(IDLE_TIMEOUT_SECONDS[phase], timeout):
            idle = ", without CPU time" if self._idle > IDLE_TIMEOUT_SECONDS[phase] else ""
            self.hung = f"hung: no message for {self._silent:.0f} s while {phase}{idle}"
            self._process.kill()
            self._stopped.set()


def _cpu_seconds(pid: int | None) -> float:
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return -1.0  # it is gone, which the receiving thread detects
    return times.user + times.system
