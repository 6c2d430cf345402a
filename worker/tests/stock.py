"""The recorded session's computations done with PHOEBE alone; prints the results as JSON.

Run in a process of its own, so that nothing of `phoebe_worker` has touched PHOEBE.
"""

from __future__ import annotations

import json
from typing import Any

import phoebe

PHASES = [-0.5, -0.25, -0.02, 0.0, 0.02, 0.25, 0.5]
OBSERVED = {
    "times": [0.0, 0.1, 0.2, 0.3, 0.4, 0.5],
    "fluxes": [1.0, 1.1, 1.05, 1.1, 1.02, 1.0],
    "sigmas": [0.01] * 6,
}


def results(bundle: Any) -> dict[str, Any]:
    def values(qualifier: str, dataset: str, component: str | None = None) -> list[float]:
        found = bundle.get_value(
            qualifier=qualifier, dataset=dataset, component=component, context="model"
        )
        return [float(value) for value in found.ravel()]

    return {
        "fluxes": values("fluxes", "lc01"),
        "rvs_primary": values("rvs", "rv01", "primary"),
        "rvs_secondary": values("rvs", "rv01", "secondary"),
    }


def main() -> None:
    phoebe.progressbars_off()
    bundle = phoebe.default_binary()
    bundle.add_solver("differential_corrections", solver="dc")
    bundle.flip_constraint("mass@primary", solve_for="sma@binary")
    bundle.flip_constraint("mass@secondary", solve_for="q")
    bundle.set_value("period@binary", value=1.5)
    bundle.set_value("mass@primary", value=2)
    bundle.set_value("period@binary", value=1.25)
    bundle.add_dataset("lc", dataset="lc01", passband="Johnson:V", compute_phases=PHASES)
    bundle.add_dataset("rv", dataset="rv01", compute_phases=[-0.25, 0, 0.25])
    bundle.run_compute()
    computed = results(bundle)
    for qualifier, value in OBSERVED.items():
        bundle.set_value(qualifier=qualifier, dataset="lc01", context="dataset", value=value)
    bundle.set_value("fit_parameters@solver", value=["teff@primary", "incl@binary"])
    bundle.run_solver(solver="dc", solution="sol01")
    fitted = bundle.get_value(qualifier="fitted_values", solution="sol01")
    bundle.run_compute(solution="sol01", overwrite=True)
    print(
        json.dumps(
            {
                "run_compute": computed,
                "run_solver": [float(value) for value in fitted],
                "run_compute w solution": results(bundle),
            }
        )
    )


if __name__ == "__main__":
    main()
