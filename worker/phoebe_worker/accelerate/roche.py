"""The critical radius of a star in its Roche lobe: the most expensive constraint."""

from __future__ import annotations

import logging
import struct
from typing import Any

import libphoebe
import numpy as np
from phoebe.backend import mesh as phoebe_mesh
from phoebe.constraints import builtin
from phoebe.distortions import roche as phoebe_roche

from .registry import original, patch
from .sources import sources

_REQUIV = "phoebe.distortions.roche:roche_misaligned_critical_requiv"
_REQUIV_L1 = "phoebe.constraints.builtin:requiv_L1"
_CACHE_MAX = 1024
_volumes: dict[bytes, float] = {}


@patch(
    _REQUIV,
    reason="it takes milliseconds, and most changes of a Bundle compute it for the same orbit",
    equal_because="the volume depends on six numbers alone, and is cached by their exact bits",
    checked_with=("2.5.4",),
    guards=sources(_REQUIV),
)
def roche_misaligned_critical_requiv(q: Any, F: Any, d: Any, s: Any, scale: Any = 1.0) -> Any:
    try:
        key = struct.pack("6d", q, F, d, *s)
    except (struct.error, TypeError):
        return original(_REQUIV)(q, F, d, s, scale)
    volume = _volumes.get(key)
    if volume is None:
        volume = libphoebe.roche_misaligned_critical_volume(q, F, d, s)
        if len(_volumes) >= _CACHE_MAX:
            _volumes.clear()
        _volumes[key] = volume
    # The order of PHOEBE's operations, for the same last bit.
    return scale * (volume * 3.0 / 4 * 1.0 / np.pi) ** (1.0 / 3)


@patch(
    _REQUIV_L1,
    reason="a debug message took longer than the arithmetic",
    equal_because="the same steps without the message; PHOEBE's own runs with debug messages on",
    checked_with=("2.5.4",),
    guards=sources(_REQUIV_L1),
)
def requiv_L1(
    q: Any, syncpar: Any, ecc: Any, sma: Any, incl_star: Any, long_an_star: Any, incl_orb: Any,
    long_an_orb: Any, compno: Any, **kwargs: Any,
) -> Any:
    if builtin.logger.isEnabledFor(logging.DEBUG):
        return original(_REQUIV_L1)(
            q, syncpar, ecc, sma, incl_star, long_an_star, incl_orb, long_an_orb, compno, **kwargs
        )
    spin = phoebe_mesh.spin_in_system(incl_star, long_an_star)
    s = phoebe_mesh.spin_in_roche(spin, 0.0, long_an_orb, incl_orb)
    return phoebe_roche.roche_misaligned_critical_requiv(
        phoebe_roche.q_for_component(q, compno), syncpar, 1 - ecc, s, sma
    )
