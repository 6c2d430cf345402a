"""Computes on several cores with the faster backend equal stock PHOEBE; failing helpers."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import zlib

import computes
import numpy as np
import phoebe
import pytest
from harness import Worker, descendants, group_members, wait_until
from phoebe.dependencies import distl

from phoebe_worker import accelerate, backend, parallel, random_numbers  # noqa: F401 - patches
from phoebe_worker.parallel import frames, helpers, pool

TOLERANCE = 1e-12


@pytest.fixture(autouse=True, scope="module")
def _quiet():
    phoebe.progressbars_off()


@pytest.fixture
def forks(monkeypatch):
    """The number of helpers started. Even short frames are distributed."""
    monkeypatch.setattr(frames, "FORK_SECONDS", 0.0)
    started = []
    start = helpers._Team._start_helper
    monkeypatch.setattr(
        helpers._Team, "_start_helper", lambda team: (started.append(1), start(team))
    )
    yield started
    parallel.grant(1)
    accelerate.uninstall()


def outcome(name: str):
    """All values of the model, or the error."""
    seed = zlib.crc32(name.encode())
    try:
        bundle, options = computes.CASES[name](np.random.default_rng(seed))
    except Exception as error:
        pytest.fail(f"the case cannot be built: {error}")
    np.random.seed(seed % 2**32)
    try:
        bundle.run_compute(model="computed", **options)
    except Exception as error:
        return type(error), str(error)
    values = {}
    for parameter in bundle.filter(
        context="model", model="computed", check_visible=False, check_default=False
    ).to_list():
        place = parameter.qualifier, parameter.dataset, parameter.component, parameter.time
        values[place] = parameter.get_value()
    return values


@pytest.mark.parametrize("name", computes.CASES)
def test_same_as_stock(name, forks):
    accelerate.uninstall()
    stock = outcome(name)
    assert accelerate.install() == []
    parallel.grant(2 + len(name) % 2)
    ours = outcome(name)
    if name in computes.FAILING:
        assert isinstance(stock, tuple), "the case must fail"
        assert ours == stock
        return
    assert isinstance(stock, dict), stock
    assert forks, "no helper was started"
    assert isinstance(ours, dict), ours
    assert ours.keys() == stock.keys()
    for place, expected in stock.items():
        assert_same(ours[place], expected, place)


RANDOM = {"sampled_uniqueids"}


def assert_same(found, expected, place) -> None:
    if place[0] in RANDOM:
        assert len(found) == len(expected)
    elif isinstance(expected, np.ndarray) and expected.dtype.kind == "f":
        scale = np.max(np.abs(expected[np.isfinite(expected)]), initial=0.0)
        np.testing.assert_allclose(
            found, expected, rtol=TOLERANCE, atol=TOLERANCE * scale, err_msg=str(place)
        )
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=TOLERANCE, nan_ok=True), place
    else:
        assert np.all(found == expected), place


# Helpers that fail


@pytest.fixture
def three_cores():
    before = descendants(os.getpid())  # the zygote of other tests
    parallel.grant(3)
    yield
    parallel.grant(1)
    assert descendants(os.getpid()) == before


def in_helper(owner: int = os.getpid()) -> bool:
    return os.getpid() != owner


def slowly(index: int) -> int:
    """Take long enough for helpers to start."""
    signal.sigtimedwait([], 0.002)
    return index


def test_results_are_in_order_and_shared_out(three_cores):
    pids = helpers.distribute(200, lambda index: (slowly(index), os.getpid()))
    assert [index for index, _ in pids] == list(range(200))
    assert len({pid for _, pid in pids}) == 3


def test_large_results_do_not_block(three_cores):
    results = helpers.distribute(40, lambda index: np.full(200_000, slowly(index)))
    assert [int(result[-1]) for result in results] == list(range(40))


def draw(index: int) -> list[float]:
    """Every third piece draws random numbers: from NumPy, Python, and like a distribution."""
    slowly(index)
    if index % 3:
        return []
    one_parameter = distl.DistributionCollection(distl.uniform(0, 1))
    return [np.random.random(), random.random(), float(one_parameter.sample(size=1)[0, 0])]


@pytest.mark.parametrize("repeatable", [True, False])
def test_random_numbers_are_those_of_a_loop(three_cores, repeatable):
    done: list[list[float]] = []
    random_numbers.seed_random_numbers(7)
    shared = helpers.distribute(90, draw, done.append, repeatable=repeatable)
    after = random_numbers.capture()
    random_numbers.seed_random_numbers(7)
    assert shared == [draw(index) for index in range(90)]
    assert after == random_numbers.capture()
    assert sorted(done) == sorted(shared)
    for numbers in zip(*shared[::3], strict=True):
        assert len(set(numbers)) == 30


def test_a_piece_that_fails_for_its_random_numbers_alone_is_computed_again(three_cores):
    """In a serial loop the second piece that draws gets another number, and succeeds."""
    random_numbers.seed_random_numbers(7)
    first = np.random.random()
    random_numbers.seed_random_numbers(7)

    def compute(index: int) -> float:
        number = np.random.random() if slowly(index) in (50, 70) else 0.5
        if index == 70 and number == first:
            raise ValueError(index)
        return number

    results = helpers.distribute(200, compute)
    assert results[50] == first
    assert results[70] not in (first, 0.5)
    assert results.count(0.5) == 198


def test_unrepeatable_pieces_are_computed_by_helpers(three_cores):
    pids = helpers.distribute(60, lambda index: (slowly(index), os.getpid())[1], repeatable=False)
    assert len(set(pids)) == 3
    assert os.getpid() not in pids


def test_the_first_failure_is_raised_with_the_traceback_of_its_helper(three_cores):
    def compute(index: int) -> int:
        if index >= 50:
            raise KeyError(f"frame {index}")
        return slowly(index)

    with pytest.raises(KeyError, match="frame 50") as caught:
        helpers.distribute(200, compute)
    cause = caught.value.__cause__
    assert cause is None or "in compute" in str(cause)


def test_an_exception_that_cannot_be_pickled_keeps_its_text(three_cores):
    class Odd(Exception):
        def __reduce__(self):
            raise TypeError

    def compute(index: int) -> int:
        if in_helper():
            raise Odd("strange")
        return slowly(index)

    with pytest.raises(RuntimeError, match="Odd: strange"):
        helpers.distribute(200, compute)


def test_memory_that_runs_out_in_a_helper_is_the_failure(three_cores):
    def compute(index: int) -> int:
        if in_helper():
            raise MemoryError
        return slowly(index)

    with pytest.raises(MemoryError):
        helpers.distribute(200, compute)


@pytest.mark.parametrize(
    ("end", "text"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), r"killed \(SIGKILL\)"),
        (lambda: ctypes.string_at(0), r"crashed \(SIGSEGV\)"),
        (lambda: os._exit(7), r"exit code 7"),
    ],
    ids=["killed", "crashed", "gone"],
)
def test_the_end_of_a_helper_is_the_failure(three_cores, end, text):
    def compute(index: int) -> int:
        if in_helper() and index > 20:
            end()
        return slowly(index)

    with pytest.raises(parallel.HelperDied, match=text):
        helpers.distribute(200, compute)


def test_helpers_start_no_helpers(three_cores):
    assert set(helpers.distribute(60, lambda index: (slowly(index), helpers.granted())[1])) == {1}
    assert helpers.granted() == 3


@pytest.mark.parametrize(("count", "processes"), [(1, 2), (2, 2), (201, 2), (100_000, 16)])
def test_chunks_cover_everything_once(count, processes):
    bounds = helpers.chunks(count, processes)
    assert [i for first, end in bounds for i in range(first, end)] == list(range(count))
    assert len(bounds) * 4 <= 65536


# The samplers' pool


def test_failed_samples_of_helpers_are_not_lost(three_cores, monkeypatch):
    from phoebe.solverbackends import solverbackends

    failed: list[int] = []
    monkeypatch.setattr(solverbackends, "failed_samples_buffer", failed, raising=False)

    def probability(index: int) -> int:
        if index % 3 == 0:
            failed.append(index)
        return slowly(index)

    assert pool.HelperPool().map(probability, range(90)) == list(range(90))
    assert failed == list(range(0, 90, 3))


def test_a_function_that_draws_each_time_is_called_in_a_loop(three_cores):
    def walk(index: int) -> tuple[float, bool]:
        slowly(index)
        return np.random.random(), in_helper()

    shared_out = pool.HelperPool()
    random_numbers.seed_random_numbers(7)
    results = [list(shared_out.map(walk, range(8))) for _ in range(2)]
    random_numbers.seed_random_numbers(7)
    expected = [[walk(index)[0] for index in range(8)] for _ in range(2)]
    assert [[number for number, _ in each] for each in results] == expected
    assert results[0][0][1], "the first is computed by a helper"
    assert not any(helper for _, helper in results[1])


def test_differential_evolution_is_the_same(forks):
    def fitted(cores: int):
        parallel.grant(cores)
        random_numbers.seed_random_numbers(1)
        b = computes.bundle()
        times = np.linspace(0, 1, 6)
        rvs, sigmas = np.cos(6.28 * times) * 50, np.full(6, 5.0)
        b.add_dataset("rv", times=times, rvs=rvs, sigmas=sigmas, dataset="rv01")
        b.set_value_all("rv_method", "dynamical")
        b.add_solver("differential_evolution", solver="de", fit_parameters=["incl@binary"])
        b.add_distribution({"incl@binary": phoebe.uniform(70, 89)}, distribution="around")
        b.set_value("bounds@de", ["around"])
        b.run_solver("de", maxiter=1, popsize=4, polish=False, solution="fit")
        return list(b.get_value("fitted_values@fit"))

    accelerate.uninstall()
    stock = fitted(1)
    assert accelerate.install() == []
    assert fitted(3) == stock
    assert forks


# A real worker


def light_curve(connection, count: int, triangles: int) -> None:
    phases = np.linspace(-0.5, 0.5, count).tolist()
    connection.result(
        "add_dataset", kind="lc", dataset="lc01", compute_phases=phases, passband="Johnson:V"
    )
    for star in ("primary", "secondary"):
        connection.result("set_value", twig=f"ntriangles@{star}@phoebe01", value=triangles)


def test_a_worker_computes_on_the_granted_cores(start_worker):
    connection = start_worker().wait_ready()
    light_curve(connection, 40, 300)
    alone = connection.result("run_compute")
    seq = connection.start("run_compute", cores=3)
    together = connection.reply(seq)[1]["result"]
    assert together == alone
    assert any(0 < (p["fraction"] or 0) <= 1 for p in connection.progress if p["seq"] == seq)


def helpers_of(worker: Worker) -> list[int]:
    """The helpers of the active runner."""
    runner = worker.runner()
    wait_until(lambda: len(descendants(runner)) == 2, "two helpers")
    return descendants(runner)


def test_cancel_while_helpers_work_leaves_no_process(start_worker):
    worker = start_worker()
    connection = worker.wait_ready()
    light_curve(connection, 400, 1500)
    seq = connection.start("run_compute", cores=3)
    at_work = helpers_of(worker)
    lowered = min(os.getpriority(os.PRIO_PROCESS, worker.pid) + 10, 19)
    assert all(os.getpriority(os.PRIO_PROCESS, pid) == lowered for pid in at_work)
    assert set(at_work) < set(group_members(worker.pid))
    connection.cancel(seq, "enough")
    assert connection.reply(seq)[1]["error"] == "Cancelled: enough"
    wait_until(lambda: group_members(worker.pid) == [worker.pid], "only the worker is left")
    assert connection.result("ping")


def test_a_killed_helper_is_the_commands_failure(start_worker):
    worker = start_worker()
    connection = worker.wait_ready()
    light_curve(connection, 400, 1500)
    seq = connection.start("run_compute", cores=3)
    os.kill(helpers_of(worker)[0], signal.SIGKILL)
    answer = connection.reply(seq)[1]
    assert answer["success"] is False
    assert "A helper of the computation was killed (SIGKILL)" in answer["error"]
    wait_until(lambda: group_members(worker.pid) == [worker.pid], "only the worker is left")
    assert connection.result("get_datasets")
