"""`spark-submit pipelines/tokenize.py --recipe R --output O`: starts the job of `pipelines/submit.py`, and no more.

A script's folder goes first on `sys.path`, so this file stands before the standard library's module of the same name,
which every traceback loads. Hence it does one of three things, by the name under which it runs:

- `__main__`: puts the folder above this one in place of its own on `sys.path` before any other import, then starts
  the job;
- `tokenize` (this folder is on the path, and something asked for the standard library's module): hands that over;
- `pipelines.tokenize`: nothing.

Until the path is in order it imports nothing but `os` and `sys`, which are loaded before any script runs.
"""

import os
import sys

if __name__ == "tokenize":
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    found = PathFinder.find_spec("tokenize", [os.path.dirname(os.__file__)])
    assert found is not None and found.loader is not None
    sys.modules["tokenize"] = module_from_spec(found)
    found.loader.exec_module(sys.modules["tokenize"])

if __name__ == "__main__":
    own = os.path.dirname(os.path.realpath(__file__))
    sys.path[:] = [os.path.dirname(own), *(entry for entry in sys.path if os.path.realpath(entry) != own)]

    from pipelines.submit import main

    main()
