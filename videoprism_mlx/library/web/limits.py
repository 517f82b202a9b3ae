"""How much a client of the page may ask for, and for how long."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Limits:
    """The bounds of the server. Times are in seconds."""

    connections: int = 128  # A Mac opens 256 files at once.
    url_bytes: int = 4096
    header_bytes: int = 16_384
    head_seconds: float = 10.0  # For a request line and its headers.
    body_idle_seconds: float = 10.0  # Without a byte of a body.
    body_seconds: float = 90.0  # For a whole body.
    send_seconds: float = 60.0  # In which a client takes nothing of an answer.
    searches: int = 4  # At once. More wait.
    results: int = 200  # Of one search.
    upload_bytes: int = 2**26
    upload_pixels: int = 50_000_000  # Of a picture, or of a frame.
    upload_decoded_pixels: int = 8_000_000_000  # Of all frames of a clip.
    upload_duration: float = 120.0  # Of a clip.
    upload_seconds: float = 30.0  # For reading and encoding.
    receiving: int = 16  # Uploads that come in at once. More are refused.
    uploads: int = 2  # Read at once. More are refused.
    kept_uploads: int = 64  # Whose embeddings are kept.
    preview_length: int = 10  # Seconds of video in each preview.
    preview_height: int = 480
    preview_rate: float = 30.0  # Frames a second, at most.
    preview_seconds: float = 60.0  # For making one.
    previews: int = 2  # Made at once.
    waiting_previews: int = 8  # More are refused.
    preview_bytes: int = 2**29  # Of all previews that are kept.
