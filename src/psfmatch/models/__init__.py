"""PSF models as other codes define them, and their objects as ours."""

from psfmatch.models.objects import as_psf

__all__ = ["as_psf"]
