"""`MakePsfMatchedWarpTask`: match the visit images of a Butler repository to one PSF."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lsst.pex.config import ConfigurableField

try:
    from lsst.pipe.base import PipelineTask, PipelineTaskConfig, PipelineTaskConnections, Struct
    from lsst.pipe.base.connectionTypes import Input, Output
except ImportError as error:
    raise ImportError(
        'MakePsfMatchedWarpTask needs lsst.pipe.base: pip install "psfmatch[rubin]" (Python 3.12 and later)'
    ) from error

from psfmatch.io.lsst_images import from_lsst_images, to_visit_image
from psfmatch.lsst.model_psf import GaussianPsfFactory
from psfmatch.lsst.task import ModelPsfMatchTask

if TYPE_CHECKING:
    from lsst.images import VisitImage

__all__ = ["MakePsfMatchedWarpConfig", "MakePsfMatchedWarpConnections", "MakePsfMatchedWarpTask"]

DIMENSIONS = ("instrument", "visit", "detector")


class MakePsfMatchedWarpConnections(  # type: ignore[call-arg]
    PipelineTaskConnections, dimensions=DIMENSIONS, defaultTemplates={"inputName": "visit_image"}
):
    """What `MakePsfMatchedWarpTask` reads and writes; one detector of one visit is one quantum."""

    direct_warp = Input(
        doc="The image to match, with its PSF, variance and mask.",
        name="{inputName}",
        storageClass="VisitImage",
        dimensions=DIMENSIONS,
    )
    psf_matched_warp = Output(
        doc="The image with the model PSF.",
        name="psf_matched_{inputName}",
        storageClass="VisitImage",
        dimensions=DIMENSIONS,
    )


class MakePsfMatchedWarpConfig(PipelineTaskConfig, pipelineConnections=MakePsfMatchedWarpConnections):  # type: ignore[call-arg]
    """The configuration of `MakePsfMatchedWarpTask`, with Rubin's fields and defaults."""

    modelPsf = GaussianPsfFactory.makeField(doc="The PSF that all images get.")
    psfMatch = ConfigurableField(doc="How an image is matched to it.", target=ModelPsfMatchTask)

    def setDefaults(self) -> None:
        super().setDefaults()
        self.psfMatch.kernel["AL"].alardSigGauss = [1.0, 2.0, 4.5]
        self.modelPsf.defaultFwhm = 7.7


class MakePsfMatchedWarpTask(PipelineTask):
    """Match visit images to one model PSF.

    Rubin's task of this name takes a warp of one visit and matches the part of every detector on its own.  This one
    takes the detectors' images as they are, ``lsst.images.VisitImage``, before they are warped: their PSF models are
    then sampled where they were made, and what is interpolated afterwards is smooth.

    ``metadata`` holds the worst figures of the match over the field (see `psfmatch.Quality`).

    Parameters
    ----------
    **kwargs
        As ``lsst.pipe.base.PipelineTask``.
    """

    ConfigClass = MakePsfMatchedWarpConfig
    _DefaultName = "makePsfMatchedWarp"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.makeSubtask("psfMatch")

    def run(self, direct_warp: VisitImage) -> Struct:
        """Match one image.

        Parameters
        ----------
        direct_warp : lsst.images.VisitImage
            It stays as it is.

        Returns
        -------
        Struct
            ``psf_matched_warp`` : lsst.images.VisitImage
                Matched; see `psfmatch.io.lsst_images.to_visit_image` for what it keeps.

        Raises
        ------
        NoPsfError, NoKernelCandidatesError, InputError, PSFError
            As `ModelPsfMatchTask.run`; or if the image's PSF could not be read, or the model cannot be stored.
        """
        result = self.psfMatch.run(from_lsst_images(direct_warp), self.config.modelPsf.apply())
        for name, value in result.matched.quality.worst.items():
            self.metadata[name] = float(value)
        return Struct(psf_matched_warp=to_visit_image(result.psfMatchedExposure, direct_warp))
