"""Memory that the C library keeps for the next step, instead of giving it back to the system each time.

A step allocates and frees gigabytes of activations. glibc maps every large block anew and unmaps it when it
is freed, and the system then clears each page again before it may be written: on two cores that was a third
of the time of a step at 256 px. Values are the same; the process stays as large as it has once been.
"""

from __future__ import annotations

import ctypes
import platform

# Parameters of mallopt(3), from glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -2, -3, -4
_LARGEST = 2**31 - 1  # mallopt takes an int
_TOP_PAD_BYTES = 64 << 20  # asked of the system at once, when the heap grows


def keep_freed_memory() -> bool:
    """Tells glibc to keep freed memory and reuse it; to be called once, before the large allocations.

    For programs that train or score, which need the same memory over and over. GPU memory is not touched:
    PyTorch keeps that by itself.

    Returns:
        Whether it was done: not with another C library or system, where nothing changes.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    kept = mallopt(_M_TRIM_THRESHOLD, _LARGEST) and mallopt(_M_TOP_PAD, _TOP_PAD_BYTES)
    # Older versions refuse a large threshold for mapped blocks, but not to have none of these at all.
    return bool(kept and (mallopt(_M_MMAP_THRESHOLD, _LARGEST) or mallopt(_M_MMAP_MAX, 0)))
