"""`python -m phoebe_worker zygote|spawn|probe|passbands`; see docs/protocol.md."""

from __future__ import annotations

import os
import sys


def main() -> None:
    from .environment import VARIABLES

    os.environ.update(VARIABLES)  # before anything imports NumPy
    mode = sys.argv[1] if len(sys.argv) == 2 else ""
    if mode == "zygote":
        from . import zygote

        zygote.run()
    elif mode == "spawn":
        from . import spawn

        spawn.run()
    elif mode == "probe":
        from . import spawn

        spawn.probe()
    elif mode == "passbands":
        from . import passband_report

        passband_report.run()
    else:
        sys.exit("usage: python -m phoebe_worker zygote|spawn|probe|passbands")


main()
