"""A worker in a fresh interpreter, for machines where forks cannot be used; and the probe."""

from __future__ import annotations

import os
import signal
import stat
import sys
import traceback
from typing import NoReturn

import orjson

from . import lifeline, protocol, sandbox, templates
from .zygote import take_over_stdin


def run() -> NoReturn:
    """Run a worker. Standard input is its lifeline and carries one packet, START."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server alone handles Ctrl-C
    peer = take_over_stdin()
    start = lifeline.receive_start(peer)
    try:
        try:
            os.setsid()
        except PermissionError:
            pass  # it already leads its group
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
    """Print INFO as one line of JSON; PHOEBE's own output goes to standard error.

    Standard input may be a lifeline. The probe then ends with its parent.
    """
    if stat.S_ISSOCK(os.fstat(0).st_mode):
        peer = take_over_stdin()  # referenced until the end: it is the lifeline
        lifeline.arm(peer, whole_group=False)
    out = os.dup(1)
    os.dup2(2, 1)
    info = templates.info(templates.prepare()) | sandbox.prepare_root_folder()
    sys.stdout.flush()
    os.write(out, orjson.dumps(info) + b"\n")
