"""Every optional import of PHOEBE is in the environment, or excluded for a reason."""

from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest
from harness import PACKAGE_DIRECTORY, Connection, Zygote
from test_progress import sources

from phoebe_worker import optional_packages

NOT_LOCKED = {"ellc"}  # absent: see `kinds.ABSENT`


def tried_by_phoebe() -> set[str]:
    """Top-level names of the modules whose import PHOEBE expects to fail, itself and what it
    requires left out."""
    required = {re.split(r"[^\w-]", line)[0].lower() for line in requires("phoebe") or []}
    found = set()
    for _, tree in sources("phoebe"):
        attempts = [node for node in ast.walk(tree) if isinstance(node, ast.Try)]
        for statement in (inner for node in attempts for part in node.body
                          for inner in ast.walk(part)):  # fmt: skip
            if isinstance(statement, ast.Import):
                found |= {alias.name.split(".")[0] for alias in statement.names}
            elif isinstance(statement, ast.ImportFrom) and statement.module and not statement.level:
                found.add(statement.module.split(".")[0])
    ours = {"phoebe", "matplotlib", "multiprocessing", "socketio", "subprocess"}
    return {
        name
        for name in found
        if name.lower() not in required | ours and name not in sys.stdlib_module_names
    }


def test_all_that_phoebe_tries_to_import_is_decided() -> None:
    assert tried_by_phoebe() == {*optional_packages.OPTIONAL, *optional_packages.EXCLUDED}


def test_what_is_wanted_is_locked() -> None:
    lock = (Path(PACKAGE_DIRECTORY) / "requirements.lock").read_text()
    locked = set(re.findall(r"^([\w-]+)==", lock, re.MULTILINE))
    wanted = set(optional_packages.OPTIONAL.values())
    assert wanted - locked == NOT_LOCKED


def test_the_zygote_tells_what_is_there(zygote: Zygote, connection: Connection) -> None:
    summary = zygote.info["optional_packages"]
    assert {name for name, version in summary.items() if version is None} == NOT_LOCKED
    assert set(summary) == set(optional_packages.OPTIONAL.values())
    assert summary["dynesty"] == "1.1"


def test_the_readme_states_the_size_of_the_environment() -> None:
    environment = Path(sys.prefix)
    if not (environment / "phoebe-server-complete").exists():
        pytest.skip("this Python was not made by the server")
    occupied = sum(path.lstat().st_blocks * 512 for path in environment.rglob("*"))
    readme = (Path(PACKAGE_DIRECTORY).parent / "README.md").read_text()
    stated = re.search(r"makes a private Python environment.*?about\s+(\d+) MB", readme, re.DOTALL)
    assert stated is not None
    assert int(stated[1]) == pytest.approx(occupied / 1e6, rel=0.2)
