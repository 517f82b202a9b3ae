"""One video file, read and written through FFmpeg's libraries, which PyAV brings."""

from videoprism_mlx.errors import MissingLibraryError

try:
    import av
except ImportError as error:
    raise MissingLibraryError(
        f"PyAV cannot be imported ({error}); install it with: pip install 'av>=17'"
    ) from error

__all__ = ["VERSION", "av"]

# PyAV before 17 lacks some of what is used here.
VERSION = int(av.__version__.partition(".")[0])
if VERSION < 17:
    raise MissingLibraryError(
        f"PyAV {av.__version__} is too old; expected 17 or newer: pip install 'av>=17'"
    )
