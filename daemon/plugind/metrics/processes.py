"""What the daemon's own processes use, as the kernel tells this one. What it does not tell is left out."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeVar

import psutil
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

Value = TypeVar("Value")
_FAMILIES: Final = (
    ("plugind_process_resident_memory_bytes", "Resident memory of the daemon's own process, bytes", GaugeMetricFamily),
    ("plugind_process_cpu_seconds", "CPU time that it has used, user and system", CounterMetricFamily),
    ("plugind_process_open_fds", "Descriptors that it has open", GaugeMetricFamily),
    ("plugind_process_threads", "Its threads", GaugeMetricFamily),
)


class Processes(Collector):
    """Processes by the name of their part. They are found by pid and start, so that none takes another's place."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        """One that is not seen, as below ProtectProc=invisible (systemd.exec(5)), is left out."""
        found = {part: _told(functools.partial(psutil.Process, pid)) for part, pid in pids.items()}
        self._processes = {part: process for part, process in found.items() if process is not None}

    def collect(self) -> Iterator[Metric]:
        """One sample for each process that tells."""
        told = {part: _values(process) for part, process in self._processes.items()}
        for index, (name, text, kind) in enumerate(_FAMILIES):
            family = kind(name, text, labels=("part",))
            for part, values in told.items():
                if (value := values[index]) is not None:
                    family.add_metric((part,), value)
            yield family


def _values(process: psutil.Process) -> tuple[float | None, ...]:
    """In the order of the families."""
    if not _told(process.is_running):
        return (None,) * len(_FAMILIES)
    with process.oneshot():
        times = _told(process.cpu_times)
        return (
            _told(lambda: process.memory_info().rss),
            None if times is None else times.user + times.system,
            _told(process.num_fds),
            _told(process.num_threads),
        )


def _told(read: Callable[[], Value]) -> Value | None:
    try:
        return read()
    except (psutil.Error, OSError):
        return None
