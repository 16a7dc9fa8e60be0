"""What tests of serving draw with, a published package of a random base, and a PostgreSQL of their own."""

import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

import packages
import steering
from once import built_once
from programs import program
from valentina_pipeline.datasets.folders import OutputFolder
from valentina_pipeline.serving.jobs import worker_process

IMPORTED = (
    "diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl",
    "diffusers.pipelines.controlnet.pipeline_controlnet_sd_xl",
    "peft",
    "cv2",
    "valentina_pipeline.serving.inference.engine",
    "valentina_pipeline.serving.jobs.worker",
)
"""What a process that draws imports, in its own words or its libraries'."""


@cache
def _forked() -> BaseContext:
    context = multiprocessing.get_context("forkserver")
    forkserver._forkserver._stop()  # type: ignore[attr-defined]  # of an earlier test: it imported less
    context.set_forkserver_preload(list(IMPORTED))
    return context


@pytest.fixture(scope="session", autouse=True)
def warm_processes() -> Iterator[None]:
    """Fork the processes that draw from one that has imported what they need, which takes each half a minute.

    Servers that tests start as programs spawn theirs, as they do for users.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker_process, "multiprocessing", SimpleNamespace(get_context=lambda _: _forked()))
        yield


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package that this test process may change: its own copy of what one of them built."""

    def publish(place: Path) -> None:
        base = packages.base() | {"controlnets": {"canny": str(steering.controlnet("sdxl", 1))}}
        OutputFolder(filepath=str(place / "package")).save(packages.built(place, base=base))

    whole = built_once(tmp_path_factory, "published", publish) / "package"
    return shutil.copytree(whole, tmp_path_factory.mktemp("package") / "package")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A PostgreSQL server on loopback; gives the URL of its first database."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    who = "postgres" if os.geteuid() == 0 else None  # it refuses to be root
    if who:
        shutil.chown(folder, who)
    data, quiet = str(folder / "data"), {"cwd": folder, "user": who, "stdout": subprocess.DEVNULL}
    made = [program("initdb"), "-D", data, "--username", "test", "--auth", "trust", "--no-sync"]
    subprocess.run(made, check=True, **quiet)  # type: ignore[call-overload]
    listens = ["-p", str(port), "-h", "127.0.0.1", "-k", str(folder), "-F"]
    server = subprocess.Popen([program("postgres"), "-D", data, *listens], stderr=subprocess.DEVNULL, **quiet)  # type: ignore[call-overload]
    try:
        url = f"postgresql+psycopg://test@127.0.0.1:{port}/postgres"
        _answers(url)
        yield url
    finally:
        server.send_signal(signal.SIGINT)  # SIGTERM would wait for those that are connected
        server.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres(postgres_server: str) -> str:
    """The URL of an empty database."""
    name = f"test_{uuid.uuid4().hex}"
    engine = create_engine(postgres_server, isolation_level="AUTOCOMMIT")
    with engine.connect() as db:
        db.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return f"{postgres_server.removesuffix('postgres')}{name}"


def _answers(url: str) -> None:
    deadline = time.monotonic() + 30
    engine = create_engine(url)
    while True:
        try:
            with engine.connect():
                engine.dispose()
                return
        except OperationalError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
