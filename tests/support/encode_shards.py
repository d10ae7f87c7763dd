"""Run by torchrun in test_code_cache.py: encodes in shards of eight rows, slowly enough to be killed between two."""

import os
import sys
import time
from pathlib import Path

from training import encode_dataset
from training.codes import cache as code_cache

code_cache.SHARD = 8
replace = code_cache.replace


def slowly(*args) -> None:
    replace(*args)
    time.sleep(0.2)


if __name__ == "__main__":
    code_cache.replace = slowly
    (Path(sys.argv[1]).parent / f"pid-{os.getpid()}").touch()
    encode_dataset.main(sys.argv[1:])
