"""Metrics of a server, for Prometheus."""

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
        self.seconds = Histogram(
            "valentina_seconds", "Seconds: waiting in the queue, generation of a batch, latency of the API",
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
        self.recent = Gauge(
            "valentina_recent", "Latest images by the character's LoRA alone: mean identity, share of faces",
            ["figure"], registry=self.registry,
        )  # fmt: skip
        self.fallen_back = Gauge(
            "valentina_fallen_back", "1 while the fallback package is in use",
            registry=self.registry,
        )  # fmt: skip
        self.queue = Gauge("valentina_queue", "Jobs waiting in the queue", registry=self.registry)
        self.memory = Gauge(
            "valentina_memory_bytes", "Memory of the server and its worker process", registry=self.registry
        )
        self.loading = Gauge(
            "valentina_loading_seconds", "Last start of the worker process, by phase",
            ["phase"], registry=self.registry,
        )  # fmt: skip
        self.replaced = Counter(
            "valentina_replaced", "Restarts of the worker process after a crash", registry=self.registry
        )
        self.machine = Counter(
            "valentina_drawing_seconds", "Machine time spent on generation; times its price: the cost",
            registry=self.registry,
        )  # fmt: skip

    def count_images(self, images: int, seconds: float) -> None:
        """Record a batch: its images and its duration in seconds."""
        self.batch.observe(images)
        self.seconds.labels("drawing").observe(seconds)
        self.machine.inc(seconds)
