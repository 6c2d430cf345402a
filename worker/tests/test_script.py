"""A session's script repeats the session with PHOEBE alone: the same Bundle, the same model."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from harness import Connection, Worker

from phoebe_worker.commands import COMMANDS
from phoebe_worker.environment import VARIABLES

os.environ.update(VARIABLES)  # before PHOEBE is imported, which reading a Bundle does

PHASES = [-0.25, -0.02, 0.0, 0.02, 0.25]
PERIOD = {"qualifier": "period", "component": "binary", "context": "component"}
WITHIN = 1e-12


class Journal:
    """What the server keeps of a session: its changing commands in their order."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.entries: list[dict[str, Any]] = []

    def do(self, command: str, /, **arguments: Any) -> dict[str, Any]:
        fields = {"command": command, **arguments}
        header, answer = self.connection.reply(self.connection.request(orjson.dumps(fields)))
        if header["changed"]:
            self.entries.append({"command": fields, "success": header["success"]})
        return answer

    def done(self, command: str, /, **arguments: Any) -> Any:
        answer = self.do(command, **arguments)
        assert answer["success"], answer
        return answer["result"]

    def script(self, **fields: Any) -> str:
        body = orjson.dumps({"entries": self.entries, "phoebe": "2.5.4", **fields})
        return self.connection.exported("script", body).decode()


@pytest.fixture
def journal(connection: Connection) -> Journal:
    return Journal(connection)


def run(script: str, folder: Path, *arguments: str) -> tuple[Any, str]:
    """The Bundle that stock PHOEBE builds in a process of its own, and what the script printed."""
    path, kept_in = folder / "session.py", folder / "bundle.pickle"
    keep = f"import pickle\nwith open({str(kept_in)!r}, 'wb') as kept:\n    pickle.dump(b, kept)\n"
    path.write_text(script + keep)
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(
        [sys.executable, str(path), *arguments],
        env={**kept, **VARIABLES},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return pickle.loads(kept_in.read_bytes()), done.stdout + done.stderr


def told(bundle: Any) -> dict[str, Any]:
    """Every parameter by its tags, without what is random or says when."""
    known = {}
    for parameter in bundle._params:
        if "uniqueid" in parameter.qualifier:
            continue
        fields = parameter.to_json()
        value = fields.pop("value", None)
        known[parameter.twig, parameter._time and float(parameter._time)] = fields, value
    return known


def assert_equal(built: Any, session: Any) -> None:
    expected, got = told(session), told(built)
    assert got.keys() == expected.keys()
    for key, (fields, value) in expected.items():
        assert {**got[key][0], "choices": None} == {**fields, "choices": None}, key
        assert_close(got[key][1], value, key)


def assert_close(got: Any, expected: Any, key: Any) -> None:
    if isinstance(expected, float):
        assert np.isclose(got, expected, rtol=WITHIN, atol=WITHIN, equal_nan=True), key
    elif isinstance(expected, list):
        assert len(got) == len(expected), key
        for one, other in zip(got, expected, strict=True):
            assert_close(one, other, key)
    elif isinstance(expected, dict):
        assert got.keys() == expected.keys(), key
        for name in expected:
            assert_close(got[name], expected[name], key)
    else:
        assert got == expected, key


def bundle_of(connection: Connection) -> Any:
    return pickle.loads(connection.exported("pickle"))


def test_every_command_that_changes_the_bundle_tells_itself() -> None:
    ours = {name: entry for name, entry in COMMANDS.items() if not name.startswith("test_")}
    without = [name for name, entry in ours.items() if entry.kind != "read" and not entry.script]
    assert without == []
    assert [name for name, entry in ours.items() if entry.kind == "read" and entry.script] == []


def test_two_datasets_flipped_constraints_and_a_solution(journal: Journal, tmp_path: Path) -> None:
    done = journal.done
    done("set_value", **PERIOD, value=1.7)
    done("set_value", twig="mass@primary@component", value=1.3333333333333333)
    done("flip_constraint", twig="esinw", solve_for="per0")
    done("flip_constraint", twig="teffratio", solve_for="teff@secondary")
    done("set_value", twig="teffratio", value=0.9)
    done("add_dataset", kind="lc", dataset="lc01", compute_phases=PHASES, passband="Johnson:V")
    done("add_dataset", kind="rv", dataset="rv01", compute_phases=[0.1, 0.3])
    model = done("run_compute", ntriangles=100)["model"]["lc01"]
    done("set_value", twig="times@lc01@dataset", value=model["times"])
    done("set_value", twig="fluxes@lc01@dataset", value=[flux * 1.01 for flux in model["fluxes"]])
    done("set_value", twig="sigmas@lc01@dataset", value=[0.01] * len(PHASES))
    done("set_value", twig="fit_parameters@dc", value=["incl@binary", "teff@primary"])
    done("run_solver", solver="dc", solution="sol01", ntriangles=100)
    done("run_compute", solution="sol01", ntriangles=100, model="fitted")
    adopted = done("adopt_solution", solution="sol01")["adopted"]
    assert any(twig.startswith("incl@binary") for twig in adopted)
    done("run_compute", ntriangles=100, overwrite=True)
    built, printed = run(journal.script(), tmp_path)
    assert "results may differ" not in printed
    session = bundle_of(journal.connection)
    assert_equal(built, session)
    fluxes = {"qualifier": "fluxes", "dataset": "lc01", "context": "model"}
    for model in ("latest", "fitted"):
        there = built.get_value(**fluxes, model=model)
        np.testing.assert_allclose(there, session.get_value(**fluxes, model=model), rtol=WITHIN)


def test_every_other_change(journal: Journal, tmp_path: Path) -> None:
    """Commands that fail after a change, older names, clients' own, odd fields and unique ids."""
    done = journal.done
    done("set_value", **PERIOD, value=9.0)
    done("change_morphology", morphology="contact")
    assert not journal.do("set_morphology", morphology="round")["success"]
    done("new_bundle")
    unique_id = done("get_uniqueid", **PERIOD)
    done("set_value", uniqueid=unique_id, value=2.5)
    done("add_dataset", kind="lc", dataset="gone", compute_phases=[0.0])
    gone = done("get_uniqueid", qualifier="compute_phases", dataset="gone")
    done("set_value", uniqueid=gone, value=[0.5])
    done("remove_dataset", dataset="gone")
    done("remove_dataset", dataset="never")
    done("add_dataset", kind="lc", dataset="lc01", compute_phases=[0.0, 0.5])
    done("add_dataset", kind="mesh", dataset="mesh01", compute_times=[1 / 3], columns=["teffs"])
    assert not journal.do("set_value", **PERIOD, value="text")["success"]
    assert not journal.do("set_value", twig="ecc@binary", value=1.5)["success"]
    odd = {"no name": "'\n\"\\"}
    assert not journal.do("add_dataset", kind="lc", dataset="x", **odd)["success"]
    assert not journal.do("add_dataset", kind="nosuch\nimport os")["success"]
    done(
        "attach_params",
        parameters=[
            {"ptype": "choice", "qualifier": "mode", "value": "a", "choices": ["a", "b"]},
            {"ptype": "string", "qualifier": "note", "value": "é\n'\"", "component": "primary"},
        ],
    )
    assert not journal.do("attach_parameters", parameters=[{"ptype": "x", "qualifier": "y"}])[
        "success"
    ]
    done("set_value", twig="mode@ui", value="b")
    done("add_feature", kind="spot", component="primary", feature="spot01", relteff=0.9)
    done("add_feature", kind="spot", component="secondary", feature="spot02")
    done("remove_feature", feature="spot02")
    done("add_compute", kind="phoebe", compute="quick")
    done("add_compute", compute="other")
    done("remove_compute", compute="other")
    done("set_value_all", twig="ntriangles", value=100)
    done("add_solver", kind="optimizer.nelder_mead", solver="nm", maxiter=3)
    done("add_solver", kind="estimator.lc_geometry", solver="geometry")
    done("remove_solver", solver="geometry")
    done("flip_constraint", qualifier="freq", component="binary", solve_for="period@binary")
    done("run_compute", compute="quick")
    assert not journal.do("run_compute", compute="nosuch")["success"]
    built, printed = run(journal.script(), tmp_path)
    assert_equal(built, bundle_of(journal.connection))
    assert printed.count("As in the session, a step failed") >= 3


def test_from_a_file_on(journal: Journal, tmp_path: Path) -> None:
    """A Bundle that was loaded is in the script, and its unique ids are good in it."""
    done = journal.done
    done("add_dataset", kind="lc", dataset="lc01", compute_phases=PHASES)
    done("run_compute", ntriangles=100)
    text = done("get_bundle")["bundle"]
    journal.entries.clear()
    done("load_bundle", bundle=text)
    done("set_value", uniqueid=done("get_uniqueid", **PERIOD), value=3.25)
    built, _ = run(journal.script(), tmp_path)
    session = bundle_of(journal.connection)
    assert_equal(built, session)
    ids = {parameter.uniqueid for parameter in session._params}
    assert {parameter.uniqueid for parameter in built._params} == ids


def test_a_fresh_session(journal: Journal, tmp_path: Path) -> None:
    built, _ = run(journal.script(), tmp_path, "saved.phoebe")
    assert_equal(built, bundle_of(journal.connection))
    saved = json.loads((tmp_path / "saved.phoebe").read_text())
    assert len(saved) == len(built._params)


def test_the_head_names_versions_and_warns_of_others(journal: Journal, tmp_path: Path) -> None:
    journal.done("add_dataset", kind="lc", dataset="lc01")
    script = journal.script(phoebe="2.5.3.dev+1")
    assert "PHOEBE 2.5.3.dev+1" in script
    assert "passband Johnson:V, version " in script
    assert "passband Bolometric:900-40000, version " in script
    script = script.replace("'Johnson:V': '", "'Johnson:V': 'in another year ")
    _, printed = run(script, tmp_path)
    assert "the session had 2.5.3.dev+1" in printed
    assert "Passband Johnson:V is another" in printed
    assert "Passband Bolometric" not in printed


def test_what_is_random_is_said(journal: Journal) -> None:
    """No solver is run here: of the journal alone."""

    def entry(command: str, /, **arguments: Any) -> dict[str, Any]:
        return {"command": {"command": command, **arguments}, "success": True}

    solve = entry("run_solver", solver="s")
    journal.entries = [entry("add_solver", kind="optimizer.nelder_mead", solver="s"), solve]
    assert "Random numbers" not in journal.script()
    journal.entries = [entry("add_solver", kind="sampler.emcee", solver="s"), solve]
    assert "Random numbers" in journal.script()
    journal.entries = [entry("run_compute", sample_from="d")]
    assert "Random numbers" in journal.script()
    journal.entries = [entry("from_the_future", a="x\ny")]
    (line,) = [each for each in journal.script().splitlines() if "from_the_future" in each]
    assert line.startswith("# ")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"entries": 5}',
        b'{"entries": [5]}',
        b'{"entries": [{"command": {}, "success": true}]}',
        b'{"entries": [{"command": {"command": "ping"}}]}',
        b'{"entries": [], "phoebe": "2\\"\\"\\"\\nimport os"}',
    ],
)
def test_a_journal_that_cannot_be_read(connection: Connection, body: bytes) -> None:
    answer = connection.export("script", body)
    assert not answer.header["success"]
    assert "journal of the session cannot be read" in json.loads(answer.body)["error"]
    assert answer.attachments == []


def test_a_script_while_a_runner_works(start_worker: Callable[..., Worker]) -> None:
    journal = Journal(start_worker().wait_ready())
    running = journal.connection.start("test_busy_long")
    assert "default_bundle()" in journal.script()
    journal.connection.cancel(running, "enough")
    assert not journal.connection.reply(running)[0]["success"]
