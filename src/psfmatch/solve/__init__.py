"""Solvers: each a frozen object whose fields are its options; all return a `Solution`."""

from psfmatch.solve.alard_lupton import AlardLupton
from psfmatch.solve.fourier import Fourier
from psfmatch.solve.free_form import FreeForm
from psfmatch.solve.frontier import Frontier
from psfmatch.solve.parts import PCA, Clipping, Padding
from psfmatch.solve.regularization import Regularization
from psfmatch.solve.solution import Outcome, Solution, Solver

__all__ = [
    "PCA",
    "AlardLupton",
    "Clipping",
    "Fourier",
    "FreeForm",
    "Frontier",
    "Outcome",
    "Padding",
    "Regularization",
    "Solution",
    "Solver",
]
