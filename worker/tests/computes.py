"""Varied forward models: what a session may ask PHOEBE's backend to compute.

A case is a function from a seeded random generator to a Bundle that is ready for `run_compute`,
and the options of that call. Meshes are small and times few, so that many fit into a test.
"""

from __future__ import annotations

import functools
import os
import pickle
from collections.abc import Callable
from typing import Any

from phoebe_worker import environment

os.environ.update(environment.VARIABLES)

import numpy as np
import phoebe

Case = Callable[[np.random.Generator], tuple[Any, dict[str, Any]]]
CASES: dict[str, Case] = {}


def case(function: Case) -> Case:
    CASES[function.__name__] = function
    return function


@functools.cache
def _template(kind: str) -> bytes:
    makers = {
        "detached": phoebe.default_binary,
        "contact": phoebe.default_contact_binary,
        "semidetached": lambda: phoebe.default_binary(semidetached="primary"),
        "star": phoebe.default_star,
    }
    bundle = makers[kind]()
    for parameter in bundle.filter(qualifier="ntriangles", check_visible=False).to_list():
        parameter.set_value(200)
    return pickle.dumps(bundle, 5)


def bundle(kind: str = "detached") -> Any:
    return pickle.loads(_template(kind))


def phases(random: np.random.Generator, count: int = 9) -> np.ndarray:
    """Some in and some out of eclipse."""
    inside = random.uniform(-0.04, 0.04, count // 2)
    return np.sort(np.append(inside, random.uniform(-0.5, 0.5, count - count // 2)))


def with_lc(b: Any, random: np.random.Generator, name: str = "lc01", **options: Any) -> Any:
    b.add_dataset("lc", compute_phases=phases(random), dataset=name, **options)
    return b


# Datasets


@case
def light_curve(random):
    b = with_lc(bundle(), random)
    b.set_value("incl@binary", random.uniform(80, 90))
    b.set_value("teff@secondary", random.uniform(4500, 7000))
    return b, {}


@case
def two_light_curves(random):
    b = with_lc(with_lc(bundle(), random), random, "lc02", passband="Bolometric:900-40000")
    return b, {}


@case
def light_curve_and_velocities(random):
    b = with_lc(bundle(), random)
    b.add_dataset("rv", compute_phases=phases(random), dataset="rv01")
    return b, {}


@case
def dynamical_velocities(random):
    b = bundle()
    b.add_dataset("rv", compute_phases=phases(random, 40), dataset="rv01")
    b.set_value_all("rv_method", "dynamical")
    return b, {}


@case
def velocities_of_one_star(random):
    b = bundle()
    b.add_dataset("rv", times={"primary": random.uniform(0, 1, 7)}, dataset="rv01")
    b.set_value_all("rv_grav", True)
    return b, {}


@case
def velocities_at_other_times_of_each_star(random):
    b = bundle()
    times = {"primary": random.uniform(0, 1, 6), "secondary": random.uniform(0, 1, 4)}
    b.add_dataset("rv", times=times, dataset="rv01")
    return b, {}


@case
def line_profiles(random):
    b = bundle()
    wavelengths = np.linspace(549, 551, 31)
    b.add_dataset("lp", compute_phases=phases(random, 4), wavelengths=wavelengths, dataset="lp01")
    return b, {}


@case
def line_profiles_of_a_star(random):
    b = bundle()
    b.add_dataset(
        "lp",
        times=[0.02, 0.1, 0.2, 0.3, 0.45, 0.6],
        wavelengths=np.linspace(549, 551, 21),
        component="primary",
        profile_func="lorentzian",
        dataset="lp01",
    )
    return b, {}


@case
def meshes(random):
    b = bundle()
    b.add_dataset("mesh", compute_phases=phases(random, 4), dataset="mesh01")
    b.set_value("columns@mesh01", ["*"])
    b.set_value("coordinates@mesh01", ["xyz", "uvw"])
    return b, {}


@case
def meshes_with_intensities(random):
    b = with_lc(bundle(), random)
    b.add_dataset("mesh", compute_times=[0.0, 0.13], include_times="lc01", dataset="mesh01")
    b.set_value("columns@mesh01", ["*intensities*", "visibilities", "teffs", "areas"])
    return b, {}


@case
def orbits(random):
    b = bundle()
    b.add_dataset("orb", compute_times=random.uniform(0, 2, 60), dataset="orb01")
    b.set_value("ecc", 0.2)
    return b, {}


@case
def everything_at_once(random):
    b = with_lc(bundle(), random)
    b.add_dataset("rv", compute_phases=phases(random, 5), dataset="rv01")
    b.add_dataset("orb", compute_phases=phases(random, 5), dataset="orb01")
    b.add_dataset("mesh", compute_phases=[0.0, 0.2], columns=["teffs", "vws"], dataset="mesh01")
    return b, {}


# Times


@case
def times_not_sorted(random):
    b = bundle()
    b.add_dataset("lc", times=random.permutation(np.linspace(0, 1.3, 11)), dataset="lc01")
    return b, {}


@case
def times_repeated(random):
    b = bundle()
    b.add_dataset("lc", times=[0.0, 0.5, 0.0, 0.25, 0.7, 0.8, 0.5, 0.1], dataset="lc01")
    b.add_dataset("rv", times=[0.5, 0.0, 0.25, 0.25], dataset="rv01")
    return b, {}


@case
def times_given_to_the_compute(random):
    return with_lc(bundle(), random), {"times": list(random.uniform(0, 1, 7))}


@case
def compute_times_beside_times(random):
    b = bundle()
    b.add_dataset("lc", times=np.linspace(0, 3, 50), dataset="lc01")
    b.set_value("compute_times@lc01", random.uniform(0, 1, 8))
    return b, {}


@case
def exposures(random):
    b = bundle()
    b.add_dataset("lc", times=[0.0, 0.3, 0.02, 0.5], exptime=1200.0, dataset="lc01")
    b.set_value("fti_method@lc01", "oversample")
    b.set_value("fti_oversample@lc01", 3)
    return b, {}


@case
def one_dataset_of_two(random):
    b = with_lc(with_lc(bundle(), random), random, "lc02")
    return b, {"dataset": "lc02"}


# Orbits and shapes


@case
def eccentric_orbit(random):
    b = with_lc(bundle(), random)
    b.add_dataset("rv", compute_phases=phases(random, 4), dataset="rv01")
    b.set_value("ecc", random.uniform(0.05, 0.3))
    b.set_value("per0", random.uniform(0, 360))
    return b, {}


@case
def misaligned_star(random):
    b = with_lc(bundle(), random)
    b.set_value("pitch@primary", 20)
    b.set_value("yaw@primary", random.uniform(5, 30))
    return b, {}


@case
def asynchronous_star(random):
    b = with_lc(bundle(), random)
    b.set_value("syncpar@primary", 1.5)
    return b, {}


@case
def apsidal_motion_and_period_change(random):
    b = with_lc(bundle(), random)
    b.set_value("ecc", 0.15)
    b.set_value("dperdt", 5.0)
    b.set_value("dpdt", 1e-3)
    return b, {}


@case
def light_travel_time(random):
    b = with_lc(bundle(), random)
    b.add_dataset("rv", compute_phases=phases(random, 5), dataset="rv01")
    b.set_value("sma@binary", 60)
    b.set_value("period@binary", 40)
    b.set_value("vgamma", 40)
    b.set_value_all("ltte", True)
    return b, {}


@case
def contact_binary(random):
    b = with_lc(bundle("contact"), random)
    b.set_value("q", random.uniform(0.6, 1.0))
    return b, {}


@case
def contact_binary_with_velocities_and_meshes(random):
    b = bundle("contact")
    b.add_dataset("rv", compute_phases=phases(random, 5), dataset="rv01")
    b.add_dataset("mesh", compute_phases=[0.1], columns=["*"], dataset="mesh01")
    return b, {}


@case
def contact_binary_with_spot(random):
    b = with_lc(bundle("contact"), random)
    b.add_spot("primary", relteff=0.9, radius=25, colat=70, long=random.uniform(0, 360))
    return b, {}


@case
def semidetached_binary(random):
    return with_lc(bundle("semidetached"), random), {}


@case
def single_star(random):
    b = bundle("star")
    b.add_dataset("lc", times=np.linspace(0, 1, 6), dataset="lc01")
    b.set_value_all("distortion_method", "rotstar")
    return b, {"irrad_method": "none"}


@case
def rotating_and_spherical_stars(random):
    b = with_lc(bundle(), random)
    b.set_value("distortion_method@primary", "rotstar")
    b.set_value("distortion_method@secondary", "sphere")
    return b, {"irrad_method": "none"}


@case
def star_without_a_mesh(random):
    b = with_lc(bundle(), random)
    b.set_value("distortion_method@secondary", "none")
    return b, {"irrad_method": "none"}


# Light


@case
def no_irradiation(random):
    return with_lc(bundle(), random), {"irrad_method": "none"}


@case
def horvat_irradiation(random):
    b = with_lc(bundle(), random)
    b.set_value("irrad_frac_refl_bol@secondary", 0.9)
    return b, {"irrad_method": "horvat"}


@case
def irradiation_in_an_eccentric_orbit(random):
    b = with_lc(bundle(), random)
    b.set_value("ecc", 0.2)
    return b, {"irrad_method": "wilson"}


@case
def irradiation_of_a_contact_binary(random):
    return with_lc(bundle("contact"), random), {"irrad_method": "horvat"}


@case
def spots(random):
    b = with_lc(bundle(), random)
    b.add_spot("primary", relteff=0.85, radius=30, colat=80, long=random.uniform(0, 360))
    b.add_spot("secondary", relteff=1.1, radius=15, colat=40, long=random.uniform(0, 360))
    b.set_value("syncpar@primary", 1.3)
    return b, {}


@case
def third_light(random):
    b = with_lc(with_lc(bundle(), random), random, "lc02")
    b.set_value("l3@lc01", random.uniform(0.1, 2))
    b.set_value("l3_mode@lc02", "fraction")
    b.set_value("l3_frac@lc02", random.uniform(0.05, 0.4))
    return b, {}


@case
def luminosities_absolute_and_decoupled(random):
    b = with_lc(with_lc(bundle(), random), random, "lc02")
    b.set_value("pblum_mode@lc01", "absolute")
    b.set_value("pblum_mode@lc02", "decoupled")
    b.set_value("pblum@primary@lc02", 8)
    b.set_value("pblum@secondary@lc02", 3)
    return b, {}


@case
def luminosities_coupled_to_the_secondary(random):
    b = with_lc(with_lc(bundle(), random), random, "lc02", passband="Bolometric:900-40000")
    b.set_value("pblum_component@lc01", "secondary")
    b.set_value("pblum@secondary@lc01", random.uniform(2, 9))
    b.set_value("pblum_mode@lc02", "dataset-coupled")
    b.set_value("pblum_dataset@lc02", "lc01")
    return b, {}


@case
def luminosities_scaled_to_the_data(random):
    b = bundle()
    times = np.linspace(0, 1, 12)
    b.add_dataset("lc", times=times, fluxes=random.uniform(2, 3, 12), dataset="lc01")
    b.set_value("pblum_mode@lc01", "dataset-scaled")
    return b, {}


@case
def blackbody_with_manual_limb_darkening(random):
    b = with_lc(bundle(), random)
    b.set_value_all("atm", "blackbody")
    b.set_value_all("ld_mode", "manual")
    b.set_value_all("ld_mode_bol", "manual")
    b.set_value_all("ld_func", "logarithmic", check_visible=False)
    return b, {}


@case
def limb_darkening_from_the_table(random):
    b = with_lc(bundle(), random)
    b.set_value_all("ld_mode", "lookup")
    b.set_value_all("ld_func", "quadratic", check_visible=False)
    return b, {}


@case
def other_eclipse_methods(random):
    return with_lc(bundle(), random), {"eclipse_method": "only_horizon"}


@case
def gravity_darkening_and_distance(random):
    b = with_lc(bundle(), random)
    b.set_value("gravb_bol@primary", 1.0)
    b.set_value("teff@primary", 9000)
    b.set_value("distance", 2.5)
    return b, {}


# Many models


@case
def samples_of_a_distribution(random):
    b = with_lc(bundle(), random)
    b.add_distribution({"teff@primary": phoebe.gaussian_around(100)}, distribution="around")
    return b, {"sample_from": "around", "sample_num": 4, "sample_mode": "all"}


@case
def spread_of_samples(random):
    b = with_lc(bundle(), random)
    b.add_distribution({"incl@binary": phoebe.uniform_around(2)}, distribution="around")
    return b, {"sample_from": "around", "sample_num": 3, "sample_mode": "1-sigma"}


@case
def one_sample(random):
    b = with_lc(bundle(), random)
    b.add_distribution({"incl@binary": phoebe.uniform_around(2)}, distribution="around")
    return b, {"sample_from": "around", "sample_num": 1}


@case
def samples_of_which_many_fail(random):
    b = with_lc(bundle(), random)
    b.add_distribution({"requiv@primary": phoebe.uniform(1.2, 2.8)}, distribution="wide")
    options = {"sample_from": "wide", "sample_num": 6, "sample_mode": "all"}
    return b, {**options, "expose_samples": True, "expose_failed": True}


@case
def very_eccentric_orbit(random):
    b = with_lc(bundle(), random)
    b.set_value("ecc", 0.6)
    return b, {"skip_checks": True}


@case
def spot_off_the_grid_of_atmospheres(random):
    b = bundle()
    b.add_dataset("lc", times=np.linspace(0.1, 0.9, 9), dataset="lc01")
    b.add_spot("primary", relteff=0.3, radius=60, colat=90, long=0)
    b.set_value_all("atm_extrapolation_method", "none")
    b.set_value_all("ld_extrapolation_method", "none")
    return b, {"skip_checks": True}


# Failures: the error must be the same

FAILING = {"overflow_at_periastron", "atmosphere_extrapolated_too_far"}


@case
def overflow_at_periastron(random):
    b = with_lc(bundle(), random)
    b.set_value("ecc", 0.4)
    b.set_value("requiv@primary", 1.45)
    return b, {"skip_checks": True}


@case
def atmosphere_extrapolated_too_far(random):
    b = with_lc(bundle(), random)
    b.add_spot("primary", relteff=0.5, radius=90, colat=90, long=0, feature="cold")
    b.set_value_all("extrapolation_max_frac", 0.01)
    return b, {"skip_checks": True}
