"""What PHOEBE alone finds in a session's script and file: paths as JSON in, values as JSON out."""

import json
import runpy
import sys

import phoebe

paths = json.loads(sys.argv[1])


def seen(bundle):
    return {
        "period": bundle.get_value("period@binary@component"),
        "fluxes": list(bundle.get_value("fluxes", dataset="lc01", context="model")),
        "datasets": sorted(bundle.datasets),
    }


by_script = seen(runpy.run_path(paths["script"])["b"])
by_file = seen(phoebe.load(paths["file"]))
print(json.dumps({"script": by_script, "file": by_file}))
