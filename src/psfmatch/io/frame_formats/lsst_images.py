from psfmatch.io.frame_formats.base import FrameFormat, fits_frame

FORMAT = FrameFormat(
    name="lsst-images", title="files of lsst.images", recognises=lambda s: False, read=fits_frame, mask="rubin"
)
