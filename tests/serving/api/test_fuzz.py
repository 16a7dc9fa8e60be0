"""The whole OpenAPI against the API: whatever its schema lets through, and what it does not, is no 5xx."""

from collections import Counter
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error

from valentina_pipeline.serving.api.app import create_app
from valentina_pipeline.serving.api.auth import ApiKeyAuth
from valentina_pipeline.serving.api.service import GenerationService
from valentina_pipeline.serving.inference.package import read
from valentina_pipeline.serving.inference.request import ResolvedRequest
from valentina_pipeline.serving.jobs.database import sqlite
from valentina_pipeline.serving.jobs.dispatcher import Dispatcher
from valentina_pipeline.serving.jobs.job import Image, Job
from valentina_pipeline.serving.jobs.metrics import Metrics
from valentina_pipeline.serving.jobs.store import JobStore
from valentina_pipeline.serving.jobs.worker import WorkerConfig

pytestmark = pytest.mark.slow


class AtOnce(Dispatcher):
    """Has every job drawn at once, as a picture of nothing: the API is what is tried."""

    def start(self) -> None:
        self.ready = "nowhere"

    def stop(self, seconds: float = 30.0) -> None:
        pass

    def submit(self, owner: str, order: ResolvedRequest, images_per_day: int | None = None) -> Job:
        job = self.jobs.add(owner, order, images_per_day)
        self.jobs.pictures((job.id, Image(seed, "", "nothing was drawn")) for seed in order.seeds)
        self.jobs.end([job.id], "done")
        return self.jobs.get(job.id) or job


@pytest.fixture(scope="module")
def api(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    state = tmp_path_factory.mktemp("served")
    store, metrics = JobStore(sqlite(state)), Metrics()
    desk = AtOnce(store, read(package), WorkerConfig(package, state / "c2pa"), state / "images", metrics)
    app = create_app(GenerationService({}, desk, ApiKeyAuth({}), metrics))
    return schemathesis.openapi.from_asgi("/openapi.json", app, headers={"host": "localhost"})


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_no_request_is_an_error_of_the_server(api: Any, mode: GenerationMode) -> None:
    tried: Counter[str] = Counter()

    def answered(case: Any) -> None:
        tried[case.operation.label] += 1
        case.call_and_validate(checks=[not_a_server_error], headers={"host": "localhost"})

    for found in api.get_all_operations():
        operation = found.ok()
        if mode == GenerationMode.NEGATIVE and not operation.body and not operation.path_parameters:
            continue  # nothing about it can be wrong
        cases = hypothesis.given(case=operation.as_strategy(generation_mode=mode))
        hypothesis.settings(max_examples=25, suppress_health_check=list(hypothesis.HealthCheck))(
            cases(answered)
        )()
    assert min(tried["POST /v1/generations"], tried["POST /sdapi/v1/txt2img"]) >= 20
    assert tried["GET /v1/jobs/{job}"]
