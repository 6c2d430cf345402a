"""Computing on more than one core: PHOEBE's work split over forked helpers.

`grant` says how many cores this process may use; the server grants them anew with each long
command. What is split: the frames (times) of PHOEBE's own backend, as its MPI mode does, and what
PHOEBE maps over a pool: the samples of `sample_from`, the models of samplers and of
`differential_evolution`.

`differential_corrections`, `nelder_mead`, `powell` and `cg` have no pool: they compute one model
after another, each in need of the one before (or written as one long loop), so the frames of each
model are split instead. Other backends (`legacy`, `ellc`, `jktebop`) compute a dataset at once and
stay serial. Helpers start no helpers of their own.

`frames` and `pool` enter their patches into the table of `accelerate`; with acceleration off,
PHOEBE computes as it is, on one core.
"""

from .helpers import HelperDied, grant, granted

__all__ = ["HelperDied", "grant", "granted"]
