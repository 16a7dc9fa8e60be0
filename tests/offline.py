"""Runs code that may ask no address, native code and child processes included: Linux's seccomp.

Whoever asks one, be it to look up a name, ends with SIGSYS, after a traceback of all threads. That a socket
is opened is nothing: libraries do when they are imported, to find out what the machine can.
"""

import ctypes
import faulthandler
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

NUMBERS = {"x86_64": (0xC000003E, 42, 44), "aarch64": (0xC00000B7, 203, 206)}
"""Machine -> the kernel's name of it and the numbers of its system calls `connect` and `sendto`."""

LOAD, JUMP, JUMP_IF_EQUAL, RETURN = 0x20, 0x05, 0x15, 0x06
ALLOW, TRAP = 0x7FFF0000, 0x00030000
MACHINE, NUMBER, THIRD, SIXTH = 4, 0, 16 + 2 * 8, 16 + 5 * 8
"""Where a program finds what is called, and the two calls' arguments that say how long the address is."""

IPV4, IPV6 = 16, 28
"""Bytes of an address; those of this machine's own sockets, such as of a name service, have others."""

PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, FILTER = 22, 38, 2


class Instruction(ctypes.Structure):
    """One of a BPF program; `yes` and `no` are how many are left out."""

    _fields_ = (
        ("code", ctypes.c_ushort), ("yes", ctypes.c_ubyte), ("no", ctypes.c_ubyte), ("k", ctypes.c_uint),
    )  # fmt: skip


class Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(Instruction)))


def close_network() -> None:
    """Have this process and its children end where they connect to, or send to, an address."""
    machine, connect, sendto = NUMBERS[platform.machine()]
    program = [
        (LOAD, 0, 0, MACHINE), (JUMP_IF_EQUAL, 0, 8, machine),
        (LOAD, 0, 0, NUMBER), (JUMP_IF_EQUAL, 3, 0, connect), (JUMP_IF_EQUAL, 0, 5, sendto),
        (LOAD, 0, 0, SIXTH), (JUMP, 0, 0, 1),
        (LOAD, 0, 0, THIRD),
        (JUMP_IF_EQUAL, 2, 0, IPV4), (JUMP_IF_EQUAL, 1, 0, IPV6),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, TRAP),
    ]  # fmt: skip
    instructions = (Instruction * len(program))(*(Instruction(*each) for each in program))
    libc = ctypes.CDLL(None, use_errno=True)
    faulthandler.register(signal.SIGSYS, all_threads=True, chain=True)
    asked = ctypes.byref(Program(len(program), instructions))
    for call in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, FILTER, asked, 0, 0)):
        if libc.prctl(*call):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def run(code: str, *arguments: str | Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Return what Python `code` with these `sys.argv[1:]` did without a network."""
    if platform.system() != "Linux" or platform.machine() not in NUMBERS:
        pytest.skip("sockets are watched by Linux's seccomp on x86_64 and aarch64")
    paths = os.pathsep.join([str(TESTS), str(TESTS.parent / "src")])
    begun = "import offline; offline.close_network()\n"
    return subprocess.run(
        [sys.executable, "-c", begun + code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": paths, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
