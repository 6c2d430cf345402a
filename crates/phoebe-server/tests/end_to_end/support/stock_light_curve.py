"""A light curve as PHOEBE computes it without a server: phases as JSON in, fluxes as JSON out."""

import json
import sys

import phoebe

phases = json.loads(sys.argv[1])
bundle = phoebe.default_binary()
# A session's Bundle differs from PHOEBE's default: masses are free, a and q follow.
bundle.flip_constraint("mass@primary", solve_for="sma@binary")
bundle.flip_constraint("mass@secondary", solve_for="q")
bundle.set_value("period@binary", 1.5)
bundle.add_dataset("lc", dataset="lc01", passband="Johnson:V", compute_phases=phases)
bundle.run_compute()
print(json.dumps(list(bundle.get_value("fluxes", dataset="lc01", context="model"))))
