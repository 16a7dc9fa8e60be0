"""The command `kedro review`: serve the review page on this machine."""

import getpass
import subprocess
import webbrowser
from pathlib import Path

import click


@click.command()
@click.option("--concept", help="Concept of the dataset; default: the first concept of params.yaml.")
@click.option("--port", default=8900, show_default=True, help="Port on this machine; 0 takes a free one.")
@click.option("--editor", help="Your name for captions.csv; default: git's user.name.")
@click.option("--no-browser", is_flag=True, help="Print the address without opening a browser.")
@click.pass_obj
def review(metadata: object, concept: str | None, port: int, editor: str | None, no_browser: bool) -> None:
    r"""Review the training images: accept or reject portraits and correct captions, with the keyboard.

    \b
    Every change is written immediately to data/04_feature/CONCEPT/captions.csv, with editor and time.
    Human edits override machine captions and survive every rerun; the next `dvc repro` trains on them.
    Rejected portraits are excluded. Ctrl-C stops the server.
    """
    import socket

    import uvicorn

    from valentina_pipeline.config.effective import first_concept
    from valentina_pipeline.integrations.bounded import configure
    from valentina_pipeline.integrations.captions import InvalidCaptionsError
    from valentina_pipeline.review.app import create_app
    from valentina_pipeline.review.dataset import Dataset, NotReadyError

    root = Path(getattr(metadata, "project_path", Path.cwd()))
    dataset = Dataset(root, concept or first_concept(root))
    try:
        count = len(dataset.portraits())
        bound = socket.create_server(("127.0.0.1", port))
    except (NotReadyError, InvalidCaptionsError) as err:
        raise click.ClickException(str(err)) from err
    except OSError as err:
        raise click.ClickException(
            f"--port {port} cannot be used ({err.strerror}): set another port"
        ) from err
    address = f"http://127.0.0.1:{bound.getsockname()[1]}/"
    click.echo(f"{count} images of {dataset.concept}: {address}   (Ctrl-C stops; every change is saved)")
    if not no_browser:
        webbrowser.open(address)
    server = uvicorn.Server(configure(create_app(dataset, editor or _user(root))))
    with bound:
        server.run(sockets=[bound])


def _user(root: Path) -> str:
    try:
        result = subprocess.run(
            ["git", "config", "user.name"], cwd=root, capture_output=True, text=True, timeout=10, check=False
        )
        return result.stdout.strip() or getpass.getuser()
    except (OSError, KeyError, subprocess.SubprocessError):
        return "unknown"
