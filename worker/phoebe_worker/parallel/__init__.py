"""Computing on more than one core: PHOEBE's work split over forked helpers.

`grant` sets how many cores this process may use. The server grants cores with each long command.
Helpers compute the frames (times) of PHOEBE's own backend, as in its MPI mode, and everything that
PHOEBE maps over a pool: the samples of `sample_from`, and the models of samplers and of
`differential_evolution`.

`differential_corrections`, `nelder_mead`, `powell` and `cg` have no pool. They compute one model
after another, so the frames of each model are distributed instead. Other backends (`legacy`,
`ellc`, `jktebop`) compute a dataset at once and stay serial. Helpers start no helpers.

`frames` and `pool` enter their patches into the table of `accelerate`; with acceleration off,
PHOEBE computes on one core.
"""

from .helpers import HelperDied, grant, granted

__all__ = ["HelperDied", "grant", "granted"]
