"""Progress bars report instead of drawing, in all places of PHOEBE's source."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from harness import PACKAGE_DIRECTORY, Connection

from phoebe_worker import environment

LIBRARIES = ("phoebe", "emcee", "dynesty")


def sources(library: str) -> Iterator[tuple[str, ast.Module]]:
    """Names and syntax trees of all modules of a library."""
    spec = find_spec(library)
    assert spec is not None
    assert spec.origin is not None
    root = Path(spec.origin).parent
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        yield name, ast.parse(path.read_text())


def imported_as(tree: ast.Module) -> set[str]:
    """The names under which a module has tqdm's class."""
    return {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("tqdm")
        for alias in node.names
    }


def bars(tree: ast.Module, classes: set[str]) -> set[str]:
    """The variables that hold a bar."""

    def makes_bar(call: ast.expr) -> bool:
        return isinstance(call, ast.Call) and (
            (isinstance(call.func, ast.Name) and call.func.id in classes)
            or (isinstance(call.func, ast.Attribute) and call.func.attr.startswith("tqdm"))
        )

    return {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and makes_bar(node.value)
        for target in node.targets
        if isinstance(target, ast.Name)
    } | {"pbar"}  # by this name emcee and dynesty hand theirs to other functions


def attributes(tree: ast.Module, names: set[str]) -> set[str]:
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in names
    }


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Run code after PHOEBE's import in a process of its own."""
    prelude = (
        f"import os, sys; sys.path.insert(0, {str(PACKAGE_DIRECTORY)!r})\n"
        f"os.environ.update({environment.VARIABLES!r})\n"
        "import phoebe, tqdm\nfrom phoebe_worker import progress\n"
        "told = []\nprogress.report_to(told.append)\n"
    )
    return subprocess.run(
        [sys.executable, "-I", "-c", prelude + code], capture_output=True, text=True, check=True
    )


def test_every_name_of_tqdm_in_phoebe_is_replaced() -> None:
    names = {(module, name) for module, tree in sources("phoebe") for name in imported_as(tree)}
    assert ("phoebe.solverbackends.solverbackends", "_tqdm") in names
    output = run(
        f"for module, name in {sorted(names)!r}:\n"
        "    loaded = sys.modules.get(module)\n"
        "    if loaded is not None and vars(loaded)[name] is not tqdm.tqdm:\n"
        "        print('stock:', module, name)\n"
        "assert tqdm.tqdm.monitor_interval == 0\n"
    ).stdout
    assert "stock:" not in output


def test_a_bar_has_all_that_a_library_uses_of_it() -> None:
    used = {
        attribute
        for library in LIBRARIES
        for _, tree in sources(library)
        for attribute in attributes(tree, bars(tree, imported_as(tree)))
    }
    assert {"total", "update", "close", "n"} <= used
    output = run(
        "bar = tqdm.tqdm(total=3)\n"
        f"print('missing:', sorted(a for a in {sorted(used)!r} if not hasattr(bar, a)))\n"
    ).stdout
    assert "missing: []" in output


USES = [
    ("for _ in tqdm.tqdm(range(4)): pass", [0.25]),
    ("for _ in tqdm.tqdm(iter(range(4)), total=4, desc='x', unit='y'): pass", [0.25]),
    ("bar = tqdm.tqdm(total=4); bar.update(1); bar.close()", [0.25]),
    ("bar = tqdm.tqdm(total=2); bar.update(3)", [1.0]),
    ("with tqdm.tqdm(total=2) as bar: bar.update(1)", [0.5]),
    ("bar = tqdm.tqdm(); bar.set_postfix_str('a'); bar.update(2 - bar.n)", []),
    ("bar = tqdm.tqdm(total=5); bar.set_description('a'); bar.set_postfix(b=1)", []),
    ("bar = tqdm.tqdm(total=5, disable=True); bar.update(2)", []),
    ("bar = tqdm.tqdm(total=5); bar.reset(); bar.refresh(); bar.clear(); str(bar)", []),
    ("bar = tqdm.tqdm(total=5)\nif os.fork() == 0: bar.update(2); os._exit(len(told))", []),
    ("assert os.wait()[1] == 0", []),
]


def test_a_bar_tells_its_fraction_and_draws_nothing() -> None:
    done = run(
        f"for use, first in {USES!r}:\n"
        "    told.clear()\n"
        "    exec(use)\n"
        "    assert told[:1] == first, (use, told)\n"
        "assert len(os.listdir('/proc/self/task')) == 1, 'a thread'\n"
    )
    assert done.stderr == ""


def test_a_solver_reports_its_progress(connection: Connection) -> None:
    times = [0.1, 0.3, 0.5, 0.7, 0.9]
    connection.result(
        "add_dataset", kind="lc", dataset="lc01", times=times, fluxes=[1.9, 2, 1.8, 2, 1.9],
        sigmas=[0.1] * 5,
    )  # fmt: skip
    connection.result("set_value_all", qualifier="ntriangles", value=100)
    connection.result("set_value_all", qualifier="irrad_method", value="none")
    connection.result(
        "add_solver", kind="optimizer.nelder_mead", solver="nm",
        fit_parameters=["teff@secondary"], maxiter=3,
    )  # fmt: skip
    seq = connection.start("run_solver", solver="nm", solution="fit")
    header, answer = connection.reply(seq)
    assert answer["success"] is True, answer
    assert header["kind"] == "reply"
    fractions = [each["fraction"] for each in connection.progress if each["seq"] == seq]
    assert fractions[0] is None
    assert fractions[1] == pytest.approx(1 / 3)
