"""Print `sources.py` for the PHOEBE installed, once the functions it names were looked at anew."""

from __future__ import annotations

from . import PATCHES
from .registry import source_digest


def main() -> None:
    names = sorted({name for patch in PATCHES for name in patch.relies_on})
    print('"""SHA-256 of the source of every PHOEBE function that a patch was written for."""')
    print("\nSOURCES = {")
    for name in names:
        print(f'    "{name}": (\n        "{source_digest(name)}"\n    ),')
    print("}")


main()
