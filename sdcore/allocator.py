"""How the C library hands out large pieces of memory, on Linux with glibc.

glibc maps whatever is larger than 32 MB anew from the system and gives it back at once. Every
feature map of a VAE at 512 x 512 is: each page is zeroed and faulted in again for each layer, in
time that no core computes in. Told to keep what it has been given, it does not; the price is that
memory which was once used stays with the process.
"""

from __future__ import annotations

import ctypes
import os
import sys

VARIABLE = "SDCORE_ALLOCATOR"  # "system" leaves the C library as it is
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # of mallopt(3)


def tune_allocator() -> bool:
    """Let glibc keep freed memory for the next layer, for the whole process and for good.

    The command line does so unless the environment variable SDCORE_ALLOCATOR is "system"; as a
    library sdcore leaves the process alone until this is called. No number changes.

    Returns:
        Whether it was done: False off glibc, and where the variable says otherwise.
    """
    if os.environ.get(VARIABLE) == "system" or not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL("libc.so.6")
        mallopt = libc.mallopt
    except (OSError, AttributeError):
        return False  # musl and others
    wanted = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 64 << 20))
    results = [mallopt(option, value) for option, value in wanted]
    return results == [1, 1, 1]
