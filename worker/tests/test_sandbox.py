"""The sandbox of a worker, tested by code that runs in it."""

from __future__ import annotations

import base64
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import Connection, Worker, Zygote, wait_until

SYS_SYMLINKAT = {"x86_64": 266, "aarch64": 36}[os.uname().machine]
SYS_SYMLINK = {"x86_64": 88, "aarch64": 36}[os.uname().machine]

RETURN, LOAD, JUMP_IF_EQUAL = 0x06, 0x20, 0x15
ALLOW, FAIL_WITH_EPERM = 0x7FFF0000, 0x00050001

SYSTEM = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/dev/urandom"]


def program(*instructions: tuple[int, int, int, int]) -> str:
    packed = b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)
    return base64.b64encode(packed).decode()


# Without symbolic links.
NO_SYMLINKS = program(
    (LOAD, 0, 0, 0),
    (JUMP_IF_EQUAL, 1, 0, SYS_SYMLINK),
    (JUMP_IF_EQUAL, 0, 1, SYS_SYMLINKAT),
    (RETURN, 0, 0, FAIL_WITH_EPERM),
    (RETURN, 0, 0, ALLOW),
)


def plan(scratch: Path, **changed: Any) -> dict[str, Any]:
    scratch.mkdir(exist_ok=True)
    return {
        "level": "enforce",
        "filters": [NO_SYMLINKS],
        "readable": SYSTEM,
        "scratch": str(scratch),
        **changed,
    }


@pytest.fixture
def contained(start_worker: Callable[..., Worker], tmp_path: Path) -> Connection:
    limits = {"file_mb": 1, "open_files": 64, "processes": 200}
    worker = start_worker(limits=limits, sandbox=plan(tmp_path / "scratch"))
    return worker.wait_ready()


def run(connection: Connection, code: str) -> str:
    """Run code; returns its variable `result`, or the text of its error."""
    answer = connection.send("test_execute", code=code)
    return str(answer["result"]) if answer["success"] else answer["error"]


def test_computes_in_its_sandbox(contained: Connection) -> None:
    contained.result("add_dataset", kind="lc", compute_phases=[0.0, 0.25], dataset="lc01")
    seq = contained.start("run_compute", cores=2)
    _, answer = contained.reply(seq)
    assert answer["success"], answer
    assert len(answer["result"]["model"]["lc01"]["fluxes"]) == 2


def test_computes_in_its_sandbox_without_acceleration(tmp_path: Path) -> None:
    zygote = Zygote("import os\nos.environ['PHOEBE_SERVER_ACCELERATE'] = '0'")
    zygote.wait_ready()
    worker = Worker(zygote, sandbox=plan(tmp_path / "scratch"))
    connection = worker.wait_ready()
    connection.result("add_dataset", kind="lc", compute_phases=[0.25], dataset="lc01")
    _, answer = connection.reply(connection.start("run_compute", cores=2))
    assert answer["success"], answer
    worker.close()
    zygote.close()


def test_computes_where_the_server_runs_at_a_lower_priority_than_its_runners(
    start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    worker = start_worker(sandbox=plan(tmp_path / "scratch"))
    connection = worker.wait_ready()
    os.setpriority(os.PRIO_PROCESS, worker.pid, 15)
    connection.result("add_dataset", kind="lc", compute_phases=[0.25], dataset="lc01")
    _, answer = connection.reply(connection.start("run_compute", cores=2))
    assert answer["success"], answer


def test_reads_only_what_it_needs(contained: Connection, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    for path in (secret, "/etc/passwd", "/proc/self/environ", f"/proc/{os.getpid()}/environ"):
        assert "Permission denied" in run(contained, f"result = open({str(path)!r}).read()")
    assert "Permission denied" in run(contained, "import os; result = os.listdir('/tmp')")
    readable = "import json.tool; result = len(open(json.__file__).read()) > 9"
    assert run(contained, readable) == "True"


def test_writes_only_plain_files_in_its_scratch(contained: Connection, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    assert "Permission denied" in run(contained, f"open({str(outside)!r}, 'w')")
    assert "Permission denied" in run(contained, "import phoebe; open(phoebe.__file__, 'a')")
    assert run(contained, "open('a', 'w').write('x'); import os; result = os.listdir()") == "['a']"
    assert (tmp_path / "scratch" / "a").read_text() == "x"
    assert "Permission denied" in run(contained, "import os; os.mkdir('folder')")
    assert "Permission denied" in run(contained, "import os; os.mkfifo('fifo')")
    code = "import tempfile; f = tempfile.NamedTemporaryFile(); result = f.name"
    assert run(contained, code).startswith(str(tmp_path / "scratch"))


def test_filters_are_in_force(contained: Connection) -> None:
    error = run(contained, "import os; os.symlink('/', 'link')")
    assert "Operation not permitted" in error


def test_limits_are_in_force(contained: Connection) -> None:
    assert "File too large" in run(contained, "open('big', 'wb').write(bytes(2 << 20))")
    many = "files = [open('/dev/null') for _ in range(100)]"
    assert "Too many open files" in run(contained, many)
    cores = "import resource; result = resource.getrlimit(resource.RLIMIT_CORE)"
    assert run(contained, cores) == "[1, 1]"
    assert "not allowed" in run(
        contained, "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 40, 1 << 40))"
    )


def test_cannot_connect(contained: Connection) -> None:
    code = "import socket; socket.create_connection(('127.0.0.1', {}))"
    assert "Permission denied" in run(contained, code.format(contained.port))


def test_a_backend_that_is_a_program_is_absent(contained: Connection) -> None:
    contained.result("add_dataset", kind="lc", dataset="lc01", times=[0.1])
    contained.result("add_compute", kind="jktebop", compute="comp01")
    contained.result("set_value_all", qualifier="ld_mode", value="manual")
    contained.result("set_value_all", qualifier="irrad_method", value="none")
    error = contained.error("run_compute", compute="comp01")
    assert error.startswith("jktebop executable not found: sessions start no programs")


def test_runs_no_program(contained: Connection) -> None:
    assert "Permission denied" in run(contained, "import os; os.execv('/usr/bin/true', ['true'])")


def test_signals_its_own_processes_only(
    start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    neighbour = start_worker(sandbox=plan(tmp_path / "b"))
    neighbour.wait_ready()
    worker = start_worker(sandbox=plan(tmp_path / "a"))
    connection = worker.wait_ready()
    for pid in (neighbour.pid, os.getpid(), worker.zygote.process.pid):
        error = run(connection, f"import os; os.kill({pid}, 0)")
        assert "Operation not permitted" in error
    own = "import os, signal\nchild = os.fork()\nif not child: signal.pause()\n"
    own += "os.kill(child, 9); result = os.waitpid(child, 0)[1]"
    assert run(connection, own) == "9"


def test_a_runner_and_its_processes_are_ended(
    start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    worker = start_worker(sandbox=plan(tmp_path / "scratch"))
    connection = worker.wait_ready()
    seq = connection.start("test_sleep_with_child")
    runner = worker.runner()
    wait_until(lambda: Path(f"/proc/{runner}/task/{runner}/children").read_text(), "a grandchild")
    connection.cancel(seq, "enough")
    assert connection.reply(seq)[1]["error"].startswith("Cancelled")
    wait_until(
        lambda: not Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text(),
        "nothing is left of the runner",
    )


def test_holds_no_key_of_another_session(start_worker: Callable[..., Worker]) -> None:
    """Workers are copies of the zygote, so the zygote must never hold a key."""
    earlier = start_worker()
    earlier.wait_ready()
    later = start_worker()
    later.wait_ready()
    memory = writable_memory(later.pid)

    def holds(key: bytes) -> bool:
        return any(form in each for form in (key, key.hex().encode()) for each in memory)

    assert holds(later.key)
    assert not holds(earlier.key)


def writable_memory(pid: int) -> list[bytes]:
    regions = []
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in maps:
            addresses, access, *_ = line.split()
            if access.startswith("rw"):
                start, end = (int(each, 16) for each in addresses.split("-"))
                memory.seek(start)
                regions.append(memory.read(end - start))
    return regions


def test_is_killed_first_when_memory_runs_out(
    start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    worker = start_worker(sandbox=plan(tmp_path / "scratch"))
    worker.wait_ready()
    assert Path(f"/proc/{worker.pid}/oom_score_adj").read_text() == "500\n"


def test_has_no_capabilities_and_gains_none(
    start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    worker = start_worker(sandbox=plan(tmp_path / "scratch"))
    worker.wait_ready()
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{worker.pid}/status").read_text().splitlines()
    )
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    assert status["NoNewPrivs"] == "1"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change to another account")
def test_changes_to_another_account(start_worker: Callable[..., Worker], tmp_path: Path) -> None:
    """An account without access to the interpreter gets an error that names the folder."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    os.chown(scratch, 65534, 65534)
    sandbox = plan(scratch, account={"uid": 65534, "gid": 65534}, level="best-effort")
    worker = start_worker(sandbox=sandbox)
    connection = worker.wait_ready()
    code = "import os; result = os.getresuid(), os.getresgid(), os.getgroups()"
    assert run(connection, code) == "[[65534, 65534, 65534], [65534, 65534, 65534], []]"
    assert run(connection, "open('a', 'w').write('x'); result = 1") == "1"
    assert (scratch / "a").stat().st_uid == 65534


@pytest.mark.parametrize(("level", "starts"), [("enforce", False), ("best-effort", True)])
def test_a_part_that_fails(
    start_worker: Callable[..., Worker], tmp_path: Path, level: str, starts: bool
) -> None:
    broken = plan(tmp_path / "scratch", level=level, filters=[program((0xFF, 0, 0, 0))])
    worker = start_worker(sandbox=broken)
    if starts:
        assert worker.wait_ready().result("ping") == {"status": "ready"}
        assert "the sandbox is incomplete: [Errno 22] seccomp" in worker.log_text()
    else:
        with pytest.raises(AssertionError, match="seccomp: Invalid argument"):
            worker.wait_ready()
