"""An app on a real socket of this machine, in a thread of the test's process."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from valentina_pipeline.integrations.bounded import configure


@contextmanager
def listening(app: Any) -> Iterator[str]:
    """Serve an app as the commands do; give its address, without a slash at the end."""
    bound = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(configure(app))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(60)
        bound.close()
