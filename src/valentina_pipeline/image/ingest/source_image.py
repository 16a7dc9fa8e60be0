"""Pictures as they came, and reading them: those behind a network many at once."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from valentina_pipeline.image.io.decode import brief


@dataclass(frozen=True)
class SourceImage:
    """A picture as it came.

    Attributes:
        name: a file name, relative to its source.
        content: reads the file, at most one byte more than `max_bytes`; can be pickled.
        attributes: what is known of it: trait -> word.
        version: names its content, such as by place, size and time; "" where nothing does.
        remote: reading waits for a network.
        caption: a person's, from a file beside it; "" where there is none.
        mask: says where to learn from it; a file beside it, if there is one.
    """

    name: str
    content: Callable[[], bytes]
    attributes: Mapping[str, str]
    version: str = ""
    remote: bool = False
    caption: str = ""
    mask: "SourceImage | None" = None


@contextmanager
def prefetch(originals: Iterable[SourceImage], at_once: int = 16) -> Iterator[Iterator[SourceImage]]:
    """Give the originals in order; the contents of remote ones are read ahead, many at once, into files.

    The files last as long as the block: workers may read them after the last original was asked for. A
    content that could not be read raises again where it is asked for.
    """
    with TemporaryDirectory(prefix="fetched-") as folder, ThreadPoolExecutor(at_once) as threads:
        yield _ahead(originals, Path(folder), threads, 2 * at_once)


def _ahead(
    originals: Iterable[SourceImage], folder: Path, threads: ThreadPoolExecutor, most: int
) -> Iterator[SourceImage]:
    waiting: deque[Future[SourceImage]] = deque()
    for number, original in enumerate(originals):
        waiting.append(threads.submit(_fetched, original, folder / str(number)))
        if len(waiting) >= most or not original.remote:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _fetched(original: SourceImage, file: Path) -> SourceImage:
    if not original.remote:
        return original
    try:
        file.write_bytes(original.content())
    except OSError as err:
        return replace(original, content=partial(_raised, brief(err)))
    return replace(original, content=partial(_taken, file))


def _raised(said: str) -> bytes:
    raise OSError(said)


def _taken(file: Path) -> bytes:
    content = file.read_bytes()
    file.unlink()
    return content
