"""Runs scripts of sessions with stock PHOEBE, each in a process of its own.

Reads lines of two paths each, a script and the file into which its Bundle is pickled; answers with
a line for each: empty, or the error of the script as JSON.
"""

import json
import os
import pickle
import runpy
import sys
import traceback

import phoebe  # noqa: F401 - all scripts have it


def run(script: str, kept_in: str) -> str:
    try:
        bundle = runpy.run_path(script)["b"]
        with open(kept_in, "wb") as kept:
            pickle.dump(bundle, kept)
    except BaseException:
        return traceback.format_exc()
    return ""


def run_in_a_process_of_its_own(script: str, kept_in: str) -> str:
    read, write = os.pipe()
    process = os.fork()
    if process == 0:
        os.dup2(2, 1)  # what scripts print is no answer
        with os.fdopen(write, "w") as answer:
            answer.write(run(script, kept_in))
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        error = answer.read()
    _, status = os.waitpid(process, 0)
    return error or ("" if status == 0 else f"the script ended with status {status}")


for line in sys.stdin:
    print(json.dumps(run_in_a_process_of_its_own(*line.split())), flush=True)
