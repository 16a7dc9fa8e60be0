"""What a server counts, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """The figures of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.jobs = Counter(
            "valentina_jobs", "Jobs that ended, or were refused", ["outcome"], registry=self.registry
        )
        self.images = Counter(
            "valentina_images", "Images drawn, or refused by the filter", ["outcome"], registry=self.registry
        )
        self.seconds = Histogram(
            "valentina_seconds", "Waiting in the queue; drawing of a batch; answers of the API",
            ["phase"], buckets=SECONDS, registry=self.registry,
        )  # fmt: skip
        self.batch = Histogram(
            "valentina_batch_images",
            "Images of a batch",
            buckets=(1, 2, 4, 8, 16, 64),
            registry=self.registry,
        )
        self.identity = Histogram(
            "valentina_identity", "Likeness of drawn faces to the character's portraits",
            buckets=tuple(n / 10 for n in range(1, 10)), registry=self.registry,
        )  # fmt: skip
        self.faces = Counter(
            "valentina_faces", "Images with a face, or without", ["outcome"], registry=self.registry
        )
        self.recent = Gauge(
            "valentina_recent", "Of the last images by her LoRA alone: mean identity, share with a face",
            ["figure"], registry=self.registry,
        )  # fmt: skip
        self.fallen_back = Gauge(
            "valentina_fallen_back", "1 where the fallback draws in place of the package",
            registry=self.registry,
        )  # fmt: skip
        self.queue = Gauge("valentina_queue", "Jobs that wait", registry=self.registry)
        self.memory = Gauge(
            "valentina_memory_bytes", "Of the server and the process that draws", registry=self.registry
        )
        self.loading = Gauge(
            "valentina_loading_seconds", "The last start of a process that draws, by what it went to",
            ["phase"], registry=self.registry,
        )  # fmt: skip
        self.replaced = Counter(
            "valentina_replaced", "Processes that died while drawing", registry=self.registry
        )
        self.machine = Counter(
            "valentina_drawing_seconds", "Machine time spent on drawing: times its price, the cost",
            registry=self.registry,
        )  # fmt: skip

    def count_images(self, images: int, seconds: float) -> None:
        """Count a batch."""
        self.batch.observe(images)
        self.seconds.labels("drawing").observe(seconds)
        self.machine.inc(seconds)
