"""Reports installed passband files, or checks one before its installation.

Passband files are untrusted, so this process enters the sandbox of a worker before it opens one. It
writes one line of JSON to standard output and changes nothing.
"""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

import orjson

from . import lifeline, limits, passband_files, protocol, sandbox
from .zygote import take_over_stdin

_NAME_CHARACTERS_MAX = 64
_TEXT_CHARACTERS_MAX = 500
_NOT_IN_NAMES = "'\"@\\/,"  # separators of twigs, and quotes around names in PHOEBE's texts


class Refused(Exception):
    """Sessions cannot use the file. The text gives the reason."""


def run() -> NoReturn:
    """Answer the one request on standard input, which is a lifeline."""
    peer = take_over_stdin()
    request = protocol.parse_packet(peer.recv(protocol.PACKET_BYTES_MAX))
    lifeline.arm(peer, whole_group=True)
    out = os.dup(1)
    os.dup2(2, 1)  # keeps PHOEBE's output out of the answer
    passband_files.guard()
    import phoebe  # noqa: F401
    from astropy.io import fits

    fits.conf.use_memmap = False
    start = protocol.Start.parse(request["start"])
    passband_files.use_folder(request.get("folder"))
    limits.limit_memory(start.limits.get("memory_mb"))
    sandbox.enter(start)
    passband_files.scan()
    path = request.get("check")
    answer = _list_files() if path is None else _check_file(str(path))
    sys.stdout.flush()
    os.write(out, orjson.dumps(answer) + b"\n")
    os._exit(0)


def _list_files() -> dict[str, Any]:
    from phoebe.atmospheres import passbands

    listed: list[dict[str, Any]] = []
    for path, file in passband_files.files().items():
        entry = file.entry
        if entry is None:
            listed.append({"file": path, "problem": _printable(file.problem)})
            continue
        in_force = passbands._pbtable[file.name] is entry
        try:
            passband = passbands.Passband.load(path, load_content=False)
        except Exception as error:
            listed.append({"file": path, "problem": _printable(f"{type(error).__name__}: {error}")})
            continue
        listed.append({"file": path, "in_force": in_force, **_describe(passband)})
    return {"files": listed}


def _check_file(path: str) -> dict[str, Any]:
    from phoebe.atmospheres.passbands import Passband

    try:
        try:
            passband = Passband.load(path)
        except Exception as error:
            raise Refused(f"PHOEBE cannot load it: {type(error).__name__}: {error}") from None
        _check_name(passband)
        _check_tables(passband)
    except Refused as refused:
        return {"refused": _printable(str(refused))}
    return {"accepted": {"file": path, "in_force": False, **_describe(passband)}}


def _describe(passband: Any) -> dict[str, Any]:
    atmospheres = {each.split(":")[0] for each in passband.content}
    return {
        "name": _printable(f"{passband.pbset}:{passband.pbname}"),
        "version": _printable(str(passband.version)),
        "made": _printable(str(passband.timestamp)),
        "reference": _printable(str(passband.reference)),
        "atmospheres": sorted(map(_printable, atmospheres))[:50],
        "content": sorted(map(_printable, passband.content))[:500],
    }


def _check_name(passband: Any) -> None:
    for header, name in (("PBSET", passband.pbset), ("PBNAME", passband.pbname)):
        if not isinstance(name, str) or not name.strip() or len(name) > _NAME_CHARACTERS_MAX:
            raise Refused(f"its header {header} must be a name of at most 64 characters")
        wrong = [each for each in name if each in _NOT_IN_NAMES or not each.isprintable()]
        if wrong or ":" in name:
            raise Refused(f"its header {header} holds a character that is in no passband's name")
    if not isinstance(passband.version, int | float):
        raise Refused("its header VERSION must be a number")


def _check_tables(passband: Any) -> None:
    """Check that each table exists, has the shape of its axes, and holds numbers."""
    import numpy as np
    from phoebe.atmospheres import models

    known = {each.name for each in models.get_supported_atms()}
    if not any(each.split(":")[0] in known for each in passband.content):
        raise Refused(
            "it has tables for no atmosphere that this PHOEBE knows: "
            f"{', '.join(passband.content) or 'none at all'}"
        )
    area = passband.ptf_photon_area
    if not np.all(np.isfinite([passband.effwl.value, area])) or area <= 0:
        raise Refused("its transmission is not positive")
    index = getattr(passband, "extern_wd_idx", 1)
    if not isinstance(index, int) or not 1 <= index <= 25:
        raise Refused("its header WD_IDX is the number of no passband of the Wilson-Devinney code")
    for atmosphere, interpolator in passband.ndp.items():
        for name, table in interpolator.table.items():
            title = f"its table {name} of {atmosphere}"
            axes = (*interpolator.axes, *(table["associated_axes"] or ()))
            shape = tuple(len(axis) for axis in axes)
            grid = np.asarray(table["grid"])
            if not all(len(axis) > 1 and np.all(np.diff(axis) > 0) for axis in axes):
                raise Refused(f"{title} has an axis that does not rise")
            if grid.dtype.kind != "f" or grid.shape[:-1] != shape:
                raise Refused(f"{title} has the shape {grid.shape}, not {shape} as its axes say")
            if not np.any(np.isfinite(grid)):
                raise Refused(f"{title} holds no number")


def _printable(text: str) -> str:
    """Text that is safe to print: one line, bounded."""
    printable = "".join(each if each.isprintable() else "?" for each in text)
    return printable[:_TEXT_CHARACTERS_MAX].encode("utf-8", "replace").decode("utf-8")
