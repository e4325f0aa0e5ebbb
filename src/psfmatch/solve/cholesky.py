"""Cholesky factorisation in place, during which other threads run.

`scipy.linalg.lapack` holds the interpreter while it computes, so that threads wait for one another, and
`numpy.linalg` copies the matrix twice, which takes as long as the factorisation.  The same LAPACK routine is called
by the address that scipy publishes for Cython, or as ever where the address is that of another kind of routine.
"""

from __future__ import annotations

import ctypes
from functools import cache

import numpy as np
from scipy.linalg import cython_lapack, lapack

from psfmatch.geometry import FloatArray

__all__ = ["factorise", "substituted"]


def factorise(matrix: FloatArray) -> bool:
    """Replace the upper triangle of a matrix (n, n), in C order, by its Cholesky factor U: A = transpose(U) U.

    Returns
    -------
    bool
        False if the matrix is not positive definite; it is then of no use.
    """
    assert matrix.flags.c_contiguous
    assert matrix.dtype == np.float64
    # The upper triangle by rows is the lower one by columns, the order of LAPACK.
    routine = _routine("dpotrf", b"void (char *, int *,")
    if routine is None:
        return not lapack.dpotrf(matrix.T, lower=1, overwrite_a=1, clean=0)[1]
    n, info = ctypes.c_int(len(matrix)), ctypes.c_int()
    routine(b"L", ctypes.byref(n), matrix.ctypes.data, ctypes.byref(n), ctypes.byref(info))
    return info.value == 0


def substituted(factor: FloatArray, right: FloatArray) -> FloatArray:
    """The solutions for right sides (n, m), given what `factorise` made of the matrix."""
    return np.asarray(lapack.dpotrs(factor.T, right, lower=1)[0])


@cache
def _routine(name: str, signature: bytes) -> ctypes._FuncPointer | None:
    """The routine of this name, called without the interpreter's lock; None if its integers are not C's."""
    capsule = cython_lapack.__pyx_capi__.get(name)
    described = ctypes.pythonapi.PyCapsule_GetName
    described.restype, described.argtypes = ctypes.c_char_p, [ctypes.py_object]
    if capsule is None or not described(capsule).startswith(signature):
        return None
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    integer = ctypes.POINTER(ctypes.c_int)
    kind = ctypes.CFUNCTYPE(None, ctypes.c_char_p, integer, ctypes.c_void_p, integer, integer)
    return kind(pointer(capsule, described(capsule)))
