"""What PHOEBE alone makes of scripts of sessions, each in a process of its own.

Input: pairs of paths as JSON, a script and the pickled Bundle of its session. Output: a list for
each pair, how the Bundle of the script differs, parameter by parameter; empty where it does not.
"""

import json
import math
import os
import pickle
import runpy
import sys
import traceback

import phoebe  # noqa: F401 - all scripts have it

WITHIN = 1e-12


def told(bundle):
    """Every parameter by its tags, without what is random or says when."""
    known = {}
    for parameter in bundle._params:
        if "uniqueid" not in parameter.qualifier:
            fields = parameter.to_json()
            fields.pop("choices", None)
            time = None if parameter._time is None else float(parameter._time)
            known[f"{parameter.twig} {time}"] = fields
    return known


def is_close(one, other):
    if isinstance(one, float) and isinstance(other, float | int):
        if math.isnan(one):
            return math.isnan(other)
        return one == other or abs(one - other) <= WITHIN * (1 + abs(other))
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(is_close, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(is_close(one[key], other[key]) for key in one)
    return one == other


def differences(script, pickled):
    built = told(runpy.run_path(script)["b"])
    with open(pickled, "rb") as file:
        session = told(pickle.load(file))
    lacking = [f"{name} is in one only" for name in built.keys() ^ session.keys()]
    others = [
        f"{name}: {str(built[name])[:300]} instead of {str(session[name])[:300]}"
        for name in built.keys() & session.keys()
        if not is_close(built[name], session[name])
    ]
    return sorted(lacking) + sorted(others)


def in_a_process_of_its_own(script, pickled):
    read, write = os.pipe()
    process = os.fork()
    if process == 0:
        os.dup2(2, 1)  # what scripts print is no answer
        try:
            found = differences(script, pickled)
        except BaseException:
            found = [traceback.format_exc()]
        with os.fdopen(write, "w") as answer:
            json.dump(found, answer)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        found = answer.read()
    os.waitpid(process, 0)
    return json.loads(found) if found else ["the script's process died"]


print(json.dumps([in_a_process_of_its_own(*pair) for pair in json.loads(sys.argv[1])]))
