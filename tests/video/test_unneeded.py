"""Frames that are not decoded, as no other frame needs them and nobody asked for them."""

from contextlib import closing
from pathlib import Path

import av
import media
import numpy as np
import pytest

import videoprism_mlx as vp
from videoprism_mlx.errors import VideoError
from videoprism_mlx.video.ffmpeg.decoder import Decoder
from videoprism_mlx.video.ffmpeg.reader import VideoFile
from videoprism_mlx.video.ffmpeg.unneeded import Unneeded, sized_units, started_units

H264 = [
    "b.mp4",
    "b.mkv",
    "b.avi",
    "b.ts",
    "b.flv",
    "raw.h264",
    "open.mp4",
    "open.ts",
    "refresh.mp4",
]
INTERLACED = ["interlaced.mp4", "interlaced.ts"]

# Their packets have no times, or wrong ones. So all frames are decoded.
COUNTED = ["b.avi", "raw.h264"]


def fetched(source: VideoFile, numbers: list[int]) -> list[np.ndarray]:
    """The frames of these numbers."""
    [frames] = source.consistently(lambda: iter([[*source.fetch(numbers)]]))
    return frames


def packets(path: Path) -> tuple[int, int]:
    """How many packets a file has, and how many of them are unneeded."""
    with av.open(str(path)) as opened:
        [stream] = opened.streams.video
        is_unneeded = Unneeded(stream)
        each = [is_unneeded(one) for one in opened.demux(stream) if one.size]
    return len(each), sum(each)


@pytest.mark.parametrize("name", H264 + INTERLACED)
def test_it_is_what_ffmpeg_can_leave_out(name: str) -> None:
    count, unneeded = packets(media.clip(name))
    with av.open(str(media.clip(name))) as opened:
        [stream] = opened.streams.video
        stream.codec_context.skip_frame = "NONREF"
        kept = sum(1 for _ in opened.decode(stream))
    assert count - unneeded == kept
    assert name == "refresh.mp4" or unneeded >= count / 5


@pytest.mark.parametrize("name", ["hevc.mp4", "vp9.webm", "av1.mp4", "mpeg4.avi", "mpeg2.ts"])
def test_other_codecs_are_decoded_whole(name: str) -> None:
    assert packets(media.clip(name))[1] == 0


@pytest.mark.parametrize("name", H264 + INTERLACED)
def test_the_frames_are_those_of_all(name: str) -> None:
    everything = vp.read_video(media.clip(name), None, size=None)
    everything = (255 * everything).round().astype(np.uint8)
    random = np.random.default_rng(0)
    with closing(VideoFile(media.clip(name))) as source:
        for count in (1, 3, 8, 20, 2):
            numbers = sorted(random.choice(len(everything), count, replace=False).tolist())
            for number, frame in zip(numbers, fetched(source, numbers), strict=True):
                assert np.array_equal(frame, everything[number]), (number, numbers)
        assert source._walker.can_leave_out or name in COUNTED


def test_a_frame_that_was_left_out_can_be_asked_for_later() -> None:
    with closing(VideoFile(media.clip("b.mp4"))) as source:
        for number in range(0, 90, 9):
            fetched(source, [number])
            for later in (number + 1, number + 2, number + 3):
                assert media.number(fetched(source, [later])[0]) == later
        assert not source._walker.is_counted


def test_few_frames_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    convert = Decoder._leaves_out
    monkeypatch.setattr(
        Decoder, "_leaves_out", lambda self, one: convert(self, one) or decoded.append(one.pts)
    )
    with closing(VideoFile(media.clip("b.mp4"))) as source:
        fetched(source, [0, 30, 60])
        source.finish()
        assert len(decoded) <= 0.8 * len(source.times) + 3


def test_without_frames_that_should_come_nothing_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    leaves_out = Decoder._leaves_out

    def without_a_word(self: Decoder, packet: av.Packet) -> bool:
        is_left_out = leaves_out(self, packet)
        self.left_out.clear()
        return is_left_out

    monkeypatch.setattr(Decoder, "_leaves_out", without_a_word)
    with closing(VideoFile(media.clip("b.mp4"))) as source:
        assert media.numbers(np.array(fetched(source, [0, 41, 50]))) == [0, 41, 50]
        assert not source._walker.can_leave_out and not source._walker.is_counted


def damaged(tmp_path: Path, is_needed: bool) -> tuple[Path, int]:
    """A clip with zeros in a frame that others need, or do not, and the number of the frame."""
    path = media.clip("b.mp4")
    with av.open(str(path)) as opened:
        [stream] = opened.streams.video
        is_unneeded = Unneeded(stream)
        chosen = [
            one
            for one in opened.demux(stream)
            if one.size and not one.is_keyframe and is_unneeded(one) != is_needed
        ][5]
        data, at, number = bytes(chosen), chosen.pos, round(30 * chosen.pts * stream.time_base)
    whole = bytearray(path.read_bytes())
    assert whole[at : at + len(data)] == data
    whole[at + 6 : at + len(data)] = bytes(len(data) - 6)
    (tmp_path / "clip.mp4").write_bytes(whole)
    return tmp_path / "clip.mp4", number


def test_damage_in_a_frame_that_nothing_needs(tmp_path: Path) -> None:
    path, number = damaged(tmp_path, is_needed=False)
    others = [one for one in range(0, 90, 10) if one != number]
    with closing(VideoFile(path)) as source:
        assert media.numbers(np.array(fetched(source, others))) == others
        source.finish()
    with pytest.raises(VideoError, match=r"frame \d+, at .* is damaged"):
        vp.read_video(path, None)


def test_damage_in_a_frame_that_others_need(tmp_path: Path) -> None:
    path, number = damaged(tmp_path, is_needed=True)
    after = number + 8
    with closing(VideoFile(path)) as source, pytest.raises(VideoError, match=r"frame \d+, at"):
        fetched(source, [0, after])


def test_frames_with_the_times_of_decoding(tmp_path: Path) -> None:
    """Without B-frames in the first second, only they show that the times are wrong."""
    late = [*media.X264, "-x264-params", "bframes=2:b-adapt=0:b-pyramid=none"]
    late += ["-force_key_frames", "expr:lt(t,1)"]
    path = media.write(tmp_path / "late.mp4", frames=60, arguments=late)
    for name, after in (("clip.mkv", ["-bsf:v", "setts=pts=DTS"]), ("clip.avi", [])):
        wrong = media.remux(path, tmp_path / name, after=after)
        assert packets(wrong)[1] >= 15
        for number in range(31, 60):
            with closing(VideoFile(wrong)) as source:
                assert media.numbers(np.array(fetched(source, [0, number]))) == [0, number]


def test_parameters_are_not_left_out() -> None:
    with av.open(str(media.clip("b.ts"))) as opened:
        [stream] = opened.streams.video
        is_unneeded = Unneeded(stream)
        packet = next(one for one in opened.demux(stream) if is_unneeded(one))
        sets = bytes(stream.codec_context.extradata or b"")
        assert sets and is_unneeded(av.Packet(bytes(packet)))
        assert not is_unneeded(av.Packet(sets + bytes(packet)))


def test_nonsense_is_decoded() -> None:
    assert [*sized_units(b"\0\0\0\2\1\2\0\0\0\1\x41", 4)] == [1, 0x41]
    assert [*sized_units(b"\0\0\0\2\1\2\0\0\0\5\x41", 4)] == [1, None]
    assert [*sized_units(b"\0\0\0\0\1\2", 4)] == [None]
    assert [*started_units(b"\0\0\0\1\x09\xf0\0\0\1\1\2\0\0\1")] == [9, 1]
