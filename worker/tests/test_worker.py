"""The worker's loop: no user or other process can end it, and it ends when it must."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
import zmq
from harness import (
    PACKAGE_DIRECTORY,
    Connection,
    Worker,
    descendants,
    group_members,
    is_alive,
    receive_packet,
    wait_until,
)

from phoebe_worker import protocol

PERIOD = {"qualifier": "period", "component": "binary", "context": "component"}
LC = {"kind": "lc", "dataset": "lc01", "compute_phases": [0.0, 0.25, 0.5]}


def period(connection: Connection) -> float:
    return float(connection.result("get_value", **PERIOD))


# Invalid commands.


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b"[1]", "JSON object"),
        (b"5", "JSON object"),
        (b"{}", 'field "command" is missing'),
        (b'{"command": null}', 'field "command" is missing'),
        (b'{"command": 5}', 'field "command" must be text'),
        (b'{"command": ["ping"]}', 'field "command" must be text'),
        (b'{"command": "fly"}', "API does not recognize command fly."),
        (b'{"command": "__class__"}', "API does not recognize command __class__."),
        (b'{"command": "ping", "a": ' + b"[" * 5000 + b"]" * 5000 + b"}", "not valid JSON"),
        (b'{"command": "ping", "a": NaN}', "not valid JSON"),
    ],
)
def test_invalid_commands(connection: Connection, body: bytes, said: str) -> None:
    header, answer = connection.reply(connection.request(body))
    assert said in answer["error"]
    assert "traceback" not in answer
    assert (header["success"], header["changed"]) == (False, False)
    assert header["error"] == answer["error"]
    assert connection.result("ping") == {"status": "ready"}


MARKER = "marker-of-a-user"
FAILURES: list[tuple[dict[str, object], str]] = [
    ({"command": MARKER}, "unknown command"),
    ({"command": "set_value", "twig": MARKER, "value": MARKER}, "ValueError"),
    ({"command": "set_value", **PERIOD, "value": MARKER}, "ValueError"),
    ({"command": "ping", MARKER: 1}, "TypeError"),
    ({"command": "test_execute", "code": f"raise KeyError({MARKER!r})"}, "KeyError"),
    (
        {"command": "test_execute", "code": f"raise type({MARKER!r}, (OSError,), {{}})"},
        "OSError",
    ),
    ({"command": "run_compute", "compute": MARKER}, "ValueError"),
    ({"command": "test_sleep_long", "seconds": MARKER, "period": 1}, "TypeError"),
    ({"command": "test_os_exit_long"}, "The computation ended without an answer (exit code 7)"),
]


@pytest.mark.parametrize(("command", "reason"), FAILURES)
def test_the_log_is_told_nothing_that_a_user_sent(
    connection: Connection, command: dict[str, object], reason: str
) -> None:
    header, answer = connection.reply(connection.request(orjson.dumps(command)))
    assert not answer["success"]
    assert header["reason"] == reason
    assert "reason" not in connection.reply(connection.start("ping"))[0]


def test_a_user_sees_no_folder_of_the_server(connection: Connection) -> None:
    answers = [
        connection.send("set_value", **PERIOD, value="x"),
        connection.send("run_compute", compute="x"),
        connection.send("add_dataset", kind="zz"),
        connection.send("test_execute", code="import json; json.loads('x')"),
        connection.send("test_execute", code="import os; open(os.path.expanduser('~/x'))"),
    ]
    folders = (PACKAGE_DIRECTORY, Path(phoebe_folder()).parent, Path(os.__file__).parent)
    for answer in answers:
        text = answer["error"] + answer["traceback"]
        assert 'File "phoebe_worker/worker.py"' in text
        for folder in (*folders, Path.home(), Path(sys.prefix)):
            assert f"{folder}/" not in text, text
    assert 'File "phoebe/parameters/' in answers[0]["traceback"]


def phoebe_folder() -> str:
    specification = importlib.util.find_spec("phoebe")
    assert specification is not None
    assert specification.origin is not None
    return os.path.dirname(specification.origin)


def test_wrong_arguments(connection: Connection) -> None:
    assert connection.error("set_value", twig="period@binary") == (
        "PhoebeWorker.set_value() missing 1 required positional argument: 'value'"
    )
    assert "passed as keyword arguments: 'session'" in connection.error("ping", session=1)
    assert "unexpected keyword argument" in connection.error("ping", speed="fast")
    assert connection.error("get_value", twig=5)
    assert connection.error("get_value", twig={"a": [1]})
    assert connection.error("set_value", **PERIOD, value={"a": 1})
    assert connection.error("add_dataset", kind=[1])
    assert period(connection) == 1.0


def test_a_huge_argument(connection: Connection) -> None:
    error = connection.error("set_value", **PERIOD, value="x" * 20_000_000)
    assert "could not convert string to float" in error
    assert len(error) < 20_000
    assert period(connection) == 1.0


def test_the_header_says_whether_the_bundle_may_have_changed(connection: Connection) -> None:
    def changed(command: str, /, **arguments: object) -> bool:
        return bool(connection.reply(connection.start(command, **arguments))[0]["changed"])

    assert not changed("get_value", **PERIOD)
    assert not changed("set_value", **PERIOD)
    assert changed("set_value", **PERIOD, value=2)
    assert changed("set_value", **PERIOD, value="abc")
    assert not changed("run_compute", compute="nosuch")
    assert changed("add_dataset", **LC)
    assert changed("run_compute")


# Commands that misbehave.


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("test_exit", "SystemExit: 3"),
        ("test_interrupt", "KeyboardInterrupt"),
        ("test_recursion", "maximum recursion depth"),
        ("test_memory", "Memory ran out"),
        ("test_unencodable", "a value of type object cannot be written as JSON"),
        ("test_liar", "LyingError"),
        ("test_exit_long", "SystemExit: 3"),
        ("test_crash_long", "crashed (SIGSEGV)"),
        ("test_os_exit_long", "exit code 7"),
    ],
)
def test_misbehaviour_is_answered(connection: Connection, command: str, said: str) -> None:
    assert said in connection.error(command)
    assert connection.result("ping") == {"status": "ready"}
    assert period(connection) == 1.0


def test_a_runner_that_exits_with_success_but_without_an_answer(connection: Connection) -> None:
    assert "without an answer (exit code 0)" in connection.error("test_os_exit_long", code=0)


def test_a_runner_that_is_killed(connection: Connection) -> None:
    error = connection.error("test_crash_long", signal_number=signal.SIGKILL)
    assert "memory ran out" in error
    assert "as it was before" in error


def test_what_a_command_ruins_is_mended(worker: Worker) -> None:
    connection = worker.connection
    for _ in range(3):
        assert connection.result("test_ruin") == "ruined"
    connection.result("test_print", text="still here")
    assert "still here\n" in worker.log_text()
    assert "STILL HERE\n" in worker.log_text()
    os.kill(worker.pid, signal.SIGINT)
    assert connection.result("ping") == {"status": "ready"}
    worker.terminate()
    wait_until(lambda: not is_alive(worker.pid), "the worker ends at SIGTERM", 3)


def test_output_goes_to_the_log(worker: Worker) -> None:
    worker.connection.result("test_print", text="é 😀 text")
    assert "é 😀 text\n" in worker.log_text()


def test_a_worker_that_ends_itself_is_noticed(worker: Worker) -> None:
    worker.connection.start("test_os_exit")
    with pytest.raises(EOFError):
        receive_packet(worker.lifeline)
    assert worker.zygote.wait_exit(worker.pid)["code"] == 7


# Runners.


def test_reads_are_answered_while_a_runner_works(connection: Connection) -> None:
    long = connection.start("test_sleep_long", seconds=1.0, period=3.0)
    assert period(connection) == 1.0
    assert not connection.has_reply(long)
    assert connection.reply(long)[1]["result"] == 3.0
    assert period(connection) == 3.0


def test_changes_wait_for_the_runner_and_keep_their_order(connection: Connection) -> None:
    sent = [
        connection.start("test_sleep_long", seconds=0.5, period=3.0),
        connection.start("set_value", **PERIOD, value=4.0),
        connection.start("test_sleep_long", seconds=0.1, period=5.0),
        connection.start("set_value", **PERIOD, value=6.0),
        connection.start("set_value", **PERIOD, value=7.0),
    ]
    connection.reply(sent[1])
    assert period(connection) == 4.0
    connection.reply(sent[4])
    assert all(connection.has_reply(seq) for seq in (sent[0], sent[2], sent[3]))
    assert period(connection) == 7.0


def test_cancel(worker: Worker) -> None:
    connection = worker.connection
    long = connection.start("test_busy_long", helper=True)
    runner = worker.runner()
    wait_until(lambda: descendants(runner), "the runner's own process")
    (helper,) = descendants(runner)
    waiting = connection.start("set_value", **PERIOD, value=2.0)
    connection.cancel(long, "asked for by the user")
    header, answer = connection.reply(long)
    assert answer == {"success": False, "error": "Cancelled: asked for by the user"}
    assert not header["changed"]
    assert connection.reply(waiting)[1]["success"]
    assert period(connection) == 2.0
    assert not is_alive(runner)
    assert not is_alive(helper)
    assert group_members(worker.pid) == [worker.pid]


def test_a_command_in_the_background_gives_way(worker: Worker) -> None:
    connection = worker.connection
    body = orjson.dumps({"command": "test_busy_long", "helper": True})
    long = connection.request(body, cores=1, background=True)
    runner = worker.runner()
    wait_until(lambda: os.sched_getscheduler(runner) == os.SCHED_IDLE, "the idle policy")
    wait_until(lambda: descendants(runner), "the runner's own process")
    (helper,) = descendants(runner)
    assert os.sched_getscheduler(helper) == os.SCHED_IDLE
    assert os.sched_getscheduler(worker.pid) == os.SCHED_OTHER
    connection.cancel(long, "seen enough")
    assert not connection.reply(long)[1]["success"]


def test_cancel_in_the_middle_of_a_compute(worker: Worker) -> None:
    connection = worker.connection
    connection.result("add_dataset", **LC)
    connection.result("run_compute")
    fluxes = {"qualifier": "fluxes", "context": "model", "dataset": "lc01"}
    before = connection.result("get_value", **fluxes)
    phases = [i / 2000 for i in range(2000)]
    connection.result("set_value", qualifier="compute_phases", dataset="lc01", value=phases)
    long = connection.start("run_compute")
    wait_until(
        lambda: (
            not connection.has_reply(long)
            and any(p["seq"] == long and p["fraction"] for p in connection.progress)
        ),
        "progress of the compute",
    )
    connection.cancel(long, "enough")
    assert connection.reply(long)[1]["error"] == "Cancelled: enough"
    assert connection.result("get_value", **fluxes) == before
    assert descendants(worker.pid) == []


def test_cancel_of_queued_and_unknown_requests(connection: Connection) -> None:
    long = connection.start("test_sleep_long", seconds=0.5, period=3.0)
    waiting = connection.start("set_value", **PERIOD, value=9.0)
    connection.cancel(waiting, "not that one")
    connection.cancel(12345, "nobody")
    assert connection.reply(waiting)[1]["error"] == "Cancelled: not that one"
    assert connection.reply(long)[1]["success"]
    assert period(connection) == 3.0


def test_progress_of_a_compute(connection: Connection) -> None:
    phases = [i / 60 for i in range(60)]
    connection.result("add_dataset", kind="lc", dataset="lc01", compute_phases=phases)
    seq = connection.start("run_compute")
    connection.reply(seq)
    progress = [p for p in connection.progress if p["seq"] == seq]
    assert progress[0] == {"seq": seq, "fraction": None, "stage": "run_compute"}
    fractions = [p["fraction"] for p in progress[1:]]
    assert fractions
    assert fractions == sorted(fractions)
    assert 0 < fractions[0] <= fractions[-1] <= 1


def test_a_memory_limit(start_worker: Callable[..., Worker]) -> None:
    worker = start_worker(limits={"memory_mb": 300})
    connection = worker.wait_ready()
    assert connection.result("test_allocate_long", megabytes=100) == 100 * 1024 * 1024
    error = connection.error("test_allocate_long", megabytes=1000)
    assert error.startswith("Memory ran out")
    assert "300 MiB ([resources] worker_memory_mb)" in error
    assert connection.result("ping") == {"status": "ready"}


def test_unique_ids_survive_a_runner(connection: Connection) -> None:
    connection.result("add_dataset", **LC)
    before = connection.result("get_uniqueid", **PERIOD)
    connection.result("run_compute")
    assert connection.result("get_uniqueid", **PERIOD) == before
    assert connection.result("get_value", uniqueid=before) == 1.0


# The end of a worker.


@pytest.mark.parametrize("command", ["test_busy_long", "test_busy", None])
def test_the_closed_lifeline_ends_everything_at_once(worker: Worker, command: str | None) -> None:
    if command == "test_busy_long":
        worker.connection.start(command, helper=True)
        wait_until(lambda: len(group_members(worker.pid)) == 3, "runner and its own process")
    elif command == "test_busy":
        worker.connection.start(command)
        stat = Path(f"/proc/{worker.pid}/stat")
        wait_until(
            lambda: stat.read_text().rpartition(")")[2].split()[0] == "R", "the worker computes"
        )
    worker.lifeline.close()
    wait_until(lambda: not group_members(worker.pid), "no process is left", 2)
    assert worker.zygote.wait_exit(worker.pid)["signal"] == signal.SIGKILL


def test_sigterm_ends_worker_and_runner(worker: Worker) -> None:
    worker.connection.start("test_busy_long")
    worker.runner()
    worker.terminate()
    wait_until(lambda: not group_members(worker.pid), "no process is left", 3)
    assert worker.zygote.wait_exit(worker.pid)["code"] == 0


def test_a_runner_dies_with_its_worker(worker: Worker) -> None:
    worker.connection.start("test_busy_long")
    runner = worker.runner()
    os.kill(worker.pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(runner), "the runner is gone", 2)


def test_a_port_in_use_is_reported(start_worker: Callable[..., Worker]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        worker = start_worker(port=port)
        packet = receive_packet(worker.lifeline)
    assert packet["failed"] == "address_in_use"
    assert str(port) in packet["error"]
    assert worker.zygote.wait_exit(worker.pid)["code"] == 3


def test_only_loopback_is_bound(worker: Worker) -> None:
    local = f":{worker.port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = [row[1] for row in rows if row[1].endswith(local) and row[3] == "0A"]
    assert listening == ["0100007F" + local]
    assert local not in Path("/proc/net/tcp6").read_text()


# Other processes that connect to the port.


def test_a_stranger_is_not_answered(worker: Worker) -> None:
    connection = worker.connection
    stranger = Connection(worker.session, worker.port, bytes(32))
    stranger.start("set_value", **PERIOD, value=9.0)
    for frames in ([b""], [b"a", b"b"], [b"", b"", b"", b""], [b"x" * 32, b"{}", b"{}"]):
        stranger.endpoint.send_multipart(frames)
    assert connection.result("ping") == {"status": "ready"}
    assert period(connection) == 1.0
    assert not stranger.endpoint.poll(200)
    stranger.close()
    assert "dropped message 1: wrong signature" in worker.log_text()


def test_connections_without_zeromq(worker: Worker) -> None:
    address = ("127.0.0.1", worker.port)
    with contextlib.ExitStack() as open_connections:
        greeting = b"\xff" + bytes(8) + b"\x7f" * 60
        for data in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(4096), greeting):
            stranger = open_connections.enter_context(socket.create_connection(address))
            stranger.sendall(data)
        for _ in range(100):  # half-open ones
            open_connections.enter_context(socket.create_connection(address))
        assert worker.connection.result("ping") == {"status": "ready"}


def test_no_connection_is_accepted_after_the_first_message(worker: Worker) -> None:
    assert worker.connection.result("ping") == {"status": "ready"}
    for _ in range(3):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", worker.port))
    assert worker.connection.result("ping") == {"status": "ready"}


def test_unsigned_messages_do_not_close_the_listener(worker: Worker) -> None:
    stranger = Connection(worker.session, worker.port, bytes(32))
    stranger.start("ping")
    wait_until(lambda: "dropped message" in worker.log_text(), "the stranger's message is dropped")
    late = Connection(worker.session, worker.port, worker.key)
    assert late.result("ping") == {"status": "ready"}
    for each in (stranger, late):
        each.close()


def test_a_replayed_message_is_dropped(connection: Connection) -> None:
    frames = protocol.seal(
        connection.key,
        connection.header("request"),
        orjson.dumps({"command": "set_value", **PERIOD, "value": 2.0}),
    )
    connection.endpoint.send_multipart(frames)
    connection.reply(connection.seq)
    connection.result("set_value", **PERIOD, value=3.0)
    connection.endpoint.send_multipart(frames)
    assert period(connection) == 3.0


def test_a_message_for_another_session_is_dropped(worker: Worker) -> None:
    other = Connection("another", worker.port, worker.key)
    other.start("ping")
    assert not other.endpoint.poll(200)
    other.close()
    assert worker.connection.result("ping") == {"status": "ready"}


def test_a_worker_takes_no_replies(worker: Worker) -> None:
    connection = worker.connection
    header = connection.header("reply", success=True, changed=False, error=None)
    connection.endpoint.send_multipart(protocol.seal(connection.key, header, b"{}"))
    assert connection.result("ping") == {"status": "ready"}
    assert "a worker takes no reply" in worker.log_text()


def test_many_unsigned_messages(worker: Worker) -> None:
    stranger = worker.connection.context.socket(zmq.DEALER)
    stranger.linger = 0
    stranger.connect(f"tcp://127.0.0.1:{worker.port}")
    for _ in range(5000):
        stranger.send_multipart([b"x" * 32, b"{}", b"{}"])
    assert worker.connection.result("ping") == {"status": "ready"}
    stranger.close()
    assert len(worker.log_text().splitlines()) < 20
