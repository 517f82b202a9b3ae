"""When a video was recorded, and with what codec."""

from contextlib import closing
from pathlib import Path

import media
import pytest

from videoprism_mlx.video.ffmpeg.opening import recording_time
from videoprism_mlx.video.source import open_source


@pytest.mark.parametrize(
    ("metadata", "seconds"),
    [
        ({"creation_time": "2021-06-01T10:00:00.000000Z"}, 1622541600.0),
        ({"com.apple.quicktime.creationdate": "2021-06-01T12:00:00+0200"}, 1622541600.0),
        ({"com.apple.quicktime.creationdate": "soon", "date": "2021-06-01"}, 1622505600.0),
        ({"creation_time": "1904-01-01T00:00:00.000000Z"}, None),
        ({"creation_time": "1970-01-01T00:00:00.000000Z"}, None),
        ({"date": "a summer day"}, None),
        ({}, None),
    ],
)
def test_what_files_say(metadata: dict[str, str], seconds: float | None) -> None:
    assert recording_time(metadata) == seconds


def test_sources_say_it(tmp_path: Path) -> None:
    for name, codec in (("b.mp4", "h264"), ("vp9.webm", "vp9")):
        with closing(open_source(media.clip(name))) as source:
            assert (source.codec, source.recorded) == (codec, None)
    dated, when = tmp_path / "dated.mp4", "creation_time=2021-06-01T10:00:00Z"
    media.ffmpeg("-i", media.clip("b.mp4"), "-c", "copy", "-metadata", when, dated)
    with closing(open_source(dated)) as source:
        assert source.recorded == 1622541600.0
