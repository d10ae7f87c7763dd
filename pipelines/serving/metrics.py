"""What the server counts, for Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120)

PASS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


class Metrics:
    """Counters of one server; `render()` is the text that Prometheus reads."""

    def __init__(self, waiting: Callable[[], int], max_batch: int):
        self.registry = CollectorRegistry()
        self.requests = Counter("armchair_requests", "Answers", ["route", "status"], registry=self.registry)
        self.seconds = Histogram(
            "armchair_request_seconds", "From request to answer", ["route"], buckets=SECONDS, registry=self.registry
        )
        self.pictures = Counter("armchair_pictures", "Pictures painted", registry=self.registry)
        self.dropped = Counter(
            "armchair_dropped_requests", "Accepted, never answered with pictures", ["reason"], registry=self.registry
        )
        self.batch_size = Histogram(
            "armchair_batch_size", "Pictures of a pass", buckets=range(1, max_batch + 1), registry=self.registry
        )
        self.batch_seconds = Histogram(
            "armchair_batch_seconds",
            "A pass, with what it finished decoded",
            buckets=PASS_SECONDS,
            registry=self.registry,
        )
        Gauge("armchair_waiting_pictures", "Pictures in the queue", registry=self.registry).set_function(waiting)

    def observe_pass(self, size: int, finished: int, seconds: float) -> None:
        self.pictures.inc(finished)
        self.batch_size.observe(size)
        self.batch_seconds.observe(seconds)

    def render(self) -> bytes:
        return generate_latest(self.registry)
