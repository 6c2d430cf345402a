"""What is changed in PHOEBE, each with its reason. No number that it computes is altered here."""

from __future__ import annotations

import os

DEFAULT_PASSBAND = "Johnson:V"


def list_passbands_in_stable_order() -> None:
    """PHOEBE lists a dataset's passbands in the order of a set, which differs from run to run.

    Clients show these choices and the errors that list them: PHOEBE's default passband first, the
    others by name.
    """
    from phoebe.atmospheres import passbands
    from phoebe.parameters import parameters

    stock = passbands.list_passbands

    def list_passbands(*args, **kwargs):  # type: ignore[no-untyped-def]
        listed = stock(*args, **kwargs)
        if isinstance(listed, list):
            listed.sort(key=lambda name: (name != DEFAULT_PASSBAND, name))
        return listed

    passbands.list_passbands = list_passbands
    parameters.list_passbands = list_passbands


def list_servers_without_a_program() -> None:
    """Before a compute PHOEBE asks a shell for remote machines: `ls ~/.crimpl/servers/`.

    A contained worker may start no program. The same folder is read; hidden files and names with
    blanks are treated as `ls` and `split` treat them.
    """
    from phoebe.dependencies import crimpl

    def list_servers() -> list[str]:
        directory = os.path.expanduser("~/.crimpl/servers/")
        try:
            names = sorted(name for name in os.listdir(directory) if not name.startswith("."))
        except OSError:
            return []
        return [os.path.basename(word)[:-5] for word in "\n".join(names).split()]

    crimpl.list_servers = list_servers


def say_that_jktebop_is_absent() -> None:
    """PHOEBE's backend jktebop asks a shell for the program of that name.

    A contained worker may start none, nor see one: the user is told what PHOEBE says where it is
    not installed.
    """
    from phoebe.backend.backends import JktebopBackend

    stock = JktebopBackend.run_checks

    def run_checks(*args, **kwargs):  # type: ignore[no-untyped-def]
        try:
            return stock(*args, **kwargs)
        except (PermissionError, FileNotFoundError):
            message = "jktebop executable not found: sessions start no programs. Use phoebe."
            raise ImportError(message) from None

    JktebopBackend.run_checks = run_checks
