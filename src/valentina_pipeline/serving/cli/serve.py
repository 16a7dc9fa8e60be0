"""The command `kedro serve`, which `python -m valentina_pipeline.serving` is too."""

import ipaddress
import socket
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from valentina_pipeline.common.atomic_files import private
from valentina_pipeline.serving.inference.request import Engine

if TYPE_CHECKING:
    from filelock import FileLock

    from valentina_pipeline.serving.inference.package import PackageInfo


@click.command()
@click.argument("package", required=False)
@click.option(
    "--concept", help="Whose package of this project; without, the first of params.yaml's concepts."
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Another than this machine's needs --keys."
)
@click.option("--port", default=8800, show_default=True, help="0 takes a free one.")
@click.option("--base", help="A folder or hub id of the base model, where the package embeds none.")
@click.option("--engine", type=click.Choice(get_args(Engine)), default="torch", show_default=True)
@click.option(
    "--compile", is_flag=True, help="torch: the first images take half a minute longer, further ones less."
)
@click.option(
    "--threads", type=click.IntRange(min=1), help="Of the processor, for drawing; without, all but one."
)
@click.option("--or-renderer", is_flag=True, help="Draw by the renderer, labelled, where no network loads.")
@click.option("--adapters", type=click.Path(path_type=Path), help="A folder of further LoRAs: adapters.yml.")
@click.option(
    "--fallback",
    help="A package, such as models:/NAME@former, that draws once images are no longer like her.",
)
@click.option("--keys", type=click.Path(path_type=Path), help="A file of API keys; see --new-key.")
@click.option(
    "--new-key", metavar="NAME", help="Print a new key and its lines for the file of keys, and end."
)
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    default=Path("served"),
    show_default=True,
    help="A folder for the queue and, for a day, the images.",
)
@click.option("--database", help="The queue elsewhere: postgresql+psycopg://USER@HOST/NAME.")
@click.option("--queue", default=256, show_default=True, help="Jobs that may wait; further ones get a 429.")
@click.option("--origin", "origins", multiple=True, help="A site whose pages may call; may be repeated.")
@click.option("--log-prompts", is_flag=True, help="Write prompts to the log, which else has none.")
@click.pass_obj
def serve(
    metadata: object,
    package: str | None,
    concept: str | None,
    host: str,
    port: int,
    base: str | None,
    engine: Engine,
    compile: bool,
    threads: int | None,
    or_renderer: bool,
    adapters: Path | None,
    fallback: str | None,
    keys: Path | None,
    new_key: str | None,
    state: Path,
    database: str | None,
    queue: int,
    origins: tuple[str, ...],
    log_prompts: bool,
) -> None:
    r"""Serve a published PACKAGE by HTTP: a page, jobs with progress, OpenAI's and A1111's calls, metrics.

    PACKAGE is a folder or models:/NAME@champion of the registry; without, this project's.

    \b
      kedro serve
      curl localhost:8800/v1/generations --json '{"prompt": "smiling, beach background"}'
    The API explains itself at /docs. Ctrl-C lets what is being drawn end; what waits is drawn after
    the next start from the same --state.
    """
    import uvicorn
    from starlette.middleware.cors import CORSMiddleware

    from valentina_pipeline.integrations.bounded import configure
    from valentina_pipeline.serving import logs
    from valentina_pipeline.serving.api.app import create_app
    from valentina_pipeline.serving.api.auth import ApiKeyAuth, create_key, read_keys
    from valentina_pipeline.serving.api.service import GenerationService
    from valentina_pipeline.serving.inference.adapters import read_adapters
    from valentina_pipeline.serving.inference.control_models import read_controls
    from valentina_pipeline.serving.jobs.database import UnavailableError, sqlite
    from valentina_pipeline.serving.jobs.dispatcher import Dispatcher
    from valentina_pipeline.serving.jobs.metrics import Metrics
    from valentina_pipeline.serving.jobs.store import JobStore
    from valentina_pipeline.serving.jobs.worker import WorkerConfig
    from valentina_pipeline.serving.packages import open_package, signing_folder

    if new_key:
        key, lines = create_key(new_key)
        click.echo(f"{key}\n\nIt is shown this once. The file of keys says of it:\n\n{lines}", nl=False)
        return
    root = Path(getattr(metadata, "project_path", Path.cwd()))
    try:
        about = open_package(root, package, concept)
        former = _alike(open_package(root, fallback, None), about) if fallback else None
        if compile and engine != "torch":
            raise ValueError(f"--compile is for --engine torch, not for {engine}")
        known = read_keys(keys) if keys else {}
        if not known and not _is_loopback(host):
            raise ValueError(f"--host {host} lets others in: --keys names who may ask, --new-key makes one")
        shelf = read_adapters(adapters, about) if adapters else {}
        controls = read_controls(about, root, adapters)
        bound = _bound(host, port)  # before anything of the state is touched
        private(state)
        # servers that share a PostgreSQL may share the folder of images too
        lock = None if database else _locked(state)
        store = JobStore(database or sqlite(state), queue, alone=lock is not None)
    except (ValueError, OSError) as err:  # what is wrong with a file is a ValueError
        raise click.ClickException(str(err)) from err
    except (ImportError, UnavailableError) as err:
        where = f"--database {database}" if database else str(state / "jobs.sqlite")
        raise click.ClickException(f"{where}: {err}") from err
    metrics = Metrics()
    keyed = signing_folder(root) if (root / "conf").is_dir() else state / "c2pa"
    opening = WorkerConfig(about.folder, keyed, base, root, adapters, engine, or_renderer, compile, threads)
    desk = Dispatcher(store, about, opening, state / "images", metrics, fallback=former)
    gate = ApiKeyAuth(known)
    app = create_app(GenerationService(shelf, desk, gate, metrics, log_prompts, engine, controls, root))
    if origins:
        app.add_middleware(CORSMiddleware, allow_origins=origins, allow_methods=["*"], allow_headers=["*"])
    logs.configure()
    click.echo(f"{about.name}: http://{host}:{bound.getsockname()[1]}   (its API: /docs; Ctrl-C ends it)")
    with bound:
        uvicorn.Server(configure(app, log_config=None)).run(sockets=[bound])


def _bound(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        ValueError: the port is taken, or the host is not this machine's.
    """
    try:
        return socket.create_server((host, port))
    except OSError as err:
        why, _, _ = str(err.strerror or err).partition(" (")
        said = f"--host {host} --port {port} cannot be listened at: {why}"
        raise ValueError(f"{said}; end the server that does, or give another --port") from err


def _locked(state: Path) -> "FileLock":
    """Return the lock of a state folder, which is kept for as long as this process lives.

    Raises:
        ValueError: another server has it.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(state / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as err:
        raise ValueError(
            f"--state {state} is another server's, which runs: end it, or give another folder; "
            "servers that are to share a queue take --database"
        ) from err
    return lock


def _alike(fallback: "PackageInfo", about: "PackageInfo") -> "PackageInfo":
    """Return the fallback, which has to draw what was asked of the other.

    Raises:
        ValueError: it is of another character or base.
    """
    if (fallback.trigger, fallback.base_hash) != (about.trigger, about.base_hash):
        raise ValueError(f"--fallback: {fallback.folder} is of another character or base than {about.folder}")
    return fallback


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
