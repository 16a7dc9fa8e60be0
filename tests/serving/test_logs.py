"""The log: a line a record, and prompts only where they are asked for."""

import io
import logging
from pathlib import Path

import pytest

import drawing
from valentina_pipeline.serving.api.auth import ApiKeyAuth
from valentina_pipeline.serving.api.service import GenerationService
from valentina_pipeline.serving.inference.request import GenerationRequest, parse_request
from valentina_pipeline.serving.jobs.database import sqlite
from valentina_pipeline.serving.jobs.store import JobStore
from valentina_pipeline.serving.logs import FORMAT, OneLine

FORGED = "at sea\nERROR valentina_pipeline.serving.jobs.dispatcher: the disk is on fire\r\u2028\x1b[2Jend"


def written(level: int, message: str, *arguments: object, error: bool = False) -> list[str]:
    """Return the lines that a record makes."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(OneLine(FORMAT))
    logger = logging.Logger("here")
    logger.addHandler(handler)
    logger.log(level, message, *arguments, exc_info=error)
    return stream.getvalue().splitlines()


def test_no_text_writes_a_line_of_its_own() -> None:
    (line,) = written(logging.INFO, "job of %s", FORGED)
    assert line.startswith("INFO here: job of at sea\\nERROR ")
    assert line.isprintable()
    try:
        raise ValueError(FORGED)
    except ValueError:
        first, *more = written(logging.ERROR, "failed", error=True)
    assert first == "ERROR here: failed"
    assert all(line.startswith("  ") and line.isprintable() for line in more)
    assert any("the disk is on fire" in line for line in more)


@pytest.mark.parametrize("log_prompts", [True, False])
def test_prompts_are_in_the_log_where_they_are_asked_for(
    package: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, log_prompts: bool
) -> None:
    jobs = JobStore(sqlite(tmp_path))
    desk = drawing.desk(jobs, package, tmp_path)
    server = GenerationService({}, desk, ApiKeyAuth({}), desk._metrics, log_prompts)
    with caplog.at_level(logging.INFO):
        job = server.submit("ada", GenerationRequest(prompt=FORGED)).id
    (message,) = [record.getMessage() for record in caplog.records if job in record.getMessage()]
    assert ("on fire" in message) == log_prompts
    assert message.isprintable()
    jobs.close()


def test_what_is_refused_says_nothing_of_the_prompt() -> None:
    with pytest.raises(ValueError, match="prompt: ") as err:
        parse_request({"prompt": "a secret" * 1000})
    told: BaseException | None = err.value
    while told is not None:
        assert "a secret" not in str(told)
        told = told.__cause__
