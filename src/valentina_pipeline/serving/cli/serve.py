"""The command `kedro serve`, also available as `python -m valentina_pipeline.serving`."""

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
    "--concept", help="Concept of this project's package; default: the first concept of params.yaml."
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; other than loopback requires --api-keys.",
)
@click.option("--port", default=8800, show_default=True, help="Port; 0 takes a free one.")
@click.option("--base", help="Folder or hub id of the base model, if the package embeds none.")
@click.option("--engine", type=click.Choice(get_args(Engine)), default="torch", show_default=True)
@click.option(
    "--compile",
    is_flag=True,
    help="torch only: the first images take half a minute longer, further images less time.",
)
@click.option(
    "--num-threads", type=click.IntRange(min=1), help="CPU threads for generation; default: all but one."
)
@click.option(
    "--fallback-renderer",
    is_flag=True,
    help="If no network can be loaded, use the renderer and label its images.",
)
@click.option("--lora-dir", type=click.Path(path_type=Path), help="Folder of further LoRAs with loras.yml.")
@click.option(
    "--fallback-package",
    help="Package, such as models:/NAME@previous, to use once identity scores fall too low.",
)
@click.option("--api-keys", type=click.Path(path_type=Path), help="File of API keys; see --create-api-key.")
@click.option(
    "--create-api-key", metavar="NAME", help="Print a new key and its lines for the file of keys, and exit."
)
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path),
    default=Path("served"),
    show_default=True,
    help="Folder for the queue and, for a day, the images.",
)
@click.option("--database", help="Database of the queue: postgresql+psycopg://USER@HOST/NAME.")
@click.option(
    "--max-queue",
    default=256,
    show_default=True,
    help="Maximum number of waiting jobs; further requests get a 429.",
)
@click.option(
    "--cors-origin",
    "cors_origins",
    multiple=True,
    help="Site whose pages may call the API (CORS); may be repeated.",
)
@click.option("--log-prompts", is_flag=True, help="Write prompts to the log, which has none by default.")
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
    num_threads: int | None,
    fallback_renderer: bool,
    lora_dir: Path | None,
    fallback_package: str | None,
    api_keys: Path | None,
    create_api_key: str | None,
    state_dir: Path,
    database: str | None,
    max_queue: int,
    cors_origins: tuple[str, ...],
    log_prompts: bool,
) -> None:
    r"""Serve a published PACKAGE by HTTP: a page, jobs with progress, OpenAI's and A1111's APIs, metrics.

    PACKAGE is a folder or models:/NAME@champion of the registry; default: this project's package.

    \b
      kedro serve
      curl localhost:8800/v1/generations --json '{"prompt": "smiling, beach background"}'
    The API is documented at /docs. Ctrl-C finishes the running job; waiting jobs run after the next
    start with the same --state-dir.
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

    if create_api_key:
        key, lines = create_key(create_api_key)
        click.echo(f"{key}\n\nThe key is shown only once. Add to the file of keys:\n\n{lines}", nl=False)
        return
    root = Path(getattr(metadata, "project_path", Path.cwd()))
    try:
        about = open_package(root, package, concept)
        fallback = (
            _check_fallback(open_package(root, fallback_package, None), about) if fallback_package else None
        )
        if compile and engine != "torch":
            raise ValueError(f"--compile requires --engine torch (got {engine})")
        keys = read_keys(api_keys) if api_keys else {}
        if not keys and not _is_loopback(host):
            raise ValueError(
                f"--host {host} is open to other machines: set --api-keys (--create-api-key creates one)"
            )
        shelf = read_adapters(lora_dir, about) if lora_dir else {}
        controls = read_controls(about, root, lora_dir)
        bound = _bind(host, port)  # before the state folder is changed
        private(state_dir)
        # servers that share a PostgreSQL may share the folder of images too
        lock = None if database else _lock(state_dir)
        store = JobStore(database or sqlite(state_dir), max_queue, alone=lock is not None)
    except (ValueError, OSError) as err:  # errors in files are ValueErrors
        raise click.ClickException(str(err)) from err
    except (ImportError, UnavailableError) as err:
        where = f"--database {database}" if database else str(state_dir / "jobs.sqlite")
        raise click.ClickException(f"{where}: {err}") from err
    metrics = Metrics()
    key_folder = signing_folder(root) if (root / "conf").is_dir() else state_dir / "c2pa"
    config = WorkerConfig(
        about.folder, key_folder, base, root, lora_dir, engine, fallback_renderer, compile, num_threads
    )
    dispatcher = Dispatcher(store, about, config, state_dir / "images", metrics, fallback=fallback)
    auth = ApiKeyAuth(keys)
    service = GenerationService(
        shelf, dispatcher, auth, metrics, log_prompts, engine, controls, root, key_folder
    )
    app = create_app(service)
    if cors_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=cors_origins, allow_methods=["*"], allow_headers=["*"]
        )
    logs.configure()
    click.echo(f"{about.name}: http://{host}:{bound.getsockname()[1]}   (API: /docs; Ctrl-C stops it)")
    with bound:
        uvicorn.Server(configure(app, log_config=None)).run(sockets=[bound])


def _bind(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        ValueError: the port is taken, or the host is not an address of this machine.
    """
    try:
        return socket.create_server((host, port))
    except OSError as err:
        reason, _, _ = str(err.strerror or err).partition(" (")
        raise ValueError(
            f"cannot listen on --host {host} --port {port}: {reason}; stop the other server or set --port"
        ) from err


def _lock(state_dir: Path) -> "FileLock":
    """Return the lock of the state folder, which this process holds until it ends.

    Raises:
        ValueError: another server holds it.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(state_dir / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as err:
        raise ValueError(
            f"--state-dir {state_dir} is in use by a running server: stop it, or set another folder; "
            "to share a queue between servers, use --database"
        ) from err
    return lock


def _check_fallback(fallback: "PackageInfo", about: "PackageInfo") -> "PackageInfo":
    """Return the fallback package, which must have the same character and base model.

    Raises:
        ValueError: the character or the base model differs.
    """
    if (fallback.trigger, fallback.base_hash) != (about.trigger, about.base_hash):
        raise ValueError(
            f"--fallback-package: {fallback.folder} must have the character and base model of {about.folder}"
        )
    return fallback


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
