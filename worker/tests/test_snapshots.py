"""A saved and restored Bundle equals the original, and gives the same results afterwards."""

from __future__ import annotations

import json
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from accelerate_bundles import BUILDERS, built
from harness import Connection, Worker
from snapshot_states import content, digest, digests_elsewhere, exact

from phoebe_worker import portable, snapshots

PHASES = [-0.25, -0.02, 0.0, 0.02, 0.25]
LC = {"kind": "lc", "dataset": "lc01", "compute_phases": PHASES}
PERIOD = {"qualifier": "period", "component": "binary", "context": "component"}
KEPT = ["pickle", "portable"]


def bundle_of(connection: Connection) -> Any:
    """The worker's Bundle, unpickled in this process."""
    return pickle.loads(connection.exported("pickle"))


def snapshot_of(connection: Connection, command: str, /, **arguments: Any) -> bytes:
    """The Bundle attached to the answer of a command that changes it."""
    body = orjson.dumps({"command": command, **arguments})
    message = connection.reply_message(connection.request(body, snapshot=True))
    assert message.header["changed"] is True, message.body
    assert "snapshot_error" not in message.header
    (attachment,) = message.attachments
    return attachment


# Bundles of all kinds, without a worker.


def test_pickles_are_exact_in_another_process(tmp_path: Path) -> None:
    bundles = [pickle.loads(built(name, False)) for name in BUILDERS]
    packed = [snapshots.pack(bundle) for bundle in bundles]
    assert digests_elsewhere(packed, tmp_path) == [digest(bundle) for bundle in bundles]


@pytest.mark.parametrize("name", BUILDERS)
def test_the_portable_form_loses_nothing_but_order(name: str) -> None:
    bundle = pickle.loads(built(name, False))
    before = exact(bundle)
    data = portable.write(bundle)
    assert exact(bundle) == before, "writing changes nothing"
    copy = portable.read(data).bundle
    assert content(copy) == content(bundle)
    assert json.loads(portable.write(copy)) == json.loads(data)


def test_portable_times_are_exact() -> None:
    bundle = pickle.loads(built("models", False))
    for parameter in bundle._params:
        if parameter._time is not None:
            parameter._time = float(parameter._time) + 1 / 3
    assert content(portable.read(portable.write(bundle)).bundle) == content(bundle)


def test_constraints_that_are_still_to_be_run_stay_so() -> None:
    bundle = pickle.loads(built("detached", False))
    constraints = [p.uniqueid for p in bundle._params if p.context == "constraint"]
    bundle._delayed_constraints = constraints[:2]
    bundle._failed_constraints = constraints[2:3]
    for copy in (
        snapshots.unpack(snapshots.pack(bundle)),
        portable.read(portable.write(bundle)).bundle,
    ):
        assert copy._delayed_constraints == constraints[:2]
        assert copy._failed_constraints == constraints[2:3]
        assert len(copy._params) == len(bundle._params)


# With workers.


@pytest.fixture
def two(start_worker: Callable[..., Worker]) -> tuple[Connection, Connection]:
    first, second = start_worker(), start_worker()
    return first.wait_ready(), second.wait_ready()


def work(connection: Connection) -> None:
    """A session with data, a flipped constraint, a model, a solution and a client's parameter."""
    done = connection.result
    done("set_value", **PERIOD, value=1.7)
    done("add_dataset", **LC)
    done("add_dataset", kind="rv", dataset="rv01", compute_phases=[0.1, 0.3])
    done("add_dataset", kind="mesh", dataset="mesh01", compute_times=[1 / 3], columns=["teffs"])
    done(
        "attach_parameters",
        parameters=[{"ptype": "choice", "qualifier": "mode", "value": "a", "choices": ["a", "b"]}],
    )
    done("run_compute", ntriangles=100)
    done("get_bundle")
    for qualifier, value in (("times", [0.0, 0.3, 0.6]), ("fluxes", [1.0, 0.9, 1.0])):
        done("set_value", qualifier=qualifier, dataset="lc01", context="dataset", value=value)
    done("set_value", twig="sigmas@lc01@dataset", value=[0.1, 0.1, 0.1])
    done("set_value", twig="fit_parameters@dc", value=["teff@primary", "incl@binary"])
    done("run_solver", solver="dc", solution="s", ntriangles=100)


@pytest.mark.parametrize("form", KEPT)
def test_a_restored_session_goes_on_as_the_first(
    two: tuple[Connection, Connection], form: str
) -> None:
    first, second = two
    work(first)
    answer = second.restore(form, first.exported(form))
    assert json.loads(answer.body) == {"success": True, "result": {}}
    assert (answer.header["success"], answer.header["changed"]) == (True, True)
    refused = second.restore(form, b"", snapshot=True)
    assert (refused.header["success"], refused.header["changed"]) == (False, False)
    assert refused.attachments == []
    same = exact if form == "pickle" else content
    assert same(bundle_of(second)) == same(bundle_of(first))

    def both(command: str, /, **arguments: Any) -> Any:
        answers = [each.send(command, **arguments) for each in two]
        for answer in answers:
            answer.pop("traceback", None)
        assert answers[0] == answers[1]
        return answers[0]

    assert both("get_uniqueid", **PERIOD)["result"]
    assert both("get_value", qualifier="fitted_values", context="solution")["success"]
    both("get_datasets")
    both("set_value", **PERIOD, value=2.3)
    both("get_value", twig="sma@binary@component")
    both("set_value", twig="mode@ui", value="b")
    both("set_value", twig="mode@ui", value="c")
    both("set_value", twig="mass@primary@component", value="text")
    computed = both("run_compute", ntriangles=100)
    assert computed["success"], computed
    both("run_compute", ntriangles=100, solution="s")
    both("remove_dataset", dataset="rv01")
    ids = [content(bundle_of(each)).keys() for each in two]
    assert len(ids[0] - ids[1]) == len(ids[1] - ids[0]), "only what each made itself differs"


CHANGES: list[Callable[[random.Random], dict[str, Any]]] = [
    lambda r: {"command": "set_value", **PERIOD, "value": r.uniform(0.5, 3)},
    lambda r: {"command": "set_value", "twig": "teff@primary", "value": r.uniform(4000, 8000)},
    lambda r: {"command": "set_value", "twig": "incl@binary", "value": r.uniform(0, 200)},
    lambda r: {"command": "set_value", "twig": "ecc@binary", "value": r.uniform(0, 1.2)},
    lambda r: {"command": "set_value", "twig": "mass@primary", "value": r.choice([2, -1, "x"])},
    lambda r: {"command": "set_value", "twig": "nosuch", "value": 1},
    lambda r: {"command": "add_dataset", **LC, "dataset": f"lc{r.randrange(3)}"},
    lambda r: {"command": "add_dataset", "kind": "rv", "dataset": "v", "overwrite": True},
    lambda r: {"command": "remove_dataset", "dataset": f"lc{r.randrange(3)}"},
    lambda r: {"command": "set_morphology", "morphology": r.choice(["contact", "detached", "no"])},
    lambda r: {"command": "run_compute", "ntriangles": 100},
    lambda r: {
        "command": "attach_parameters",
        "parameters": [{"ptype": "float", "qualifier": f"n{r.randrange(99)}", "value": r.random()}],
    },
]


@pytest.mark.parametrize("seed", range(4))
def test_random_commands_are_kept_at_each_step(
    connection: Connection, start_worker: Callable[..., Worker], seed: int
) -> None:
    """The Bundle in each answer equals the worker's, also in a process that starts from it."""
    random_ = random.Random(seed)
    for _ in range(12):
        command = random_.choice(CHANGES)(random_)
        message = connection.reply_message(
            connection.request(orjson.dumps(command), snapshot=True)
        )
        held = exact(bundle_of(connection))
        assert bool(message.attachments) == message.header["changed"], command
        if not message.header["changed"]:
            continue
        assert exact(pickle.loads(message.attachments[0])) == held, command
        worker = start_worker()
        other = worker.wait_ready()
        assert other.restore("pickle", *message.attachments).header["success"], command
        assert exact(bundle_of(other)) == held, command


def test_a_command_that_fails_before_it_changed_anything_is_no_change(
    connection: Connection,
) -> None:
    def changed(command: str, **arguments: Any) -> bool:
        body = orjson.dumps({"command": command, **arguments})
        message = connection.reply_message(connection.request(body, snapshot=True))
        assert message.header["success"] is False
        assert bool(message.attachments) == message.header["changed"]
        return bool(message.header["changed"])

    refused: list[dict[str, Any]] = [
        {"command": "set_value", "twig": "nothing@binary", "value": 1},
        {"command": "set_value", **PERIOD, "value": "abc"},
        {"command": "flip_constraint", "twig": "q@binary", "solve_for": "nothing"},
        {"command": "add_dataset", "kind": "nothing"},
        {"command": "adopt_solution", "solution": "nothing"},
    ]
    for _ in range(2):  # fresh, and with another Bundle that a runner made
        assert [each for each in refused if changed(**each)] == []
        connection.result("add_dataset", **LC, overwrite=True)
        connection.result("run_compute", overwrite=True)


def test_an_answer_carries_the_bundle_only_if_asked_for_and_changed(
    connection: Connection,
) -> None:
    def attached(fields: dict[str, Any], command: str, /, **arguments: Any) -> int:
        body = orjson.dumps({"command": command, **arguments})
        return len(connection.reply_message(connection.request(body, **fields)).attachments)

    wanted = {"snapshot": True}
    assert attached(wanted, "get_value", **PERIOD) == 0
    assert attached({}, "set_value", **PERIOD, value=2) == 0
    assert attached({"snapshot": False}, "set_value", **PERIOD, value=2) == 0
    assert attached({"snapshot": 1}, "set_value", **PERIOD, value=2) == 0
    assert attached(wanted, "set_value", **PERIOD, value=2) == 1
    assert attached(wanted, "set_value", **PERIOD) == 0, "the command was not entered"
    assert attached(wanted, "set_value", **PERIOD, value="x") == 0, "it failed, and changed nothing"
    halfway = {"kind": "lc", "passband": "No:such"}
    assert attached(wanted, "add_dataset", **halfway) == 1, "it failed, after some changes"
    assert attached(wanted, "test_crash_long") == 0
    assert attached(wanted, "load_bundle", bundle="[]") == 0, "it replaces the Bundle or nothing"
    assert attached(wanted, "test_sleep_long", seconds=0, period=3.0) == 1


def test_a_bundle_that_cannot_be_pickled_is_still_answered_for(connection: Connection) -> None:
    body = orjson.dumps({"command": "test_unpicklable"})
    message = connection.reply_message(connection.request(body, snapshot=True))
    assert json.loads(message.body) == {"success": True, "result": None}
    assert message.header["changed"] is True
    assert "pickle" in message.header["snapshot_error"]
    assert len(message.header["snapshot_error"]) <= 500
    assert message.attachments == []
    answer = connection.export("pickle")
    assert not answer.header["success"]
    assert answer.attachments == []
    assert connection.exported("portable")
    assert connection.result("ping") == {"status": "ready"}


def test_a_restore_may_ask_for_the_snapshot(two: tuple[Connection, Connection]) -> None:
    first, second = two
    first.result("set_value", **PERIOD, value=2.5)
    answer = second.restore("file", first.exported("file"), snapshot=True)
    (attachment,) = answer.attachments
    assert exact(pickle.loads(attachment)) == exact(bundle_of(second))
    assert second.result("get_value", **PERIOD) == 2.5


# While a runner is active.


def test_while_a_runner_works_export_gives_the_committed_bundle_and_restore_waits(
    two: tuple[Connection, Connection],
) -> None:
    first, second = two
    second.result("set_value", **PERIOD, value=7.0)
    payload = second.exported("pickle")
    running = first.start("test_sleep_long", seconds=1, period=5.0)
    restoring = first.start_restore("pickle", payload)
    assert pickle.loads(first.exported("pickle")).get_value(**PERIOD) == 1.0
    assert not first.has_reply(running)
    assert first.reply(running)[1]["result"] == 5.0
    assert first.reply(restoring)[0]["success"] is True
    assert first.result("get_value", **PERIOD) == 7.0


def test_a_restore_that_waits_can_be_cancelled(connection: Connection) -> None:
    payload = connection.exported("pickle")
    running = connection.start("test_busy_long")
    restoring = connection.start_restore("pickle", payload)
    connection.cancel(restoring, "changed my mind")
    assert connection.reply(restoring)[1]["error"] == "Cancelled: changed my mind"
    connection.cancel(running, "enough")
    assert connection.reply(running)[1]["error"] == "Cancelled: enough"


# Invalid snapshots.


GOOD_JSON = b'[{"Class": "StringParameter", "qualifier": "note", "value": "x"}]'
BAD = [
    ("pickle", b"", "cannot be read"),
    ("pickle", b"\x80\x05garbage", "cannot be read"),
    ("pickle", pickle.dumps([1, 2]), "holds no Bundle, but a list"),
    ("pickle", b"cnosuchmodule\nthing\n.", "cannot be read"),
    ("pickle", b"cbuiltins\nexit\n(I3\ntR.", "SystemExit"),
    ("portable", b"", ""),
    ("portable", b"{", ""),
    ("portable", b"\xff\xfe", ""),
    ("portable", b"[]", "a bundle is a list of parameters"),
    ("portable", b"{}", "a bundle is a list of parameters"),
    ("portable", b"[1]", "a bundle is a list of parameters"),
    ("portable", b'[{"Class": "os"}]', ""),
    ("portable", GOOD_JSON, ""),
    ("portable", b"[" * 100_000, ""),
    ("script", b"", "cannot be restored from format script"),
    ("nosuch", b"", "Unknown format 'nosuch'; known are pickle, portable, file, script"),
    (None, b"", "Unknown format None"),
    ({"a": 1}, b"", "Unknown format"),
]


@pytest.mark.parametrize(("form", "payload", "said"), BAD)
def test_what_cannot_be_restored_changes_nothing(
    connection: Connection, form: Any, payload: bytes, said: str
) -> None:
    connection.result("set_value", **PERIOD, value=2.5)
    before = exact(bundle_of(connection))
    answer = connection.restore(form, payload)
    assert answer.header["success"] is False
    error = json.loads(answer.body)["error"]
    assert said in error
    assert error
    assert exact(bundle_of(connection)) == before


@pytest.mark.parametrize("form", KEPT)
def test_torn_snapshots_are_refused(connection: Connection, form: str) -> None:
    payload = connection.exported(form)
    before = exact(bundle_of(connection))
    for length in (1, 100, len(payload) // 2, len(payload) - 1):
        answer = connection.restore(form, payload[:length])
        assert answer.header["success"] is False, length
    assert connection.restore(form).header["success"] is False
    assert exact(bundle_of(connection)) == before
    assert connection.restore(form, payload).header["success"] is True


@pytest.mark.parametrize("form", ["nosuch", None, 5])
def test_an_unknown_format_is_not_exported(connection: Connection, form: Any) -> None:
    answer = connection.export(form)
    assert answer.header["success"] is False
    assert "Unknown format" in json.loads(answer.body)["error"]
    assert answer.attachments == []


def test_a_pickle_of_another_phoebe_is_rejected(connection: Connection) -> None:
    """It would not be migrated."""
    bundle = bundle_of(connection)
    (version,) = [each for each in bundle._params if each.qualifier == "phoebe_version"]
    version._value = "2.5.3"
    answer = connection.restore("pickle", snapshots.pack(bundle))
    assert "The snapshot is of PHOEBE 2.5.3" in json.loads(answer.body)["error"]


# The Bundle that every session begins with.


def test_every_fresh_session_is_the_template(
    two: tuple[Connection, Connection],
) -> None:
    """The server stores it once: `new_bundle` reads the pickle that the digest is of."""
    first, second = two
    fresh = exact(bundle_of(first))
    assert exact(bundle_of(second)) == fresh
    second.result("set_value", **PERIOD, value=3.0)
    second.result("new_bundle")
    assert exact(bundle_of(second)) == fresh
    first.restore("pickle", second.exported("pickle"))
    assert exact(bundle_of(first)) == fresh


def test_a_worker_that_restored_sleeps_and_wakes_many_times(
    connection: Connection, start_worker: Callable[..., Worker]
) -> None:
    connection.result("add_dataset", **LC)
    held = bundle_of(connection)
    for _ in range(5):
        other = start_worker().wait_ready()
        assert other.restore("pickle", snapshots.pack(held)).header["success"]
        held = bundle_of(other)
    assert exact(held) == exact(bundle_of(connection))
