"""Write a file as users of another PHOEBE have them: `PYTHON make.py FOLDER`.

Runs on Python 2.7 and PHOEBE 2.0 as well as on the newest of both, with nothing else. What it
writes, `phoebe-VERSION.phoebe.gz` and, where that PHOEBE can, `phoebe-1-by-VERSION.phoebe.gz`,
lies beside it.
"""

# It runs on Python 2.7 too.
# ruff: noqa: UP010, UP031

from __future__ import print_function

import gzip
import os
import sys

import phoebe

TIMES = [0.0, 0.11, 0.25, 1.0 / 3, 0.5]
FLUXES = [0.9, 1.0, 1.1, 1.05, 0.95]


def build():
    b = phoebe.default_binary()
    b.set_value("period", component="binary", context="component", value=2.345678901234567)
    b.set_value("incl", component="binary", context="component", value=87.5)
    b.set_value("teff", component="secondary", context="component", value=5432.1)
    b.add_dataset("lc", dataset="lc01", times=TIMES, fluxes=FLUXES, sigmas=[0.01] * 5,
                  passband="Johnson:V")
    b.add_dataset("rv", dataset="rv01", times=TIMES[:2])
    b.flip_constraint("mass@primary", solve_for="sma@binary")
    b.set_value("mass", component="primary", context="component", value=1.25)
    return b


def compress(path, name):
    with open(path, "rb") as plain:
        data = plain.read()
    os.remove(path)
    # No name and no time of making: the same content is the same file.
    with open(name, "wb") as target:
        packed = gzip.GzipFile("", "wb", 9, target, mtime=0)
        packed.write(data)
        packed.close()
    print(name, len(data))


def main(folder):
    version = phoebe.__version__
    b = build()
    plain = os.path.join(folder, "plain")
    b.save(plain)
    compress(plain, os.path.join(folder, "phoebe-%s.phoebe.gz" % version))
    if hasattr(b, "export_legacy"):
        b.add_compute("legacy", compute="legacy01")
        b.remove_dataset("rv01")
        try:
            b.set_value_all("ld_mode", "manual")
            b.set_value_all("ld_mode_bol", "manual")
            b.set_value_all("atm", compute="legacy01", value="extern_atmx")
            b.export_legacy(plain, compute="legacy01")
        except Exception as error:
            print("no PHOEBE 1 file:", error)
        else:
            compress(plain, os.path.join(folder, "phoebe-1-by-%s.phoebe.gz" % version))


if __name__ == "__main__":
    main(sys.argv[1])
