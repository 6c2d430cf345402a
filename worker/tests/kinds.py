"""Every kind of object that PHOEBE offers, each with the commands that use it once.

A case is a list of steps. A step is a client's command with its arguments; a step whose name is in
NO_COMMAND is PHOEBE's method of that name. `apply` takes a step with PHOEBE alone. As a program,
this file takes all steps of all cases with PHOEBE alone and prints what the Bundles hold then.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import random
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

Step = tuple[str, dict[str, Any]]

# Steps that no command does, and how a client gets their result.
NO_COMMAND = {
    "add_distribution": "distributions come with a Bundle that is uploaded or attached",
    "add_constraint": "optional constraints come with a Bundle that is uploaded",
    "add_figure": "figures are drawn by the client; their options come with a Bundle",
    "run_figure": "figures are drawn by the client",
    "default_star": "single stars come with a Bundle that is uploaded",
}

# Unavailable backends, the reason, and the error for a user.
ABSENT = {
    "ellc": (
        "its wheel on PyPI holds a library for macOS; its newest sources there need a Fortran "
        "compiler and numpy.distutils, which Python 3.12 and NumPy 2.4 no longer have",
        "could not import ellc",
    ),
    "jktebop": ("a program, and a contained worker starts none", "jktebop executable not found"),
    "legacy": ("PHOEBE 1 is not on PyPI", "phoebeBackend for phoebe legacy not found"),
}

# Cases that fail in stock PHOEBE, with the text of the error there and here.
FAILING = {
    **{kind: text for kind, (_, text) in ABSENT.items()},
    "solution.lc_geometry": "setting an array element with a sequence",  # in its drawing
}

TIMES = [0.1, 0.3, 0.5, 0.7, 0.9]
LIGHT_CURVE: list[Step] = [
    (
        "add_dataset",
        {
            "kind": "lc",
            "dataset": "lc01",
            "times": TIMES,
            "fluxes": [1.95, 2.0, 1.0, 2.0, 1.95],
            "sigmas": [0.05] * 5,
        },
    )
]
SMALL: list[Step] = [
    ("set_value_all", {"qualifier": "ntriangles", "value": 100}),
    ("set_value_all", {"qualifier": "irrad_method", "value": "none"}),
]
COMPUTE: Step = ("run_compute", {"seed": 5})


def dense_light_curve() -> list[Step]:
    """A light curve with two eclipses, for the estimators."""
    times = [step / 100 for step in range(201)]

    def flux(time: float) -> float:
        phase = time % 1
        deep = math.exp(-(((min(phase, 1 - phase)) / 0.04) ** 2))
        shallow = math.exp(-(((phase - 0.5) / 0.04) ** 2))
        return 2 - 0.8 * deep - 0.5 * shallow + 0.001 * math.sin(97 * time)

    values = {"times": times, "fluxes": [flux(t) for t in times], "sigmas": [0.01] * len(times)}
    return [("add_dataset", {"kind": "lc", "dataset": "lc01", **values})]


def velocities() -> list[Step]:
    times = [step / 20 for step in range(61)]
    rvs = {
        "primary": [-90 * math.sin(2 * math.pi * t) for t in times],
        "secondary": [110 * math.sin(2 * math.pi * t) + 0.3 * math.cos(31 * t) for t in times],
    }
    return [("add_dataset", {"kind": "rv", "dataset": "rv01", "times": times, "rvs": rvs,
                             "sigmas": [1.0] * len(times)})]  # fmt: skip


def solver(kind: str, **options: Any) -> list[Step]:
    return [
        ("add_solver", {"kind": kind, "solver": "fit01", **options}),
        ("run_solver", {"solver": "fit01", "solution": "sol01", "seed": 5}),
    ]


def figure(kind: str, **options: Any) -> list[Step]:
    return [
        ("add_figure", {"kind": kind, "figure": "fig01", **options}),
        ("run_figure", {"figure": "fig01"}),
    ]


def distribution(name: str, *arguments: Any) -> dict[str, Any]:
    """A value that `decoded` converts to a distribution."""
    return {"distribution": name, "arguments": list(arguments)}


def prior(twig: str, *arguments: Any) -> Step:
    return (
        "add_distribution",
        {"twig": twig, "value": distribution(*arguments), "distribution": "prior"},
    )


PRIORS = [
    prior("teff@secondary", "uniform", 5500, 6500),
    prior("incl@binary", "uniform", 80, 90),
]
FITTED = {"fit_parameters": ["teff@secondary"]}


def sampled(*priors: Step) -> list[Step]:
    return [*LIGHT_CURVE, *SMALL, *priors,
            ("run_compute", {"sample_from": "prior", "sample_num": 3, "seed": 5})]  # fmt: skip


def forward(kind: str, **options: Any) -> list[Step]:
    return [
        ("add_dataset", {"kind": kind, "dataset": "data01", "compute_times": TIMES[:3], **options}),
        *SMALL,
        COMPUTE,
        *figure(f"dataset.{kind}", datasets="data01"),
    ]


def gaussian_process(kind: str, **options: Any) -> list[Step]:
    return [*LIGHT_CURVE, *SMALL, ("add_feature", {"kind": kind, "dataset": "lc01", **options}),
            COMPUTE]  # fmt: skip


def constraint(*arguments: str, **options: Any) -> Step:
    return "add_constraint", {"arguments": arguments, **options}


CASES: dict[str, list[Step]] = {
    # Solvers, and the figures of their solutions
    "estimator.ebai": [
        *dense_light_curve(),
        *solver("estimator.ebai"),
        *figure("solution.ebai", solution="sol01"),
    ],
    "estimator.ebai mlp": [
        *dense_light_curve(),
        *solver("estimator.ebai", ebai_method="mlp"),
    ],
    "estimator.lc_geometry": [
        *dense_light_curve(),
        *solver("estimator.lc_geometry"),
    ],
    "solution.lc_geometry": [
        *dense_light_curve(),
        *solver("estimator.lc_geometry"),
        *figure("solution.lc_geometry", solution="sol01"),
    ],
    "estimator.lc_periodogram": [
        *dense_light_curve(),
        *solver("estimator.lc_periodogram", minimum_n_cycles=2),
        *figure("solution.lc_periodogram", solution="sol01"),
    ],
    "estimator.rv_geometry": [
        *velocities(),
        *solver("estimator.rv_geometry"),
        *figure("solution.rv_geometry", solution="sol01"),
    ],
    "estimator.rv_periodogram": [
        *velocities(),
        *solver("estimator.rv_periodogram"),
        *figure("solution.rv_periodogram", solution="sol01"),
    ],
    "optimizer.cg": [
        *LIGHT_CURVE, *SMALL, *solver("optimizer.cg", **FITTED, maxiter=1),
    ],
    "optimizer.differential_corrections": [
        *LIGHT_CURVE, *SMALL, *solver("optimizer.differential_corrections", **FITTED),
        ("adopt_solution", {"solution": "sol01"}),
    ],
    "optimizer.differential_evolution": [
        *LIGHT_CURVE, *SMALL, prior("teff@secondary", "uniform", 5500, 6500),
        *solver("optimizer.differential_evolution", **FITTED, bounds=["prior"], maxiter=1,
                popsize=2),
    ],
    "optimizer.nelder_mead": [
        *LIGHT_CURVE, *SMALL, *solver("optimizer.nelder_mead", **FITTED, maxiter=3),
        ("adopt_solution", {"solution": "sol01"}),
    ],
    "optimizer.powell": [
        *LIGHT_CURVE, *SMALL, *solver("optimizer.powell", **FITTED, maxiter=1),
    ],
    "sampler.dynesty": [
        *LIGHT_CURVE, *SMALL, *PRIORS,
        *solver("sampler.dynesty", priors=["prior"], nlive=5, maxiter=2),
        *figure("solution.dynesty", solution="sol01", style="trace"),
    ],
    "sampler.emcee": [
        *LIGHT_CURVE, *SMALL, *PRIORS,
        *solver("sampler.emcee", init_from=["prior"], nwalkers=4, niters=4, burnin_factor=1),
        *figure("solution.emcee", solution="sol01"),
        ("adopt_solution", {"solution": "sol01"}),
    ],
    # Backends
    "phoebe": [*LIGHT_CURVE, *SMALL, ("add_compute", {"kind": "phoebe", "compute": "comp01"}),
               *SMALL, ("run_compute", {"compute": "comp01", "seed": 5})],
    **{
        kind: [*LIGHT_CURVE, ("add_compute", {"kind": kind, "compute": "comp01"}), *SMALL,
               ("set_value_all", {"qualifier": "ld_mode", "value": "manual"}),
               ("run_compute", {"compute": "comp01"})]
        for kind in ABSENT
    },
    # Datasets and their figures
    "lc": forward("lc"),
    "rv": forward("rv"),
    "lp": forward("lp", wavelengths=[549.0, 549.5, 550.0, 550.5, 551.0]),
    "mesh": forward("mesh", columns=["teffs", "areas"]),
    "orb": forward("orb"),
    # Features
    "spot": [*LIGHT_CURVE, *SMALL,
             ("add_feature", {"kind": "spot", "component": "primary", "relteff": 0.9}), COMPUTE],
    "rv_offset": [*velocities(), *SMALL,
                  ("add_feature", {"kind": "rv_offset", "dataset": "rv01"}),
                  ("set_value", {"qualifier": "compute_times", "dataset": "rv01",
                                 "context": "dataset", "value": TIMES}), COMPUTE],
    "gp_sklearn": gaussian_process("gp_sklearn", kernel="white"),
    "gp_celerite2": gaussian_process("gp_celerite2", kernel="sho"),
    # Distributions
    "uniform": [*sampled(*PRIORS),
                *figure("distribution.distribution_collection", distributions="prior")],
    "boxcar": sampled(prior("teff@primary", "boxcar", 5900, 6100)),
    "gaussian": sampled(prior("teff@primary", "gaussian", 6000, 50)),
    "normal": sampled(prior("teff@primary", "normal", 6000, 50)),
    "gaussian_around": sampled(prior("teff@primary", "gaussian_around", 50)),
    "uniform_around": sampled(prior("teff@primary", "uniform_around", 50)),
    "histogram_from_bins": sampled(
        prior("teff@primary", "histogram_from_bins", [5800, 5900, 6000, 6100], [1, 3, 2])),
    "histogram_from_data": sampled(
        prior("teff@primary", "histogram_from_data", [5900, 5950, 5960, 6000, 6100], 3)),
    "mvgaussian": sampled(
        prior("teff@primary", "mvgaussian slice", 0, [6000, 86], [[900, 3], [3, 1]]),
        prior("incl@binary", "mvgaussian slice", 1, [6000, 86], [[900, 3], [3, 1]])),
    "mvhistogram_from_data": sampled(
        prior("teff@primary", "mvhistogram_from_data slice", 0,
              [[5900, 85], [6000, 86], [6100, 87], [6050, 86], [5950, 85.5]], 3),
        prior("incl@binary", "mvhistogram_from_data slice", 1,
              [[5900, 85], [6000, 86], [6100, 87], [6050, 86], [5950, 85.5]], 3)),
    # Constraints: those of the default Bundle, then the optional ones
    "detached": [
        *forward("lc"),
        ("set_value", {"qualifier": "ecc", "component": "binary", "value": 0.2}),
        ("set_value", {"qualifier": "per0", "component": "binary", "value": 50}),
        ("set_value", {"qualifier": "period", "component": "binary", "value": 3}),
        ("set_value", {"qualifier": "teff", "component": "secondary", "value": 5200}),
        constraint("impact_param", "binary"),
        constraint("requivfrac", "primary"),
        constraint("parallax"),
        ("set_value", {"qualifier": "distance", "context": "system", "value": 50}),
        constraint("custom", lhs="teff@secondary@component", rhs="teff@primary@component"),
        ("set_value", {"qualifier": "teff", "component": "primary", "value": 6500}),
        ("flip_constraint", {"qualifier": "teffratio", "solve_for": "teff@primary@component"}),
    ],
    "semidetached": [("set_morphology", {"morphology": "semi-detached"}), *SMALL, *LIGHT_CURVE,
                     ("set_value", {"twig": "mass@primary@component", "value": 1.3}),
                     COMPUTE],
    "contact": [("set_morphology", {"morphology": "contact"}), *SMALL, *LIGHT_CURVE,
                ("set_value", {"twig": "requiv@primary@component", "value": 1.55}),
                COMPUTE],
    "single star": [("default_star", {}), *forward("lc"),
                    ("set_value", {"qualifier": "mass", "component": "starA", "value": 1.5})],
    "two passbands": [
        *LIGHT_CURVE,
        ("add_dataset", {"kind": "lc", "dataset": "lc02", "passband": "Bolometric:900-40000"}),
        *SMALL,
        ("set_value_all", {"qualifier": "pblum_mode", "value": "component-coupled"}),
    ],
}  # fmt: skip

# Constraints without a case, and the reason.
UNREACHED = {
    **dict.fromkeys(
        ("ph_supconj", "ph_infconj", "ph_perpass"), "no orbit of PHOEBE 2.5 has such a parameter"
    ),
    "passband_ratio": "PHOEBE has no parameters for it: the function raises NotImplementedError",
}


def kinds() -> dict[str, list[str]]:
    """The kinds that PHOEBE lists."""
    import phoebe
    from phoebe.dependencies import distl
    from phoebe.parameters import constraint as constraints

    def makes_constraint(function: Any) -> bool:
        return inspect.isfunction(function) and list(inspect.signature(function).parameters)[
            :1
        ] == ["b"]

    return {
        "solver": phoebe.list_available_solvers(),
        "compute": phoebe.list_available_computes(),
        "dataset": phoebe.list_available_datasets(),
        "feature": phoebe.list_available_features(),
        "figure": phoebe.list_available_figures(),
        "distribution": [name for name in dir(distl) if hasattr(phoebe, name) and name[0] != "_"],
        "constraint": [
            name
            for name, function in vars(constraints).items()
            if function.__class__.__name__ == "function"
            and function.__module__ == constraints.__name__
            and name[0] != "_"
            and makes_constraint(function)
        ],
    }


def decoded(value: Any) -> Any:
    """The distribution that an argument of a step describes; other values are unchanged."""
    import phoebe

    if not (isinstance(value, dict) and "distribution" in value):
        return value
    name, _, part = value["distribution"].partition(" ")
    arguments = value["arguments"]
    if not part:
        return getattr(phoebe, name)(*arguments)
    dimension, *rest = arguments
    return getattr(phoebe, name)(*rest).slice(dimension)


def apply_method(bundle: Any, name: str, options: dict[str, Any]) -> Any:
    """Call a method that has no command; returns the new Bundle if it creates one, else None."""
    import numpy
    import phoebe
    from phoebe.parameters import parameters

    options = {key: decoded(value) for key, value in options.items()}
    if name == "default_star":
        return phoebe.default_star()
    if name == "add_constraint":
        arguments = list(options.pop("arguments"))
        if arguments == ["custom"]:
            left, right = (bundle.get_parameter(options.pop(side)) for side in ("lhs", "rhs"))
            bundle.add_constraint(left, 0.8 * right)
        else:
            bundle.add_constraint(*arguments, **options)
        return None
    if name == "run_figure":
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "figure.png"
            numpy.random.seed(5)  # a distribution is drawn from its samples
            bundle.run_figure(**options, save=str(file))
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
        # As a parameter of the Bundle the picture's digest is compared with all others.
        parameter = parameters.StringParameter(
            qualifier="picture", value=digest, context="figure", **options
        )
        bundle._attach_params(parameters.ParameterSet([parameter]))
        return None
    if name == "add_distribution":
        bundle.add_distribution(options.pop("twig"), options.pop("value"), **options)
        return None
    getattr(bundle, name)(**options)
    return None


def begin() -> Any:
    """The Bundle that a session begins with."""
    import phoebe

    bundle = phoebe.default_binary()
    bundle.add_solver("differential_corrections", solver="dc")
    bundle.flip_constraint("mass@primary", solve_for="sma@binary")
    bundle.flip_constraint("mass@secondary", solve_for="q")
    return bundle


def apply(bundle: Any, step: Step) -> Any:
    """Do a step with PHOEBE alone; returns the Bundle."""
    import numpy
    import phoebe

    name, options = step
    if name in NO_COMMAND:
        return apply_method(bundle, name, dict(options)) or bundle
    if name == "set_morphology":
        makers = {
            "semi-detached": {"semidetached": "primary"},
            "contact": {"contact_binary": True},
        }
        bundle = phoebe.default_binary(**makers[options["morphology"]])
        bundle.add_solver("differential_corrections", solver="dc")
        bundle.flip_constraint("mass@primary", solve_for="sma@binary")
        bundle.flip_constraint("mass@secondary", solve_for="q")
        return bundle
    options = dict(options)
    seed = options.pop("seed", None)
    if seed is not None:
        random.seed(seed)
        numpy.random.seed(seed)
    getattr(bundle, name)(**options)
    return bundle


def values(text: str) -> dict[str, Any]:
    """The values of a Bundle in JSON by tags, with tags in place of unique ids."""
    parameters = json.loads(text)
    if isinstance(parameters, dict):
        parameters = parameters["parameters"]
    tags = ("context", "kind", "dataset", "component", "feature", "figure", "compute", "solver",
            "solution", "model", "distribution", "constraint", "time", "qualifier")  # fmt: skip
    for each in parameters:
        if each.get("time") is not None:
            each["time"] = float(each["time"])  # the portable form has a number
    names = {
        each["uniqueid"]: "/".join(str(each[tag]) for tag in tags if each.get(tag) is not None)
        for each in parameters
        if "uniqueid" in each
    }

    def named(value: Any) -> Any:
        if isinstance(value, str):
            for part in set(value.replace("{", "\n").replace("}", "\n").split("\n")):
                if part in names:
                    value = value.replace(part, names[part])
            return value
        if isinstance(value, list):
            return [named(each) for each in value]
        if isinstance(value, dict):
            # A distribution has a unique id of its own.
            return {named(key): named(each) for key, each in value.items() if key != "uniqueid"}
        return value

    return {
        names[each["uniqueid"]]: named(each.get("value"))
        for each in parameters
        if "uniqueid" in each and each.get("context") != "setting"
    }


def constraints_of(text: str) -> list[str]:
    """The kinds of constraints that a Bundle in JSON has."""
    parameters = json.loads(text)
    return sorted({each["constraint_func"] for each in parameters if "constraint_func" in each})


def main() -> None:
    import phoebe
    from phoebe import pool

    phoebe.progressbars_off()
    phoebe.multiprocessing_set_nprocs(0)
    # dynesty fails if the size of the pool is 0, like that of SerialPool. With a pool of 8
    # processes the results are equal, but pickling takes a minute.
    pool.SerialPool.__init__ = lambda self, **_: setattr(self, "size", 8)
    told: dict[str, Any] = {"kinds": kinds(), "cases": {}}
    for name in sys.argv[1:] or CASES:
        bundle = begin()
        started = time.process_time()
        try:
            for step in CASES[name]:
                bundle = apply(bundle, step)
            bundle.run_delayed_constraints()
            told["cases"][name] = {"bundle": json.dumps(bundle.to_json(incl_uniqueid=True))}
        except Exception as error:
            told["cases"][name] = {"error": str(error)}
            traceback.print_exc()
        print(f"{time.process_time() - started:6.2f} s {name}", file=sys.stderr)
    sys.__stdout__.write("\n" + json.dumps(told))


if __name__ == "__main__":
    main()
