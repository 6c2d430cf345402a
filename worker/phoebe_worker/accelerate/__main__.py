"""Prints the table of `sources` for the installed PHOEBE. Review the changed functions first."""

from __future__ import annotations

from . import PATCHES
from .registry import source_digest


def main() -> None:
    print("DIGESTS = {")
    for name in sorted({name for patch in PATCHES for name in patch.guards}):
        print(f'    "{name}": (\n        "{source_digest(name)}"\n    ),')
    print("}")


main()
