"""Tracker that measures the machine while a run goes on."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from drytrack.core import _current, log_events
from drytrack.core.exceptions import ConfigurationError, MissingDependencyError
from drytrack.core.track import Tracker

if TYPE_CHECKING:
    from drytrack.core.run import Run

__all__ = ["SystemMonitor"]

SOURCE = "system"
AXIS = "seconds"

FIRST_S = 1.0
"""Seconds until the first measurement at the latest: short runs have one too."""

_MB = 1e6
_GB = 1e9

_logger = logging.getLogger("drytrack")


class SystemMonitor(Tracker):
    """Publishes the load of CPU, memory, disk, network and GPUs at intervals.

    They are step metrics of the source ``system`` on the axis ``seconds``, which
    counts from the creation of the run; of several in one second the newest counts.
    A thread of its own measures; what it cannot find out (in a container, say) is
    left out. GPUs are found by pynvml, where that is installed. On a rank that does
    not track, nothing is measured.

    Args:
        interval_s: Seconds between two measurements.
    """

    name = "system"
    notify = Tracker.notify.extend()

    def __init__(self, interval_s: float = 10.0) -> None:
        super().__init__()
        if not 0 < interval_s < float("inf"):
            msg = f"interval_s is {interval_s!r}. Pass a positive number of seconds."
            raise ConfigurationError(msg)
        if importlib.util.find_spec("psutil") is None:
            msg = (
                'SystemMonitor needs the psutil package: pip install "drytrack[system]"'
            )
            raise MissingDependencyError(msg)
        self.interval_s = interval_s
        self._over = threading.Event()

    @notify.register
    def _begin(self, event: log_events.StartExperimentEvent) -> None:
        # A new one: where runs overlap, this is a copy that shares the old one.
        self._over = threading.Event()
        run = _current.context_run()
        if run is None or run.id != event.run_id or run.status != "running":
            return  # a replay: the machine of then is gone
        created = event.run_ts.timestamp()
        thread = threading.Thread(
            target=self._work,
            args=(run, created, self._over),
            name="drytrack-system",
            daemon=True,
        )
        thread.start()

    @notify.register
    def _end(self, event: log_events.StopExperimentEvent) -> None:
        # Not joined: it may be waiting for the very lock that is held here.
        self._over.set()

    def clean_up(self) -> None:
        """Stop measuring."""
        self._over.set()

    def _work(self, run: Run[Any], created: float, over: threading.Event) -> None:
        try:
            probe = SystemProbe()
            pause_s = min(FIRST_S, self.interval_s)
            while not over.wait(pause_s):
                pause_s = self.interval_s
                elapsed_s = int(time.time() - created)
                event = log_events.StepMetricEvent.unpublished(
                    SOURCE, elapsed_s, probe.read(), axis=AXIS
                )
                # Under the lock, nothing can come between the question and the event.
                with run.bus.lock:
                    if not over.is_set():
                        run._publish(event)
        except Exception as err:  # noqa: BLE001  # a user's warning turned into an error, say
            _logger.warning("The system is no longer measured: %r", err)


class SystemProbe:
    """Reads the load of the machine; rates are since the reading before."""

    def __init__(self) -> None:
        """Start the first interval.

        Raises:
            MissingDependencyError: If psutil is not installed.
        """
        try:
            import psutil
        except ModuleNotFoundError as err:
            msg = (
                'System metrics need the psutil package: pip install "drytrack[system]"'
            )
            raise MissingDependencyError(msg) from err
        self._psutil = psutil
        self._process = psutil.Process()
        self._counters: dict[str, tuple[float, tuple[float, ...]]] = {}
        self._gpus = _find_gpus()
        self.read()  # the percentages of the first call mean nothing

    def read(self) -> dict[str, float]:
        """Return what can be found out: name → value, units in the names."""
        metrics: dict[str, float] = {}
        for part in (self._cpu, self._memory, self._disk, self._network, *self._gpus):
            try:
                metrics.update(part())
            except Exception as err:  # noqa: BLE001  # any platform's refusal
                _logger.debug("cannot be measured: %r", err)
        return metrics

    def _cpu(self) -> Iterator[tuple[str, float]]:
        yield "cpu_percent", self._psutil.cpu_percent()
        yield "process_cpu_percent", self._process.cpu_percent()
        yield "process_threads", self._process.num_threads()

    def _memory(self) -> Iterator[tuple[str, float]]:
        memory = self._psutil.virtual_memory()
        yield "memory_percent", memory.percent
        yield "memory_used_gb", (memory.total - memory.available) / _GB
        yield "process_memory_gb", self._process.memory_info().rss / _GB

    def _disk(self) -> Iterator[tuple[str, float]]:
        yield "disk_percent", self._psutil.disk_usage(".").percent
        io = self._psutil.disk_io_counters()  # None where there is no disk
        if io is not None:
            names = ("disk_read_mb_s", "disk_write_mb_s")
            yield from self._rates(names, (io.read_bytes, io.write_bytes))

    def _network(self) -> Iterator[tuple[str, float]]:
        io = self._psutil.net_io_counters()
        if io is not None:
            names = ("network_sent_mb_s", "network_received_mb_s")
            yield from self._rates(names, (io.bytes_sent, io.bytes_recv))

    def _rates(
        self, names: tuple[str, ...], counts: tuple[float, ...]
    ) -> Iterator[tuple[str, float]]:
        now = time.monotonic()
        before = self._counters.get(names[0])
        self._counters[names[0]] = now, counts
        if before is None or now <= before[0]:
            return
        for name, new, old in zip(names, counts, before[1], strict=True):
            # A counter of the kernel may wrap, or begin anew.
            yield name, max(0.0, new - old) / (now - before[0]) / _MB


def _find_gpus() -> list[Callable[[], Iterator[tuple[str, float]]]]:
    """Return what reads each GPU of NVIDIA."""
    if importlib.util.find_spec("pynvml") is None:
        return []
    try:
        pynvml = importlib.import_module("pynvml")
        pynvml.nvmlInit()
        handles = [
            pynvml.nvmlDeviceGetHandleByIndex(index)
            for index in range(pynvml.nvmlDeviceGetCount())
        ]
    except Exception as err:  # noqa: BLE001  # no driver, or an older one
        _logger.debug("GPUs cannot be measured: %r", err)
        return []

    def reader(index: int, handle: Any) -> Callable[[], Iterator[tuple[str, float]]]:
        def read() -> Iterator[tuple[str, float]]:
            load = pynvml.nvmlDeviceGetUtilizationRates(handle)
            yield f"gpu_{index}_percent", load.gpu
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            yield f"gpu_{index}_memory_percent", 100 * memory.used / memory.total
            kind = pynvml.NVML_TEMPERATURE_GPU
            degrees = pynvml.nvmlDeviceGetTemperature(handle, kind)
            yield f"gpu_{index}_temperature_c", degrees
            yield f"gpu_{index}_power_w", pynvml.nvmlDeviceGetPowerUsage(handle) / 1e3

        return read

    return [reader(index, handle) for index, handle in enumerate(handles)]
