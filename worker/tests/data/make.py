"""Writes the files of users of another PHOEBE: `PYTHON make.py FOLDER`.

Runs on Python 2.7 and PHOEBE 2.0 as well as on the newest of both, with nothing else. It writes

- `phoebe-VERSION.phoebe.gz`: all that this PHOEBE has in a Bundle, and each star, dataset, compute
  and so on with values of its own, so that a value in the wrong place shows;
- `phoebe-1-by-VERSION.phoebe.gz`, where this PHOEBE can write a file of PHOEBE 1.

What this PHOEBE lacks is told and left out. PHOEBE 2.0 and 2.1 are built from PyPI with Python 2.7,
numpy<1.17 and astropy<3, 2.2 with 3.7, numpy<1.18 and astropy<4, 2.3 with 3.8, numpy<1.20 and
astropy<4.3, 2.4.3 with 3.9, numpy<1.22 and astropy<5; later ones have wheels. All files
beside this one were written by the PHOEBE that their name tells; none was edited.
"""

# It runs on Python 2.7 too.
# ruff: noqa: UP010, UP031

from __future__ import print_function

import gzip
import json
import os
import sys

import phoebe

TIMES = [0.0, 0.11, 0.25, 1.0 / 3, 0.5]
FLUXES = [0.9, 1.0, 1.1, 1.05, 0.95]

# Parameters for which other choices would be rejected, or would prevent computations.
KEPT = {
    "hierarchy", "phoebe_version", "passband", "ld_coeffs_source", "ld_mode", "pblum_mode",
    "run_checks_compute", "run_checks_solver", "run_checks_solution", "run_checks_figure",
    "ntriangles", "irrad_method", "log_history", "dict_set_all", "dict_filter", "comments",
    "auto_add_figure", "auto_remove_figure", "web_client", "use_server", "feature_type",
}  # fmt: skip


def build():
    """A binary with a light curve and velocities, in which one constraint is flipped."""
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


def extend(b):
    """Add one object of each kind of this PHOEBE."""
    for star, relteff in (("primary", 0.91), ("secondary", 0.87)):
        attempt("spot", b.add_feature, "spot", component=star, feature="spot_" + star,
                relteff=relteff)
    attempt("lc02", b.add_dataset, "lc", dataset="lc02", times=TIMES[1:], passband="Johnson:V")
    attempt("lc03", b.add_dataset, "lc", dataset="lc03", compute_phases=[0.0, 0.2, 0.7],
            passband="Johnson:V")
    attempt("rv02", b.add_dataset, "rv", dataset="rv02", times=TIMES[:2], passband="Johnson:V")
    attempt("mesh01", b.add_dataset, "mesh", dataset="mesh01", times=[0.2])
    attempt("mesh02", b.add_dataset, "mesh", dataset="mesh02", compute_times=[0.1, 0.3],
            columns=["teffs", "loggs"])
    attempt("orb01", b.add_dataset, "orb", dataset="orb01", times=TIMES[2:])
    attempt("orb02", b.add_dataset, "orb", dataset="orb02", compute_times=TIMES[1:])
    attempt("lp01", b.add_dataset, "lp", dataset="lp01", times=[0.1, 0.4],
            wavelengths=[500.0, 500.5, 501.0], passband="Johnson:V")
    for kind in ("gaussian_process", "gp_sklearn", "gp_celerite2"):
        attempt(kind, b.add_feature, kind, dataset="lc01", feature=kind + "01")
    for dataset in ("rv01", "rv02"):
        attempt("rv_offset", b.add_feature, "rv_offset", dataset=dataset,
                feature="offset_" + dataset)
    for compute, kind in (("phoebe02", "phoebe"), ("legacy01", "legacy"), ("ellc01", "ellc"),
                          ("jktebop01", "jktebop")):
        attempt(compute, b.add_compute, kind, compute=compute)
    for compute, dataset, enabled in (("phoebe01", "rv01", False), ("phoebe02", "lc01", False),
                                      ("phoebe02", "mesh01", False)):
        attempt("enabled", b.set_value, "enabled", compute=compute, dataset=dataset,
                value=enabled)
    extend_solvers(b)
    for kind in ("lc", "rv", "mesh"):
        attempt(kind, lambda kind=kind: b.add_figure(kind, figure="figure_" + kind))
    for qualifier, component, center in (("teff", "primary", 6000.5), ("incl", "binary", 86.1)):
        attempt("distribution", lambda one=qualifier, other=component, center=center: (
            b.add_distribution(qualifier=one, component=other, context="component",
                               value=gaussian(center), distribution="dist01")))
    for qualifier, component in (("mass", "secondary"), ("logg", "primary"), ("freq", "binary")):
        attempt("constrained distribution", lambda one=qualifier, other=component: (
            b.add_distribution(qualifier=one, component=other, context="component",
                               value=gaussian(2.5), distribution="dist02")))


def extend_solvers(b):
    for kind in ("estimator.lc_geometry", "estimator.rv_geometry", "estimator.ebai",
                 "optimizer.nelder_mead", "optimizer.differential_evolution", "sampler.emcee",
                 "sampler.dynesty"):
        attempt(kind, lambda kind=kind: b.add_solver(kind, solver=kind.split(".")[1] + "01"))
    attempt("emcee02", lambda: b.add_solver("sampler.emcee", solver="emcee02", compute="phoebe02"))


def compute_results(b):
    """A model and solutions, as small as they can be."""
    b.set_value_all("ntriangles", 100)
    b.set_value_all("irrad_method", "none")
    attempt("model", lambda: b.run_compute(compute="phoebe01", model="model01"))
    b.set_value("enabled", compute="phoebe01", dataset="rv01", value=False)
    attempt("lc_periodogram", lambda: b.add_solver("estimator.lc_periodogram", solver="periods",
                                                   lc_datasets="lc01"))
    attempt("periods", lambda: b.run_solver("periods", solution="periods_solution"))
    attempt("nelder_mead", lambda: b.add_solver(
        "optimizer.nelder_mead", solver="simplex", maxiter=2, compute="phoebe01",
        fit_parameters=["teff@secondary"]))
    attempt("simplex", lambda: b.run_solver("simplex", solution="simplex_solution"))
    attempt("initial", lambda: b.add_distribution("teff@primary", gaussian(6000.0),
                                                  distribution="initial"))
    attempt("emcee", lambda: b.add_solver(
        "sampler.emcee", solver="chain", niters=2, nwalkers=4, compute="phoebe01",
        init_from="initial"))
    attempt("chain", lambda: b.run_solver("chain", solution="chain_solution"))


def gaussian(center):
    return phoebe.gaussian(center, center / 100)


def attempt(what, function, *arguments, **options):
    try:
        return function(*arguments, **options)
    except Exception as error:
        print("without %s: %s: %s" % (what, type(error).__name__, str(error)[:150]))


def vary(b):
    """Set each free parameter to a different value."""
    parameters = [each for each in b.to_list() if each.context not in ("model", "solution")]
    for number, each in enumerate(sorted(parameters, key=lambda each: str(each.uniquetwig))):
        kind = type(each).__name__
        constrained = kind == "FloatParameter" and each.is_constraint is not None
        if constrained or each.qualifier in KEPT or each.context == "constraint":
            continue
        wanted = varied(each, kind, number)
        if wanted is not None:
            attempt(each.uniquetwig, each.set_value, wanted)


def varied(each, kind, number):
    value = each.get_value()
    step = (number % 997 + 1) * 1e-5
    if kind == "FloatParameter":
        return value * (1 - step) if value else step
    if kind == "IntParameter":
        return int(value) + number % 7 + 1
    if kind == "BoolParameter":
        return number % 2 == 0
    if kind == "ChoiceParameter" and each.choices:
        return each.choices[number % len(each.choices)]
    if kind == "StringParameter":
        return "%s-%d" % (value, number)
    return None


def give_each_star_its_own(b):
    """Times and velocities of each star, and settings that `vary` does not change."""
    for number, dataset in enumerate(("rv01", "rv02")):
        for star, times, rvs in (("primary", [0.1, 0.2, 0.3], [-50.0, -40.0, -30.0]),
                                 ("secondary", [0.15, 0.25], [60.0, 70.0])):
            own = {"times": times, "rvs": rvs, "sigmas": [0.5, 1.5, 2.5][:len(times)]}
            for qualifier in sorted(own):
                attempt(qualifier, b.set_value, qualifier, dataset=dataset, component=star,
                        context="dataset", value=[each + number for each in own[qualifier]])
    for star, count in (("primary", 333), ("secondary", 777)):
        for compute, more in (("phoebe01", 0), ("phoebe02", 10)):
            attempt("ntriangles", b.set_value, "ntriangles", component=star, compute=compute,
                    value=count + more)
            attempt("atm", b.set_value, "atm", component=star, compute=compute,
                    value="blackbody" if (star == "primary") == (more == 0) else "ck2004")
        attempt("ld_mode", b.set_value, "ld_mode", component=star, dataset="rv02",
                value="manual" if star == "primary" else "lookup")
    attempt("unit", lambda: b.get_parameter("requiv", component="secondary",
                                            context="component").set_default_unit("km"))
    for at in (0, 1):
        for wanted in ("primary", "secondary"):
            found = [each for each in b.to_list() if each.qualifier == "flux_densities"
                     and each.component == wanted and each.context == "dataset"]
            if len(found) > at:
                attempt("flux_densities", found[at].set_value,
                        [1.0 + at, 2.0 + len(wanted), 3.0])


def constrain(b):
    """Constraints that a user has flipped, removed or added."""
    flips = [("ecosw@binary@constraint", "per0@binary"), ("esinw@binary@constraint", "ecc@binary"),
             ("logg@secondary@constraint", "requiv@secondary"),
             ("period@secondary@constraint", "syncpar@secondary")]
    for constraint, solve_for in flips:
        attempt(constraint, lambda one=constraint, other=solve_for: b.flip_constraint(
            one, solve_for=other))
    attempt("removal", lambda: b.remove_constraint("irrad_frac_lost_bol@primary@constraint"))
    attempt("own constraint", lambda: b.add_constraint(
        b.get_parameter("gravb_bol", component="secondary", context="component"),
        0.7 * b.get_parameter("gravb_bol", component="primary", context="component")))


def compress(path, name):
    with open(path, "rb") as plain:
        data = plain.read()
    os.remove(path)
    # Without name and time, so that equal contents give equal files.
    with open(name, "wb") as target:
        packed = gzip.GzipFile("", "wb", 9, target, mtime=0)
        packed.write(data)
        packed.close()
    print(name, len(data), len(json.loads(data.decode())) if data[:1] == b"[" else "")


def main(folder):
    version = phoebe.__version__
    plain = os.path.join(folder, "plain")
    b = build()
    compute_results(b)
    extend(b)
    vary(b)
    b.set_value("period", component="binary", context="component", value=2.345678901234567)
    b.set_value("incl", component="binary", context="component", value=87.5)
    b.set_value("teff", component="secondary", context="component", value=5432.1)
    b.set_value("mass", component="primary", context="component", value=1.25)
    give_each_star_its_own(b)
    constrain(b)
    b.save(plain)
    compress(plain, os.path.join(folder, "phoebe-%s.phoebe.gz" % version))
    b = build()
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
