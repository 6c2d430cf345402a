"""Payloads that read or change what is not theirs on the disk."""

import ctypes
import os
import struct


def _bundle():
    import gc

    return next(each for each in gc.get_objects() if type(each).__name__ == "Bundle")


def reads_the_configuration(at):
    return open(at.config).read()


def reads_the_database(at):
    files = (at.database, at.database + "-wal")
    content = "".join(open(file, "rb").read().decode("latin-1") for file in files)
    return content[content.index("canary" + "-") :][:100]


def reads_a_file_beside_the_data(at):
    return open(at.decoy).read()


def reads_through_a_symbolic_link(at):
    os.symlink(at.decoy, "link")
    try:
        return open("link").read()
    finally:
        os.remove("link")


def reads_through_a_hard_link(at):
    os.link(at.decoy, "hard")
    try:
        return open("hard").read()
    finally:
        os.remove("hard")


def reads_through_the_neighbours_working_directory(at):
    return open(f"/proc/{at.neighbour}/cwd/{os.path.basename(at.decoy)}").read()


def reads_through_the_neighbours_root(at):
    return open(f"/proc/{at.neighbour}/root{at.decoy}").read()


def lists_the_data_directory(at):
    return os.listdir(at.data)


def lists_temporary_files(at):
    return os.listdir("/tmp")


def opens_the_list_of_accounts(at):
    return open("/etc/passwd").readline()


def writes_beside_the_data(at):
    path = at.decoy + ".new"
    open(path, "w").write("x")
    os.remove(path)
    return path


def overwrites_a_file(at):
    with open(at.victim, "r+") as file:
        file.write("overwritten")
    return open(at.victim).read()


def truncates_a_file(at):
    os.truncate(at.victim, 1)
    return os.path.getsize(at.victim)


def renames_a_file(at):
    os.rename(at.victim, at.victim + ".away")
    os.rename(at.victim + ".away", at.victim)
    return "renamed"


def deletes_a_file(at):
    os.remove(at.victim)
    open(at.victim, "w").write("made again")
    return "deleted"


def opens_the_configuration_for_all(at):
    mode = os.stat(at.config).st_mode
    os.chmod(at.config, 0o666)
    changed = os.stat(at.config).st_mode & 0o777
    os.chmod(at.config, mode)
    return oct(changed)


def sets_back_the_clock_of_a_file(at):
    os.utime(at.victim, (1, 1))
    return os.stat(at.victim).st_mtime


def writes_into_the_packages(at):
    path = os.path.join(at.package, "planted.py")
    open(path, "w").write("raise SystemExit")
    os.remove(path)
    return path


def writes_into_shared_memory(at):
    path = f"/dev/shm/escape-{os.getpid()}"
    open(path, "w").write("x")
    os.remove(path)
    return path


def saves_the_bundle_elsewhere(at):
    path = at.decoy + ".phoebe"
    _bundle().save(path)
    os.remove(path)
    return path


def exports_data_elsewhere(at):
    path = at.decoy + ".export"
    phases = _bundle().filter(qualifier=["compute_phases"], dataset="lc01", context="dataset")
    phases.export_arrays(path)
    os.remove(path)
    return path


def makes_folders_without_end(at):
    for _ in range(50):
        os.mkdir("deeper")
        os.chdir("deeper")
    for _ in range(50):
        os.chdir("..")
        os.rmdir("deeper")
    return "50 deep"


def makes_a_pipe_with_a_name(at):
    os.mkfifo("fifo")
    os.remove("fifo")
    return "made"


def watches_the_data_directory(at):
    fd = _check("inotify", _libc.inotify_init1(0))
    _check("inotify", _libc.inotify_add_watch(fd, at.data.encode(), 2))
    os.close(fd)
    return "watching"


def opens_a_file_by_its_handle(at):
    """What Landlock allows is found by path; a handle needs none. Root's privilege."""
    handle = ctypes.create_string_buffer(struct.pack("=Ii", 128, 0) + bytes(128))
    mount = ctypes.c_int()
    opened = _libc.name_to_handle_at(-100, at.decoy.encode(), handle, ctypes.byref(mount), 0)
    _check("name_to_handle_at", opened)
    return "handle"
