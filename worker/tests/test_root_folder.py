"""The root folder of workers, entered by forks of this process."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import MISBEHAVING, Worker, Zygote
from test_sandbox import SYSTEM, plan, run

from phoebe_worker import forked, mounts, root_folder
from phoebe_worker.root_folder import Contents, Specification, Unavailable, contents

NOBODY = 65534
PR_SET_DUMPABLE = 4


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user may enter, unlike pytest's."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        folder = Path(name).resolve()
        (folder / "scratch").mkdir(mode=0o777)
        (folder / "scratch").chmod(0o777)
        yield folder


def specification(
    place: Path, *readable: Path | str, changing: tuple[str, ...] = ()
) -> Specification:
    named = tuple(map(str, readable))
    return Specification((*named, *changing), changing, str(place / "scratch"))


def in_a_fork(function: Callable[[], object], user: int | None = None) -> str:
    """The result of the function in a fork, as text, or its error."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if user is not None and os.geteuid() == 0:
                os.setgroups([])
                os.setresgid(user, user, user)
                os.setresuid(user, user, user)
                forked.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)  # as after the start of a program
            said = str(function())
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(write_end, said.encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as said:
        text = said.read()
    os.waitpid(child, 0)
    return text


def entered(root: Specification, look: Callable[[], object], user: int | None = None) -> str:
    def enter() -> object:
        root_folder.enter(root)
        return look()

    return in_a_fork(enter, user)


def test_folders_below_others_come_with_them(place: Path) -> None:
    (place / "a/b").mkdir(parents=True)
    (place / "ab").mkdir()
    found = contents(specification(place, place / "a", place / "a/b", place / "ab", place / "none"))
    ours = tuple(path for path in found.copied if path.startswith(str(place)))
    assert ours == (str(place / "a"), str(place / "ab"))
    assert found.writable == str(place / "scratch")


def test_links_are_followed_and_kept(place: Path) -> None:
    (place / "real/lib").mkdir(parents=True)
    (place / "lib").symlink_to("real/lib")
    (place / "way").symlink_to(place / "real")
    (place / "real/inner").symlink_to("lib")
    (place / "loop").symlink_to("loop")
    paths = place / "lib", place / "way/../lib/", place / "way/inner"
    found = contents(specification(place, *paths))
    assert str(place / "real/lib") in found.copied
    ours = {path: to for path, to in found.links if path.startswith(str(place))}
    assert ours == {
        str(place / "lib"): "real/lib",
        str(place / "way"): str(place / "real"),
        str(place / "real/inner"): "lib",
    }
    assert contents(specification(place, place / "loop")).copied == ("/dev/null",)


def test_the_root_folder_itself_is_refused(place: Path) -> None:
    (place / "all").symlink_to("/")
    with pytest.raises(Unavailable, match="root folder itself"):
        contents(specification(place, place / "all"))


def test_specified_paths_exist(place: Path) -> None:
    assert contents(specification(place)) == Contents(("/dev/null",), str(place / "scratch"), ())


@pytest.mark.parametrize("user", [None, NOBODY])
def test_nothing_else_exists(place: Path, user: int | None) -> None:
    (place / "folder").mkdir()
    (place / "folder/file").write_text("x")
    (place / "file").write_text("y")
    (place / "link").symlink_to("folder")
    (place / "secret").write_text("z")
    root = specification(place, place / "link", place / "file", "/dev/urandom")

    def look() -> list[object]:
        top = sorted(os.listdir("/"))
        own = sorted(os.listdir(place))
        read = [(place / each).read_text() for each in ("folder/file", "link/file", "file")]
        with open("/dev/urandom", "rb") as random:
            read.append(str(len(random.read(2))))
        others = ("/proc", "/etc/passwd", str(place / "secret"))
        seen = list(filter(os.path.exists, others))
        return [top, own, read, seen, os.getcwd(), os.stat("/").st_mode & 0o777]

    first = place.parts[1]
    expected = [
        sorted(["dev", first]),
        ["file", "folder", "link", "scratch"],
        ["x", "x", "y", "2"],
        [],
        "/",
        0o755,
    ]
    assert entered(root, look, user) == str(expected)


@pytest.mark.parametrize("user", [None, NOBODY])
def test_only_the_scratch_folder_can_be_written(place: Path, user: int | None) -> None:
    folder = place / "folder"
    folder.mkdir()
    folder.chmod(0o777)

    def look() -> list[str]:
        refused = []
        for path in ("/new", f"{place}/new", f"{folder}/new", "/dev/new"):
            try:
                open(path, "w").close()
            except OSError as error:
                refused.append(str(error.strerror))
        (place / "scratch/new").write_text("mine")
        open("/dev/null", "w").close()
        return [*sorted(set(refused)), str(len(refused))]

    assert entered(specification(place, folder), look, user) == "['Read-only file system', '4']"
    assert (place / "scratch/new").read_text() == "mine"
    assert not any(folder.iterdir())


def test_a_scratch_folder_in_a_readable_one_can_be_written(place: Path) -> None:
    def look() -> str:
        (place / "scratch/new").write_text("mine")
        open(place / "new", "w").close()
        return "written"

    assert "Read-only file system" in entered(specification(place, place), look)
    assert (place / "scratch/new").exists()


def test_users_keep_their_ids_and_may_make_namespaces(place: Path) -> None:
    """A worker limits its processes in another user namespace."""

    def look() -> list[int]:
        ids = [os.getuid(), os.geteuid(), os.getgid(), (place / "scratch").stat().st_uid]
        mounts.unshare(mounts.CLONE_NEWUSER)
        return ids

    if os.geteuid() == 0:
        os.chown(place / "scratch", NOBODY, NOBODY)
        assert entered(specification(place), look, NOBODY) == str([NOBODY] * 4)
    else:
        user, group = os.getuid(), os.getgid()
        assert entered(specification(place), look) == str([user, user, group, user])


def test_forks_enter_what_was_prepared_and_hold_no_descriptor_of_it(place: Path) -> None:
    root = specification(place)

    def prepare_and_enter() -> list[object]:
        problem = root_folder.prepare(root)
        held = root_folder.descriptors()
        inode = os.fstat(held[0]).st_ino
        child_says = in_a_fork(lambda: (root_folder.enter(root), _open_descriptors(held))[1])
        return [problem, bool(inode), child_says, len(_open_descriptors(held)) == len(held)]

    assert in_a_fork(prepare_and_enter) == str([None, True, "[]", True])


def _open_descriptors(descriptors: tuple[int, ...]) -> list[int]:
    found = []
    for descriptor in descriptors:
        try:
            os.fstat(descriptor)
        except OSError:
            continue
        found.append(descriptor)
    return found


def test_a_folder_that_is_made_later_is_found(place: Path) -> None:
    later = place / "later"
    root = specification(place, changing=(str(later),))

    def prepare_and_enter() -> list[str]:
        assert root_folder.prepare(root) is None
        found = [in_a_fork(lambda: (root_folder.enter(root), later.exists())[1])]
        later.mkdir()
        (later / "file").write_text("x")
        found.append(in_a_fork(lambda: (root_folder.enter(root), os.listdir(later))[1]))
        return found

    assert in_a_fork(prepare_and_enter) == str(["False", "['file']"])


def test_files_that_come_later_are_found(place: Path) -> None:
    folder = place / "folder"
    folder.mkdir()
    root = specification(place, folder)

    def enter_and_wait() -> list[str]:
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            root_folder.enter(root)
            os.read(read_end, 1)
            os._exit(len(os.listdir(folder)))
        (folder / "file").write_text("x")
        os.write(write_end, b"x")
        return [str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))]

    assert in_a_fork(enter_and_wait) == "['1']"


def test_a_failure_is_reported_once(place: Path) -> None:
    root = Specification((), (), str(place / "nowhere"))
    reason = f"open_tree {place}/nowhere: No such file or directory"

    def prepare_and_enter() -> list[object]:
        problem = root_folder.prepare(root)
        root_folder.enter(root)
        return [problem, os.path.exists("/proc")]

    assert in_a_fork(prepare_and_enter) == str([reason, True])
    assert entered(root, str) == f"Unavailable: [Errno 0] {reason}"


def test_no_process_is_left(place: Path) -> None:
    def prepare() -> list[object]:
        root_folder.prepare(specification(place))
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
        return [children, stat.S_ISREG(os.fstat(root_folder.descriptors()[0]).st_mode)]

    assert in_a_fork(prepare) == str(["", True])


def test_a_zygotes_workers_compute_in_it(place: Path) -> None:
    (place / "secret").write_text("z")
    (place / "scratch/of-one").mkdir()
    shared = {"readable": SYSTEM, "scratch": str(place / "scratch")}
    zygote = Zygote(MISBEHAVING, shared)
    try:
        assert "metadata_problem" not in zygote.wait_ready()
        worker = Worker(zygote, sandbox=plan(place / "scratch/of-one"))
        connection = worker.wait_ready()
        connection.result("add_dataset", kind="lc", compute_phases=[0.0, 0.25], dataset="lc01")
        _, answer = connection.reply(connection.start("run_compute", cores=2))
        assert answer["success"], answer
        code = "import os; result = [os.path.exists(each) for each in {}]"
        seen = [str(place / "secret"), "/proc", "/bin/sh", "/etc/hostname", str(place / "scratch")]
        assert run(connection, code.format(seen)) == str([False] * 4 + [True])
        late = "import json.tool, linecache; result = len(linecache.getlines(json.tool.__file__))"
        assert int(run(connection, late)) > 50
        assert worker.log_text() == ""
        worker.close()
    finally:
        zygote.close()
