"""One real zygote for the whole run, a fresh worker for each test.

Its workers have no root folder of their own, so that tests of Landlock test nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from harness import MISBEHAVING, Connection, Worker, Zygote


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    started = Zygote(MISBEHAVING + "; import every_method", {"readable": [], "scratch": "/nowhere"})
    started.wait_ready()
    yield started
    started.close()


@pytest.fixture
def start_worker(zygote: Zygote) -> Iterator[Callable[..., Worker]]:
    """Starts workers; at the end nothing of them may be left."""
    started: list[Worker] = []

    def start(**options: Any) -> Worker:
        worker = Worker(zygote, **options)
        started.append(worker)
        return worker

    yield start
    for worker in started:
        worker.close()


@pytest.fixture
def worker(start_worker: Callable[..., Worker]) -> Worker:
    started = start_worker()
    started.wait_ready()
    return started


@pytest.fixture
def connection(worker: Worker) -> Connection:
    return worker.connection
