"""A session's script repeats the session with PHOEBE alone: the same Bundle, the same model."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import Connection, Worker
from scripts import WITHIN, Journal, assert_equal, bundle_of, run

from phoebe_worker.commands import COMMANDS

PHASES = [-0.25, -0.02, 0.0, 0.02, 0.25]
PERIOD = {"qualifier": "period", "component": "binary", "context": "component"}


@pytest.fixture
def journal(connection: Connection) -> Journal:
    return Journal(connection)


def test_every_command_that_changes_the_bundle_tells_itself() -> None:
    ours = {name: entry for name, entry in COMMANDS.items() if not name.startswith("test_")}
    without = [name for name, entry in ours.items() if entry.kind != "read" and not entry.script]
    assert without == []
    assert [name for name, entry in ours.items() if entry.kind == "read" and entry.script] == []


def test_two_datasets_flipped_constraints_and_a_solution(journal: Journal, tmp_path: Path) -> None:
    done = journal.done
    done("set_value", **PERIOD, value=1.7)
    done("set_value", twig="mass@primary@component", value=1.3333333333333333)
    # At 90 degrees no flux depends on it, and any value fits.
    done("set_value", qualifier="incl", component="binary", context="component", value=86.0)
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
    """Commands that fail after a change, older names, client parameters, and unique ids."""
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
    """The script contains a loaded Bundle, and can use its unique ids."""
    done = journal.done
    done("add_dataset", kind="lc", dataset="lc01", compute_phases=PHASES)
    done("run_compute", ntriangles=100)
    text = done("get_bundle")["bundle"]
    done("set_value", **PERIOD, value=7.0)
    done("load_bundle", bundle=text)
    assert journal.state.origin == "loaded"
    assert journal.entries == []
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


def test_a_passband_file_cannot_add_code_to_the_script(monkeypatch: pytest.MonkeyPatch) -> None:
    import phoebe

    from phoebe_worker import script
    from phoebe_worker.templates import default_bundle

    evil = 'x""";import os;os.system("id");"""\\'
    installed = phoebe.list_installed_passbands(full_dict=True)
    told = {name: {**fields, "timestamp": evil} for name, fields in installed.items()}
    monkeypatch.setattr(phoebe, "list_installed_passbands", lambda **_: told)
    monkeypatch.setattr(
        phoebe, "get_passband", lambda _: type("Passband", (), {"version": evil})
    )
    head = script._head(default_bundle(), 1, "2.5.4")
    docstring = ast.parse(head).body[0]
    assert isinstance(docstring, ast.Expr)
    calls = [each for each in ast.walk(ast.parse(head)) if isinstance(each, ast.Call)]
    assert not any("system" in ast.unparse(each) for each in calls), head


def test_random_steps_have_a_comment(journal: Journal) -> None:
    """Uses the journal alone, without running a solver."""

    def entry(command: str, /, **arguments: Any) -> dict[str, Any]:
        return {"command": {"command": command, **arguments}, "success": True}

    solve = entry("run_solver", solver="s")
    entries = journal.entries
    entries[:] = [entry("add_solver", kind="optimizer.nelder_mead", solver="s"), solve]
    assert "Random numbers" not in journal.script()
    entries[:] = [entry("add_solver", kind="sampler.emcee", solver="s"), solve]
    assert "Random numbers" in journal.script()
    entries[:] = [entry("run_compute", sample_from="d")]
    assert "Random numbers" in journal.script()


def test_what_cannot_be_repeated_makes_no_script(journal: Journal) -> None:
    """There is no script where it would omit a change."""

    def why_not(*entries: dict[str, Any], **fields: Any) -> str:
        journal.entries[:] = entries
        message = journal.export(**fields)
        assert message.header["success"] is False
        assert message.attachments == []
        error = str(json.loads(message.body)["error"])
        assert error.startswith("No script makes this Bundle: ")
        assert error.endswith("scripts begin with it from then on")
        return error

    def entry(command: str, success: bool = True, /, **arguments: Any) -> dict[str, Any]:
        return {"command": {"command": command, **arguments}, "success": success}

    assert "from_the_future" in why_not(entry("from_the_future", a="x\ny"))
    assert "attach_parameters: KeyError" in why_not(entry("attach_parameters"))
    gone = entry("set_value", uniqueid="gone", value=1)
    assert "unique id gone" in why_not(gone)
    assert "damaged" in why_not(base="uploaded")
    # Commands before a reset of the Bundle have no effect.
    journal.entries[:] = [gone, entry("from_the_future"), entry("new_bundle")]
    assert "\n\n\nb = default_bundle()\n\nif __name__" in journal.script()
    # A failure before any parameter was reached has changed none.
    journal.entries[:] = [entry("set_value", False, uniqueid="gone", value=1)]
    assert "# 'set_value' failed: it is not known" in journal.script()


def test_from_an_uploaded_file_on(journal: Journal, tmp_path: Path) -> None:
    """The script contains the Bundle of a file once, with its unfinished constraints."""
    done = journal.done
    done("set_value", **PERIOD, value=9.0)
    done("set_value", qualifier="incl", component="binary", context="component", value=81.5)
    done("add_dataset", kind="lc", dataset="lc01", compute_phases=PHASES)
    file = journal.connection.exported("file")
    done("new_bundle")
    assert journal.upload(file)
    assert journal.state.origin == "uploaded"
    done("set_value", **PERIOD, value=3.25)
    assert not journal.upload(b"no file of PHOEBE")
    built, _ = run(journal.script(), tmp_path)
    session = bundle_of(journal.connection)
    assert built.get_value("incl@binary@component") == 81.5
    assert built.datasets == ["lc01"]
    assert_equal(built, session)
    assert built._delayed_constraints == session._delayed_constraints
    assert built._failed_constraints == session._failed_constraints


def test_a_parameter_that_was_removed_later_had_an_effect(
    journal: Journal, tmp_path: Path
) -> None:
    """The model was computed with a parameter that has been removed."""
    done = journal.done
    done("add_dataset", kind="lc", dataset="lc01", compute_phases=PHASES)
    done("add_compute", compute="quick")
    triangles = {"qualifier": "ntriangles", "component": "primary", "compute": "quick"}
    done("set_value", uniqueid=done("get_uniqueid", **triangles), value=123)
    done("run_compute", compute="quick")
    done("remove_compute", compute="quick")
    built, _ = run(journal.script(), tmp_path)
    assert_equal(built, bundle_of(journal.connection))


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
        b'{"entries": [], "base": "\\"\\"\\"\\nimport os"}',
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
