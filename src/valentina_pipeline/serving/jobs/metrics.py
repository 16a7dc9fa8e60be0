"""Metrics of a server, for Prometheus."""

import math

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

BUCKETS_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Metrics of one server, in a separate registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.jobs = Counter(
            "valentina_jobs", "Jobs that ended or were rejected", ["outcome"], registry=self.registry
        )
        self.images = Counter(
            "valentina_images",
            "Images generated or blocked by the filter",
            ["outcome"],
            registry=self.registry,
        )
        self.phase_duration = Histogram(
            "valentina_phase_duration_seconds",
            "Time in the queue, generation of a batch, latency until a response begins",
            ["phase"], buckets=BUCKETS_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.batch = Histogram(
            "valentina_batch_images",
            "Images of a batch",
            buckets=(1, 2, 4, 8, 16, 64),
            registry=self.registry,
        )
        self.identity = Histogram(
            "valentina_identity", "Identity similarity of generated faces to the character's portraits",
            buckets=tuple(n / 10 for n in range(1, 10)), registry=self.registry,
        )  # fmt: skip
        self.faces = Counter(
            "valentina_faces", "Images with or without a face", ["outcome"], registry=self.registry
        )
        self.rolling_identity = Gauge(
            "valentina_rolling_identity", "Mean identity of the latest images by the character's LoRA alone",
            registry=self.registry,
        )  # fmt: skip
        self.rolling_face_detection_rate = Gauge(
            "valentina_rolling_face_detection_rate", "Share of the same images in which a face was detected",
            registry=self.registry,
        )  # fmt: skip
        for gauge in (self.rolling_identity, self.rolling_face_detection_rate):
            gauge.set(math.nan)  # until images are measured: 0 would look like a failure
        self.fallback_active = Gauge(
            "valentina_fallback_active", "1 while the fallback package is in use",
            registry=self.registry,
        )  # fmt: skip
        self.queue_depth = Gauge("valentina_queue_depth", "Jobs waiting in the queue", registry=self.registry)
        self.memory = Gauge(
            "valentina_memory_bytes", "Memory of the server and its worker process", registry=self.registry
        )
        self.loading = Gauge(
            "valentina_loading_seconds", "Last start of the worker process, by phase",
            ["phase"], registry=self.registry,
        )  # fmt: skip
        self.worker_restarts = Counter(
            "valentina_worker_restarts",
            "Restarts of the worker process after a crash",
            registry=self.registry,
        )
        self.inference_seconds = Counter(
            "valentina_inference_seconds", "Machine time spent on generation; times its price: the cost",
            registry=self.registry,
        )  # fmt: skip

    def count_images(self, images: int, seconds: float) -> None:
        """Record a batch: its images and its duration in seconds."""
        self.batch.observe(images)
        self.phase_duration.labels("inference").observe(seconds)
        self.inference_seconds.inc(seconds)
