"""Environment variables that must be set before NumPy and PHOEBE are imported."""

VARIABLES = {
    "PHOEBE_ENABLE_ONLINE_PASSBANDS": "FALSE",  # the import must not wait for a network
    "PHOEBE_ENABLE_MPI": "FALSE",
    "PHOEBE_MULTIPROC_NPROCS": "0",  # processes of a solver's pool would outlive the runner
    "OPENBLAS_NUM_THREADS": "1",  # threads do not survive a fork
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MPLBACKEND": "Agg",
}
