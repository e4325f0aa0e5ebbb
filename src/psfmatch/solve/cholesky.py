"""Cholesky factorisation in place, during which other threads run.

`scipy.linalg.lapack` holds the interpreter while it computes, so that threads wait for one another, and
`numpy.linalg` copies the matrix twice, which takes as long as the factorisation.  The same LAPACK routine is called
by the address that scipy publishes for Cython.
"""

from __future__ import annotations

import ctypes
from functools import cache

import numpy as np
from scipy.linalg import cython_lapack, lapack

from psfmatch.geometry import FloatArray

__all__ = ["factorise", "substituted"]


def factorise(matrix: FloatArray) -> bool:
    """Overwrite the upper triangle of a matrix (n, n) in C order with its Cholesky factor, A = U' U for rows.

    Returns
    -------
    bool
        False if the matrix is not positive definite; it is then of no use.
    """
    assert matrix.flags.c_contiguous
    assert matrix.dtype == np.float64
    n, info = ctypes.c_int(len(matrix)), ctypes.c_int()
    # The upper triangle by rows is the lower one by columns, the order of LAPACK.
    _dpotrf()(b"L", ctypes.byref(n), matrix.ctypes.data, ctypes.byref(n), ctypes.byref(info))
    return info.value == 0


def substituted(factor: FloatArray, right: FloatArray) -> FloatArray:
    """The solutions for right sides (n, m), given what `factorise` made of the matrix."""
    return np.asarray(lapack.dpotrs(factor.T, right, lower=1)[0])


@cache
def _dpotrf() -> ctypes._FuncPointer:
    capsule = cython_lapack.__pyx_capi__["dpotrf"]
    name = ctypes.pythonapi.PyCapsule_GetName
    name.restype, name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    integer = ctypes.POINTER(ctypes.c_int)
    kind = ctypes.CFUNCTYPE(None, ctypes.c_char_p, integer, ctypes.c_void_p, integer, integer)
    return kind(pointer(capsule, name(capsule)))
