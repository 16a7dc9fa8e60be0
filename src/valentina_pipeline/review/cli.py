"""The command `kedro review`: the review page on this machine."""

import getpass
import subprocess
import webbrowser
from pathlib import Path

import click


@click.command()
@click.option("--concept", help="Whose dataset; without, the first of params.yaml's concepts.")
@click.option("--port", default=8900, show_default=True, help="On this machine only; 0 takes a free one.")
@click.option("--editor", help="Who you are, for captions.csv; without, git's user.name.")
@click.option("--no-browser", is_flag=True, help="Only print the address.")
@click.pass_obj
def review(metadata: object, concept: str | None, port: int, editor: str | None, no_browser: bool) -> None:
    r"""Look at what will be learned: accept or reject portraits and mend captions, with the keyboard.

    \b
    Every change is written at once to data/04_feature/CONCEPT/captions.csv, with who made it and when.
    What a person wrote wins, survives every rerun, and the next `dvc repro` trains on it; a rejected
    portrait takes no part. Ctrl-C ends it.
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
            f"port {port} is taken ({err.strerror}): choose another by --port"
        ) from err
    address = f"http://127.0.0.1:{bound.getsockname()[1]}/"
    click.echo(f"{count} pictures of {dataset.concept}: {address}   (Ctrl-C ends it; every change is saved)")
    if not no_browser:
        webbrowser.open(address)
    server = uvicorn.Server(configure(create_app(dataset, editor or _user(root))))
    with bound:
        server.run(sockets=[bound])


def _user(root: Path) -> str:
    try:
        named = subprocess.run(
            ["git", "config", "user.name"], cwd=root, capture_output=True, text=True, timeout=10, check=False
        )
        return named.stdout.strip() or getpass.getuser()
    except (OSError, KeyError, subprocess.SubprocessError):
        return "unknown"
