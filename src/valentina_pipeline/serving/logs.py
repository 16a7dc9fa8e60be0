"""Logging of the server and its worker process: one line per record, even with untrusted text in it."""

import logging
import sys

FORMAT = "%(levelname)s %(name)s: %(message)s"
"""Same format as in conf/logging.yml."""


class OneLine(logging.Formatter):
    """Escapes control characters, so that text within a record cannot imitate another record."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        record.message = printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: object) -> str:
        """Return an indented traceback, so that text in it cannot imitate a record."""
        lines = super().formatException(ei).splitlines()  # type: ignore[arg-type]
        return "\n".join(f"  {printable(line)}" for line in lines)


def printable(text: str) -> str:
    """Return the text with unprintable characters, such as line ends, as Python escapes."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def configure() -> None:
    """Log to standard error: messages of the pipeline from INFO, of libraries from WARNING."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine(FORMAT))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("valentina_pipeline").setLevel(logging.INFO)


def silence_prompts() -> None:
    """Silence warnings of libraries that quote prompts in them."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity_error()
