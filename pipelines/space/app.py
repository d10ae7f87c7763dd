"""What the Space runs: `python -m pipelines demo` of the sources beside it, with the model beside it."""

import runpy
import sys

sys.argv = ["pipelines", "demo", "--model", "model", "--host", "0.0.0.0", *sys.argv[1:]]
runpy.run_module("pipelines", run_name="__main__", alter_sys=True)
