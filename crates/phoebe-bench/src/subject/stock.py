"""Stock PHOEBE in one process, as a user runs it without a server.

Reads one command a line on standard input, a JSON object as the server takes it, and answers with
one line: how long PHOEBE took, and the result. Ends at the end of the input.
"""

import io
import json
import os
import sys
import time

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what PHOEBE prints is no answer

import phoebe  # noqa: E402

phoebe.progressbars_off()
bundle = phoebe.default_binary()


def load_bundle(bundle):
    globals()["bundle"] = phoebe.Bundle.open(io.StringIO(bundle))


def run_compute():
    bundle.run_compute()


def fluxes(dataset):
    return list(bundle.get_value("fluxes", context="model", dataset=dataset))


def add_dataset(kind, **options):
    bundle.add_dataset(kind, **options)


def remove_dataset(dataset):
    bundle.remove_dataset(dataset)


def get_bundle():
    bundle.to_json()


COMMANDS = {
    "get_value": lambda twig: bundle.get_value(twig),
    "set_value": lambda twig, value: bundle.set_value(twig, value),
    "load_bundle": load_bundle,
    "run_compute": run_compute,
    "fluxes": fluxes,
    "add_dataset": add_dataset,
    "remove_dataset": remove_dataset,
    "get_bundle": get_bundle,
}


def answer(fields):
    print(json.dumps(fields), file=answers, flush=True)


answer({"ready": True})
for line in sys.stdin:
    command = json.loads(line)
    function = COMMANDS[command.pop("command")]
    began = time.perf_counter()
    result = function(**command)
    answer({"seconds": time.perf_counter() - began, "result": result})
