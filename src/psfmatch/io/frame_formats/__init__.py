"""Frame formats, one a file; `registry` says in which order they are asked."""

from psfmatch.io.frame_formats.base import Frame, FrameFormat, FrameSource, Plane
from psfmatch.io.frame_formats.registry import frame_format, frame_formats, read_frame

__all__ = ["Frame", "FrameFormat", "FrameSource", "Plane", "frame_format", "frame_formats", "read_frame"]
