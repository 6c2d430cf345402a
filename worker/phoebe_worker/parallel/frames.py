"""Distributes the frames (times) of PHOEBE's backend over helpers.

The frames are those that PHOEBE's MPI mode distributes, and PHOEBE fills the synthetics in its own
order, so the results are equal to the last bit. State that frames pass to later ones (the mesh at
periastron, temperatures after the first irradiation) is computed before the fork.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from ..accelerate.registry import original, patch
from .helpers import distribute, granted

_TARGET = "phoebe.backend.backends:BaseBackendByTime._run_chunk"
FORK_SECONDS = 0.015  # approximate cost of a fork


@patch(
    _TARGET,
    reason="frames are independent, and PHOEBE splits them only under mpirun",
    equal_because="the same frames in the same order; what they hand on is settled before",
    checked_with=("2.5.4",),
    guards={_TARGET: "9265be20a6a7321121bf12dc00a7ade8375b9761e142b45dfd350ebd99924c92"},
)
def run_chunk(
    self: Any, b: Any, compute: str, times: Any, infolists: Sequence[Any], **kwargs: Any
) -> list[Any]:
    """BaseBackendByTime._run_chunk, on the granted cores."""
    from phoebe import mpi

    # With an `out_fname`, PHOEBE looks for a kill file before each frame.
    if granted() < 2 or mpi.enabled or kwargs.get("out_fname", False):
        return original(_TARGET)(self, b, compute, times, infolists, **kwargs)

    setup = self._worker_setup(b, compute, times, infolists, **kwargs)
    progress = _progress(b, len(times), kwargs)

    def frame(index: int) -> list[Any]:
        return self._run_single_time(b, index, times[index], infolists[index], **setup)

    def done(_: Any) -> None:
        if progress is not None:
            progress.update(1)

    packetlists = _first_frames(infolists, frame, done)
    first = len(packetlists)
    packetlists += distribute(len(times) - first, lambda index: frame(first + index), done)
    if progress is not None:
        progress.close()
    return packetlists


def _first_frames(infolists: Sequence[Any], frame: Any, done: Any) -> list[Any]:
    """All frames up to the first with meshes, and further ones for the duration of a fork."""
    with_meshes = (any(info["needs_mesh"] for info in infolist) for infolist in infolists)
    needed = next((index for index, needs in enumerate(with_meshes) if needs), 0) + 1
    packetlists: list[Any] = []
    started = time.monotonic()
    for index in range(len(infolists)):
        if index == needed:
            started = time.monotonic()
        elif index > needed and time.monotonic() - started >= FORK_SECONDS:
            break
        packetlists.append(frame(index))
        done(packetlists[-1])
    return packetlists


def _progress(b: Any, total: int, kwargs: dict[str, Any]) -> Any:
    """PHOEBE's progress bar, None if it shows none."""
    from phoebe.backend import backends

    if b._within_solver or not kwargs.get("progressbar", False):
        return None
    return backends._tqdm(total=total)
