"""How many images a second does a server give to many clients at once, against one image at a time?

    uv run python benchmarks/serve.py                   # the project's package, 200 clients, a minute each
    uv run python benchmarks/serve.py PACKAGE --clients 50 --seconds 20

Each client posts a request, asks for its job until it has ended, fetches the image and begins again.
The same load is served twice, with like requests drawn together and one by one. Prints images a second
and their ratio, how long a client waited (p50, p99), what was lost, and the share of the time in which
nothing was drawn although jobs waited: the cost of API and queue.
"""

import argparse
import asyncio
import multiprocessing
import socket
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "data/06_models/valentina_moreau/package"
PATIENCE = 300.0
"""Seconds that a client waits for its last job."""

STEPS = 6


@dataclass
class Seen:
    """What the clients saw."""

    waited: list[float] = field(default_factory=list)
    refused: int = 0
    errors: int = 0
    lost: int = 0
    hidden: int = 0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("package", nargs="?", type=Path, default=PACKAGE)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60.0)
    asked = parser.parse_args()
    together = measure(asked.package, asked.clients, asked.seconds, batching=True)
    alone = measure(asked.package, asked.clients, asked.seconds, batching=False)
    print(f"drawn together: {together / alone:.2f} times as many as one at a time")


def measure(package: Path, clients: int, seconds: float, batching: bool) -> float:
    """Return images a second."""
    context = multiprocessing.get_context("spawn")
    bound = socket.create_server(("127.0.0.1", 0), backlog=clients)
    with tempfile.TemporaryDirectory(prefix="serve-") as state:
        server = context.Process(target=serve, args=(package, Path(state), bound, batching))
        server.start()
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        bound.close()
        try:
            rate = asyncio.run(load(url, clients, seconds, batching))
        finally:
            server.terminate()
            server.join()
    return rate


def serve(package: Path, state: Path, bound: socket.socket, batching: bool) -> None:
    import uvicorn

    from valentina_pipeline.integrations.bounded import configure
    from valentina_pipeline.serving.api.app import create_app
    from valentina_pipeline.serving.api.auth import ApiKeyAuth
    from valentina_pipeline.serving.api.service import GenerationService
    from valentina_pipeline.serving.inference.package import read
    from valentina_pipeline.serving.jobs.database import sqlite
    from valentina_pipeline.serving.jobs.dispatcher import Dispatcher
    from valentina_pipeline.serving.jobs.metrics import Metrics
    from valentina_pipeline.serving.jobs.store import JobStore
    from valentina_pipeline.serving.jobs.worker import WorkerConfig

    store, metrics = JobStore(sqlite(state)), Metrics()
    desk = Dispatcher(
        store, read(package), WorkerConfig(package, state / "c2pa"), state / "images", metrics, batching
    )
    app = create_app(GenerationService({}, desk, ApiKeyAuth({}), metrics))
    uvicorn.Server(configure(app)).run(sockets=[bound])


async def load(url: str, clients: int, seconds: float, batching: bool) -> float:
    # below the time after which the server closes an idle connection
    limits = httpx.Limits(max_connections=clients, keepalive_expiry=2)
    seen = Seen()
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as http:
        while True:
            try:
                if (await http.get("/readyz")).status_code == 200:
                    break
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.2)
        begun, drew = time.monotonic(), await drawing(http)
        until = begun + seconds
        work = [asyncio.create_task(client(http, number, until, seen)) for number in range(clients)]
        await asyncio.sleep(seconds)
        busy, passed, finished = await drawing(http) - drew, time.monotonic() - begun, len(seen.waited)
        await asyncio.gather(*work)
    p50, p99 = np.percentile(seen.waited, [50, 99])
    print(f"{'drawn together' if batching else 'one at a time'}, {clients} clients, {passed:.0f} s")
    print(f"  {finished / passed:.2f} images a second; a client waited p50 {p50:.1f} s, p99 {p99:.1f} s")
    print(
        f"  {len(seen.waited)} images, {seen.lost} lost, {seen.errors} of 5xx, {seen.refused} of 429, "
        f"{seen.hidden} hidden by the content filter"
    )
    print(f"  {1 - busy / passed:.1%} of the time nothing was drawn")
    return finished / passed


async def client(http: httpx.AsyncClient, number: int, until: float, seen: Seen) -> None:
    seed = number * 1_000_000
    while (begun := time.monotonic()) < until:
        seed += 1
        body = {"prompt": "smiling, beach background", "seed": seed, "steps": STEPS}
        answer = await http.post("/v1/generations", json=body)
        seen.errors += answer.status_code >= 500
        if answer.status_code != 202:
            seen.refused += answer.status_code == 429
            await asyncio.sleep(float(answer.headers.get("retry-after", 1)))
            continue
        job = answer.json()
        while job["state"] in ("queued", "running") and time.monotonic() < until + PATIENCE:
            await asyncio.sleep(1.0)
            found = await http.get(f"/v1/jobs/{job['id']}")
            seen.errors += found.status_code >= 500
            job = found.json() if found.status_code == 200 else job
        if job["state"] != "done":
            seen.lost += 1
            continue
        (image,) = job["images"]
        if image["url"] is None:
            seen.hidden += 1
        else:
            seen.lost += (await http.get(image["url"])).status_code != 200
        seen.waited.append(time.monotonic() - begun)


async def drawing(http: httpx.AsyncClient) -> float:
    """Return how many seconds the server has been drawing."""
    for line in (await http.get("/metrics")).text.splitlines():
        if line.startswith("valentina_inference_seconds_total "):
            return float(line.split()[1])
    return 0.0


if __name__ == "__main__":
    main()
