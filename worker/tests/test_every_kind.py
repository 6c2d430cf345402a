"""Every kind that PHOEBE offers, in a worker, compared with stock PHOEBE in another process.

The lists are PHOEBE's: a kind that it has and the table of `kinds` lacks fails.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kinds
import numpy as np
import pytest
from harness import Connection, Worker, Zygote

from phoebe_worker import environment

LONG_SECONDS = 600.0


@cache
def stock() -> dict[str, Any]:
    """The results of the table with PHOEBE alone."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(Path(kinds.__file__))],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment.VARIABLES},
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def long_lived(zygote: Zygote) -> Iterator[Connection]:
    """One worker for the complete table."""
    worker = Worker(zygote)
    yield worker.wait_ready()
    worker.close()


def send(connection: Connection, step: kinds.Step, cores: int) -> dict[str, Any]:
    name, options = step
    if name in kinds.NO_COMMAND:
        name, options = "test_method", {"method": name, "options": options}
    return connection.reply(connection.start(name, cores, **options), LONG_SECONDS)[1]


def taken(connection: Connection, case: str, cores: int = 1) -> str:
    """Do all steps of a case in the worker; returns the Bundle in JSON, or an error."""
    connection.result("new_bundle")
    for step in kinds.CASES[case]:
        answer = send(connection, step, cores)
        if not answer["success"]:
            return answer["error"]
    return connection.result("get_bundle")["bundle"]


def same(here: Any, there: Any) -> bool:
    """Whether two values are equal, with a tolerance for floats."""
    if isinstance(here, dict) and isinstance(there, dict):
        return here.keys() == there.keys() and all(same(here[key], there[key]) for key in here)
    if isinstance(here, list) and isinstance(there, list):
        return len(here) == len(there) and all(map(same, here, there))
    if isinstance(here, float) and isinstance(there, float):
        return bool(np.isclose(here, there, rtol=1e-9, atol=1e-12, equal_nan=True))
    return bool(here == there)


def assert_as_stock(connection: Connection, case: str, cores: int = 1) -> None:
    here, alone = taken(connection, case, cores), stock()["cases"][case]
    if case in kinds.FAILING:
        assert kinds.FAILING[case] in here
        assert kinds.FAILING[case] in alone["error"]
        return
    assert "error" not in alone, alone
    assert here.startswith(("[", "{")), here
    ours, theirs = kinds.values(here), kinds.values(alone["bundle"])
    assert ours.keys() == theirs.keys()
    different = {name: (ours[name], theirs[name]) for name in ours
                 if not same(ours[name], theirs[name])}  # fmt: skip
    assert not different


@pytest.mark.parametrize("case", kinds.CASES)
def test_a_kind_gives_what_stock_phoebe_gives(long_lived: Connection, case: str) -> None:
    assert_as_stock(long_lived, case)


@pytest.mark.parametrize("case", ["sampler.dynesty", "sampler.emcee"])
def test_a_sampler_gives_the_same_on_two_cores(long_lived: Connection, case: str) -> None:
    assert_as_stock(long_lived, case, cores=2)


def used(command: str) -> set[str]:
    """The kinds that the steps of the table create with a command."""
    return {
        options["kind"]
        for steps in kinds.CASES.values()
        for name, options in steps
        if name == command
    }


@pytest.mark.parametrize("group", ["solver", "compute", "dataset", "feature", "figure"])
def test_the_table_has_every_kind(group: str) -> None:
    assert set(stock()["kinds"][group]) == used(f"add_{group}")


def test_the_table_has_every_kind_of_distribution() -> None:
    used = {
        options["value"]["distribution"].split()[0]
        for steps in kinds.CASES.values()
        for name, options in steps
        if name == "add_distribution"
    }
    assert set(stock()["kinds"]["distribution"]) == used


def test_the_table_has_every_kind_of_constraint() -> None:
    bundles = [case["bundle"] for case in stock()["cases"].values() if "bundle" in case]
    used = {kind for bundle in bundles for kind in kinds.constraints_of(bundle)}
    assert set(stock()["kinds"]["constraint"]) == used | set(kinds.UNREACHED)
    assert not used & set(kinds.UNREACHED)
