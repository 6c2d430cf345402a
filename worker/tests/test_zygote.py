"""The zygote forks workers, reports their exits, and ends with the server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import (
    Worker,
    Zygote,
    command_line,
    free_port,
    group_members,
    receive_packet,
    socket_pair,
    wait_until,
)

from phoebe_worker import protocol

GOOD = {"session": "a", "port": 6560, "key": "ab" * 32}


def test_info(zygote: Zygote) -> None:
    assert zygote.info["phoebe"] == "2.5.4"
    assert zygote.info["passbands"] == sorted(zygote.info["passbands"])
    assert "Johnson:V" in zygote.info["passbands"]


def test_is_single_threaded_and_holds_little(zygote: Zygote) -> None:
    process = Path(f"/proc/{zygote.process.pid}")
    assert len(list((process / "task").iterdir())) == 1

    def kinds() -> list[str]:
        held = []
        for link in (process / "fd").iterdir():
            try:
                held.append(os.readlink(link).split(":")[0] if int(link.name) > 2 else "")
            except FileNotFoundError:
                continue  # closed since the look into the folder
        return sorted(kind for kind in held if kind)

    # The zygote closes the descriptors of the last worker only after reporting the worker.
    wait_until(lambda: kinds() == ["anon_inode", "socket", "socket", "socket"], "few descriptors")


def test_each_worker_leads_a_session_of_its_own(start_worker: Callable[..., Worker]) -> None:
    first, second = start_worker(), start_worker()
    for worker in (first, second):
        worker.wait_ready()
        assert os.getsid(worker.pid) == worker.pid
        assert worker.connection.result("ping") == {"status": "ready"}


def test_a_worker_holds_only_its_own_descriptors(start_worker: Callable[..., Worker]) -> None:
    start_worker().wait_ready()
    connection = start_worker().wait_ready()
    links = connection.result("test_descriptors")
    unix_sockets = Path("/proc/net/unix").read_text()
    held = [
        link for link in links if link.startswith("socket:") and f" {link[8:-1]}" in unix_sockets
    ]
    assert len(held) == 1, links  # the lifeline
    files = [link for link in links if link.startswith("/") and link != os.devnull]
    # Files in /proc, which the sandbox forbids to open later, and the working folder.
    own = {"status", "children", Path.cwd().name}
    assert {Path(file).name for file in files} == own, links
    assert len(files) == len(own), links


def test_exits_are_reported(zygote: Zygote, start_worker: Callable[..., Worker]) -> None:
    killed = start_worker()
    killed.wait_ready()
    os.kill(killed.pid, signal.SIGKILL)
    assert zygote.wait_exit(killed.pid) == {
        "exited": killed.pid,
        "code": None,
        "signal": signal.SIGKILL,
    }
    for _ in range(10):  # a signal right after `ready` must not be overslept
        left = start_worker()
        left.wait_ready()
        left.terminate()
        assert zygote.wait_exit(left.pid) == {"exited": left.pid, "code": 0, "signal": None}


@pytest.mark.parametrize("descriptors", [0, 1, 3])
def test_a_bad_request_is_answered(zygote: Zygote, descriptors: int) -> None:
    ends = socket_pair() + socket_pair()
    try:
        number = zygote.send_fork(*[end.fileno() for end in ends[:descriptors]])
    finally:
        for end in ends:
            end.close()
    packet = zygote.next_packet()
    assert packet["failed"] == number
    assert "2 descriptors" in packet["error"]


@pytest.mark.parametrize(
    ("start", "said"),
    [
        ({**GOOD, "key": "ab"}, "start.key"),
        ({**GOOD, "port": -1}, "start.port"),
        ({**GOOD, "limits": {"memory_mb": "5"}}, "start.limits"),
        ({**GOOD, "sandbox": {"level": "maybe"}}, "start.sandbox"),
        ([], "must be a JSON object"),
    ],
)
def test_a_bad_start_is_answered(zygote: Zygote, start: object, said: str) -> None:
    lifeline, theirs = socket_pair()
    log = os.open(os.devnull, os.O_WRONLY)
    with lifeline, theirs:
        lifeline.send(json.dumps(start).encode())
        zygote.send_fork(theirs.fileno(), log)
        os.close(log)
        pid = zygote.next_packet()["pid"]
        said_by_worker = receive_packet(lifeline)
    assert said_by_worker["failed"] == "error"
    assert said in said_by_worker["error"]
    assert zygote.wait_exit(pid)["code"] == 1


def test_invalid_packets_are_answered(zygote: Zygote) -> None:
    for packet in (b"\xff\xfe", b"[1]", b"{}"):
        zygote.control.send(packet)
        assert zygote.next_packet()["failed"] is None


def test_workers_outlive_the_zygote() -> None:
    zygote = Zygote()
    zygote.wait_ready()
    worker = Worker(zygote)
    connection = worker.wait_ready()
    zygote.close()
    assert connection.result("ping") == {"status": "ready"}
    connection.close()
    worker.lifeline.close()
    wait_until(lambda: not group_members(worker.pid), "the worker is gone", 5)


def test_dies_with_its_control_channel_during_the_import() -> None:
    control, theirs = socket_pair()
    process = subprocess.Popen(command_line("zygote"), stdin=theirs.fileno())
    theirs.close()
    maps = Path(f"/proc/{process.pid}/maps")
    wait_until(lambda: "numpy" in maps.read_text(), "NumPy is being imported")
    control.close()
    assert process.wait(5) == -signal.SIGKILL


def test_dies_with_a_control_channel_that_was_closed_before() -> None:
    control, theirs = socket_pair()
    control.close()
    process = subprocess.Popen(command_line("zygote"), stdin=theirs.fileno())
    theirs.close()
    assert process.wait(10) == -signal.SIGKILL


def test_a_missing_phoebe_is_reported() -> None:
    zygote = Zygote("sys.modules['phoebe'] = None")
    packet = receive_packet(zygote.control)
    assert "phoebe" in packet["fatal"]
    assert zygote.process.wait(10) == 1
    zygote.control.close()


def test_spawn_and_probe(zygote: Zygote) -> None:
    lifeline, theirs = socket_pair()
    process = subprocess.Popen(command_line("spawn"), stdin=theirs.fileno())
    theirs.close()
    lifeline.send(protocol.packet({**GOOD, "port": free_port(), "key": "00" * 32}))
    probed = subprocess.run(command_line("probe"), capture_output=True, check=True)
    info = json.loads(probed.stdout)
    assert probed.stdout.count(b"\n") == 1
    ready = receive_packet(lifeline)["ready"]
    templates = {info.pop("template"), ready.pop("template")}
    assert len(templates) == 2, "each builds its own first Bundle, with unique ids of its own"
    assert ready == info
    of_zygote = {name: zygote.info[name] for name in info}
    assert {**of_zygote, "template": None} == {**info, "template": None}
    assert os.getsid(process.pid) == process.pid
    lifeline.close()
    assert process.wait(5) == -signal.SIGKILL


def test_a_spawned_worker_dies_during_the_import() -> None:
    lifeline, theirs = socket_pair()
    process = subprocess.Popen(command_line("spawn"), stdin=theirs.fileno())
    theirs.close()
    lifeline.send(protocol.packet(GOOD))
    maps = Path(f"/proc/{process.pid}/maps")
    wait_until(lambda: "numpy" in maps.read_text(), "NumPy is being imported")
    lifeline.close()
    assert process.wait(5) == -signal.SIGKILL
