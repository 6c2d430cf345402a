"""The conditions in the `visible_if` expressions of PHOEBE's own Parameters.

PHOEBE evaluates the expressions before it matches a twig. An expression of the conditions listed
here raises nothing, so its order is free. PHOEBE evaluates any other expression in its own order.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

# The prefixes of the qualifiers of a figure's axes.
AXES = ("x", "y", "z", "c", "fc", "ec")

_OF_AXES = """
    _column:areas _column:intensities|normal_intensities|abs_intensities|abs_normal_intensities
    _column:pblum_ext|abs_pblum_ext _column:ptfarea _column:rs|rprojs _column:teffs
    _column:visibilities|mus|loggs|boost_factors|ldint|blending_factors|extrapolation_dists
    _column:vxs|vys|vzs|vus|vws|vvs|rvs _source:column label_source:manual lim_source:manual
    unit_source:manual
""".split()  # noqa: SIM905 - a list of so many texts is hard to read

_OTHERS = """
    False [component]mask_enabled:True [component]pblum_component:<component>
    [component]pblum_mode:component-coupled [component]pblum_mode:decoupled
    [context][figure][kind]dpdt:!0.0 [context][figure][kind]dperdt:!0.0
    [dataset][context][kind]dpdt:!0.0 [dataset][context][kind]dperdt:!0.0 [time]sigmas:<notempty>
    [time]wavelengths:<notempty> algorithm:bls algorithm:ls atm:!blackbody atm:!extern_atmx
    atm:!extern_planckint atm_extrapolation_method:!none atm_in_computes_has_axis:abuns
    atm_in_computes_has_axis:loghefracs boosting_method:manual bounds:<notempty> bounds:<plural>
    color_source:manual continue_from:!None continue_from:None default_time_source:manual
    distortion_method:love distribution_set:manual distributions_convert:mvhistogram|histogram
    dperdt:!0.0 ds_has_enabled_feature:gp_* ec_source:column ec_source:manual
    eclipse_method:native ecmap_source:manual false fc_source:column fc_source:manual
    fcmap_source:manual fti_method:ellc|oversample fti_method:oversample
    gp_exclude_phases_enabled:True hierarchy.is_binary:True hierarchy.is_contact_binary:False
    hierarchy.is_contact_binary:True hierarchy.is_meshable:False hierarchy.is_meshable:true
    init_from:<notempty> irrad_method:wilson kernel:constant kernel:dot_product
    kernel:exp_sine_squared kernel:matern kernel:rational_quadratic
    kernel:rbf|rational_quadratic|exp_sine_squared|matern kernel:rotation kernel:sho
    kernel:sho|matern32 kernel:sho|rotation|matern32 kernel:white l3_mode:flux l3_mode:fraction
    lc_datasets:<plural> ld_extrapolation_method:!none ld_mode:lookup ld_mode:lookup|manual
    ld_mode:manual ld_mode_bol:lookup ld_mode_bol:manual linestyle_source:manual
    mail_user:<notempty> marker_source:manual mesh_method:marching mesh_method:wd
    pblum_mode:component-coupled pblum_mode:dataset-coupled phase_bin:True priors:<notempty>
    priors:<plural> rv_method:flux-weighted sample_from:<notempty> sample_mode:auto
    sample_mode:manual sigmas:<notempty> time_source:manual times:<notempty> to_uniforms:False
    to_uniforms:True use_conda:true use_mpi:true x:!times x:phases x:times x:us|vs|ws
    x:vus|vvs|vws x:xs|ys|zs y:us|vs|ws y:vus|vvs|vws y:xs|ys|zs
""".split()  # noqa: SIM905 - a list of so many texts is hard to read

# Every condition in PHOEBE's source; a test compares the two.
CONDITIONS = frozenset([*_OTHERS, *(axis + each for each in _OF_AXES for axis in AXES)])


def evaluation_cannot_fail(parameter: Any) -> bool:
    """Whether `parameter.is_visible` is certain to raise nothing."""
    expression = parameter._visible_if
    return expression is None or (type(expression) is str and _is_known(expression))


@lru_cache(maxsize=4096)
def _is_known(expression: str) -> bool:
    return CONDITIONS.issuperset(conditions_of(expression))


def conditions_of(expression: str) -> list[str]:
    """The conditions that "||" and "," join."""
    return expression.replace("||", ",").split(",")
