"""Payloads that open nothing: what exists, how large it is, whose, and when it changed."""

import ctypes
import os

_AT_FDCWD = -100


def _exists(found):
    if not found:
        raise OSError("nothing is seen")
    return found


def stats_the_database(at):
    return os.stat(at.database).st_size


def stats_the_settings(at):
    return os.lstat(at.config).st_mtime


def stats_a_file_beside_the_data(at):
    return os.stat(at.decoy).st_uid


def stats_by_statx(at):
    buffer = ctypes.create_string_buffer(256)
    _check("statx", _libc.statx(_AT_FDCWD, at.database.encode(), 0, 0x7FF, buffer))
    return buffer.raw.hex()


def asks_for_access(at):
    return _exists(os.access(at.database, os.F_OK))


def asks_for_access_with_its_real_user(at):
    return _exists(os.access(at.config, os.W_OK, effective_ids=False, follow_symlinks=True))


def reads_where_a_link_leads(at):
    """The link's target is beside the data; its name holds the secret."""
    return os.readlink(at.link)


def asks_for_the_file_system(at):
    return os.statvfs(at.database).f_files


def asks_for_an_extended_attribute(at):
    """Where there is none, ENODATA says that there is a file."""
    try:
        return os.getxattr(at.database, "user.none")
    except OSError as error:
        if error.errno not in (61, 95):  # there is none, or there are none in this file system
            raise
        return "a file"


def goes_into_the_data_directory(at):
    def go():
        os.chdir(at.data)
        return os.stat("sessions.db").st_ino, os.getcwd()

    return _in_a_child(go)


def climbs_to_the_database(at):
    """By its path from here: `../../…`."""
    here = os.getcwd()
    return os.stat(os.path.join(here, os.path.relpath(at.database, here))).st_ino


def climbs_from_an_open_folder(at):
    """A descriptor of a folder from before would lead out."""
    way_up = "../" * 40
    for descriptor in range(256):
        try:
            return os.stat(way_up + at.database.lstrip("/"), dir_fd=descriptor).st_ino
        except OSError:
            continue
    raise OSError("no descriptor leads out")


def returns_to_an_open_folder(at):
    """One that was opened before, by going there."""

    def go():
        for descriptor in range(256):
            try:
                os.fchdir(descriptor)
                os.chdir("../" * 40)
                return os.stat("." + at.config).st_ino
            except OSError:
                continue
        raise OSError("no descriptor leads out")

    return _in_a_child(go)


def passes_through_its_own_root(at):
    return os.stat("/proc/self/root" + at.database).st_ino


def passes_through_its_parents_folder(at):
    return os.stat(f"/proc/{os.getppid()}/cwd/").st_ino


def opens_a_path_only(at):
    """O_PATH asks for no right of Landlock's."""
    descriptor = os.open(at.database, os.O_PATH)
    try:
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)


def opens_a_path_with_no_limits_on_the_way(at):
    """openat2 from the root of all."""
    way = (ctypes.c_uint64 * 3)(os.O_PATH, 0, 0)
    path = b"/" + b"../" * 10 + at.decoy.encode().lstrip(b"/")
    descriptor = _libc.syscall(437, _AT_FDCWD, path, way, ctypes.c_size_t(24))
    os.close(_check("openat2", descriptor))
    return descriptor


def finds_the_accounts_of_the_machine(at):
    return os.stat("/etc/passwd").st_mtime, os.stat("/etc/shadow").st_size


def finds_which_programs_are_installed(at):
    return _exists([each for each in ("env", "sh", "ls") if os.path.exists(f"/usr/bin/{each}")])


def finds_the_servers_process(at):
    return os.stat(f"/proc/{at.server}").st_uid


def finds_the_neighbours_process(at):
    return os.stat(f"/proc/{at.neighbour}/task").st_mtime


def finds_processes_by_counting(at):
    return _exists([pid for pid in range(1, 500) if os.path.exists(f"/proc/{pid}")])


def finds_hardware(at):
    return os.stat("/sys/class").st_ino, os.stat("/dev/tty").st_mtime


def root_joins_the_servers_mounts(at):
    def join():
        server = os.pidfd_open(at.server)
        _check("setns", _libc.setns(server, 0x00020000))
        return os.stat(at.database).st_ino

    return _in_a_child(join)


def root_chroots_out(at):
    """The classic: a root below a folder that is still open, and up from there."""

    def leave():
        here = os.open(".", os.O_PATH)
        os.chroot(at.package)
        os.fchdir(here)
        os.chdir("../" * 40)
        return os.stat("." + at.database).st_ino

    return _in_a_child(leave)
