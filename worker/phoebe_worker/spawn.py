"""A worker in a fresh interpreter, where forks cannot be trusted; and the probe."""

from __future__ import annotations

import os
import signal
import stat
import sys
import traceback
from typing import NoReturn

import orjson

from . import lifeline, protocol, sandbox, templates
from .zygote import take_stdin


def run() -> NoReturn:
    """A worker whose lifeline is standard input; the one packet on it is START."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at the server's terminal is the server's
    peer = take_stdin()
    start = lifeline.receive_start(peer)
    try:
        try:
            os.setsid()
        except PermissionError:
            pass  # it leads its group already
        lifeline.arm(peer, whole_group=True)
        prepared = templates.prepare()
        info = templates.info(prepared)
    except BaseException as error:
        traceback.print_exc()
        peer.send(protocol.packet({"failed": "error", "error": str(error)}))
        os._exit(1)
    from . import worker

    worker.run(start, peer, prepared, info)


def probe() -> None:
    """Print INFO as one line of JSON; what PHOEBE prints goes to standard error.

    Standard input may be a lifeline: then the probe ends when whoever asked is gone.
    """
    if stat.S_ISSOCK(os.fstat(0).st_mode):
        peer = take_stdin()  # held until the end: it is the lifeline
        lifeline.arm(peer, whole_group=False)
    out = os.dup(1)
    os.dup2(2, 1)
    info = templates.info(templates.prepare()) | sandbox.prepare_root_folder()
    sys.stdout.flush()
    os.write(out, orjson.dumps(info) + b"\n")
