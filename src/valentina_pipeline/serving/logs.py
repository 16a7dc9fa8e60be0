"""Logs of a server and of the process that draws: one line a record, whatever texts of others are in it."""

import logging
import sys

FORMAT = "%(levelname)s %(name)s: %(message)s"
"""As conf/logging.yml has it."""


class OneLine(logging.Formatter):
    """Escapes control characters, so that no text within a record looks like another record."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        record.message = printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: object) -> str:
        """Return a traceback, indented: texts in it begin no line either."""
        lines = super().formatException(ei).splitlines()  # type: ignore[arg-type]
        return "\n".join(f"  {printable(line)}" for line in lines)


def printable(text: str) -> str:
    """Return a text with line ends, control characters and the like as Python escapes them."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def configure() -> None:
    """Have this process log to standard error: the pipeline's own messages, and everybody's warnings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine(FORMAT))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("valentina_pipeline").setLevel(logging.INFO)


def silence_prompts() -> None:
    """Have libraries that quote prompts in warnings keep them to themselves."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    for library in (of_diffusers, of_transformers):
        library.set_verbosity_error()
