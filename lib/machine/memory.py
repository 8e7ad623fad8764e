"""malloc keeps what layers give back: set for this process, where its C library is glibc."""

import ctypes
import os
import sys
from functools import cache

# glibc gives large blocks back to the system and fetches them again, page by page, for every layer of every batch. Told
# to keep them, a CPU is up to several times as fast at large batches. Its own names for the two settings, with their
# numbers in malloc.h; 32 MiB is the most that older versions take.
MALLOC = {"MALLOC_TRIM_THRESHOLD_": "1073741824", "MALLOC_MMAP_THRESHOLD_": "33554432"}
PARAMETERS = {"MALLOC_TRIM_THRESHOLD_": -1, "MALLOC_MMAP_THRESHOLD_": -3}


@cache
def keep_memory() -> bool:
    """Have malloc keep the memory of layers from now on; returns whether it does so by this call.

    Called where work on a CPU starts. Who has set one of the two in the environment keeps what they set.
    """
    if sys.platform != "linux" or MALLOC.keys() & os.environ.keys():
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl, for one, has none
    return mallopt is not None and all([mallopt(PARAMETERS[name], int(value)) for name, value in MALLOC.items()])
