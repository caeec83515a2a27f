from __future__ import annotations

import pytest

from edgecnn.errors import InputError
from edgecnn.stream.address import Address, gstreamer_pipeline, parse_address


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("0", Address("camera", "0", "camera:0")),
        ("/dev/video12", Address("camera", "12", "camera:12")),
        ("csi://01", Address("csi", "1", "csi://1")),
        ("rtsp://10.0.0.7/a?b=c", Address("url", "rtsp://10.0.0.7/a?b=c", "rtsp://10.0.0.7/a")),
        ("RTSP://u:p@h:554/s", Address("url", "rtsp://u:p@h:554/s", "rtsp://h:554/s")),
        ("https://[::1]:8443/v", Address("url", "https://[::1]:8443/v", "https://[::1]:8443/v")),
        ("http://h", Address("url", "http://h", "http://h")),
    ],
)
def test_names(name: str, expected: Address) -> None:
    assert parse_address(name) == expected


@pytest.mark.parametrize("name", ["clip.mp4", "photos/", "1.png", "-1", "٣", "rtsp:/h", "/dev/video"])
def test_paths_are_none(name: str) -> None:
    assert parse_address(name) is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ftp://h/secret", "ftp:// is not supported; give csi://, rtsp://"),
        ("file:///etc/secret", "file:// is not supported"),
        ("csi://front", "number of a sensor"),
        ("rtsp://", "characters|names no host"),
        ("rtsp:///secret", "names no host"),
        ("rtsp://h:99999/secret", "cannot be read"),
        ("rtsp://h/a b/secret", "characters that are not allowed"),
        ('rtsp://h/" ! filesink location="secret', "characters that are not allowed"),
        ("http://h/\nsecret", "characters that are not allowed"),
        ("http://[h/secret", "cannot be read|characters"),
    ],
)
def test_what_is_refused_is_not_repeated(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        parse_address(name)
    assert "secret" not in str(raised.value)


def test_pipeline_of_a_sensor() -> None:
    pipeline = gstreamer_pipeline(Address("csi", "2", "csi://2"))
    assert pipeline is not None
    assert pipeline.startswith("nvarguscamerasrc sensor-id=2 ! ")
    assert pipeline.endswith("format=BGR ! appsink drop=true max-buffers=1 sync=false")


def test_pipeline_of_rtsp_decodes_in_hardware() -> None:
    address = parse_address("rtsp://u:p@h/s?x=1&y=2")
    assert address is not None
    pipeline = gstreamer_pipeline(address)
    assert pipeline is not None
    assert pipeline.startswith('rtspsrc location="rtsp://u:p@h/s?x=1&y=2" protocols=tcp ')
    assert " ! nvv4l2decoder " in pipeline


@pytest.mark.parametrize("wrong", list("!'();"))
def test_pipeline_cannot_be_changed_by_a_url(wrong: str) -> None:
    address = parse_address(f"rtsp://u:pass{wrong}word@h/s")
    assert address is not None
    with pytest.raises(InputError, match=f"write %{ord(wrong):02X}") as raised:
        gstreamer_pipeline(address)
    assert "pass" not in str(raised.value)


@pytest.mark.parametrize("name", ["0", "http://h/v"])
def test_no_pipeline_for_others(name: str) -> None:
    address = parse_address(name)
    assert address is not None
    assert gstreamer_pipeline(address) is None
