"""Counters for Prometheus, as a server would read them."""

from __future__ import annotations

import http.client
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgecnn.errors import InputError, Unavailable
from edgecnn.results import Result
from edgecnn.stream import Frame, Summary, metrics, open_source, run_stream
from edgecnn.stream.base import SourceEvent
from edgecnn.stream.metrics import Metrics, parse_place
from edgecnn.stream.network import open_metrics, open_outboxes
from edgecnn.stream.several import SeveralSources
from tests.stream.fakes import classes, detections, picture, pictures, predicting, write_picture
from tests.stream.receivers import free_port

SUMMARY = Summary(frames=1, dropped=0, fps=1.0, p50_ms=1.0, p95_ms=1.0, reconnects=0, seconds=1.0)
SAMPLE = re.compile(r'edgecnn_([a-z_]+)(?:\{([a-z]+)="((?:[^"\\]|\\.)*)"\})? (-?[0-9.]+)')


def get(port: int, path: str = "/metrics") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def scrape(sink: Metrics) -> dict[tuple[str, str], float]:
    """Samples by name and value of the label; every line has to be one that Prometheus reads."""
    status, text = get(sink.port)
    assert status == 200
    found: dict[tuple[str, str], float] = {}
    kinds: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("# "):
            _, word, name, rest = line.split(" ", 3)
            assert word == ("TYPE" if name in kinds else "HELP")
            kinds[name] = rest
            continue
        match = SAMPLE.fullmatch(line)
        assert match, line
        assert re.sub("_(bucket|sum|count)$", "", f"edgecnn_{match[1]}") in kinds
        assert (match[1], match[3] or "") not in found
        found[match[1], match[3] or ""] = float(match[4])
    return found


def timed(result: Result, milliseconds: float) -> Result:
    result.timing_ms.update(read=5.0, wait=3.0, total=8.0 + milliseconds)
    return result


@pytest.fixture
def camera() -> Iterator[Metrics]:
    source = open_source(picture(1))
    source.live, source.name = True, "camera:0"
    sink = open_metrics("0", source)
    assert source._listeners == [sink.note]
    yield sink
    sink.close(SUMMARY)


def see(sink: Metrics, index: int, result: Result, source: str = "camera:0") -> None:
    image = picture(1)
    sink.write(Frame(index, image, 0.0, source), result, lambda: image)


def test_what_a_camera_gave(camera: Metrics) -> None:
    for index, milliseconds in ((0, 0.5), (1, 10.0), (4, 10.1), (9, 9000.0)):
        see(camera, index, timed(detections(index), milliseconds))
    found = scrape(camera)
    assert found["frames_total", "camera:0"] == 4
    assert found["dropped_total", "camera:0"] == 2 + 4
    assert found["source_up", "camera:0"] == 1
    assert found["found_total", "thing"] == 0 + 1 + 4 + 9
    buckets = {limit: count for (name, limit), count in found.items() if name == "prediction_seconds_bucket"}
    assert buckets["0.001"] == buckets["0.005"] == 1
    assert (buckets["0.01"], buckets["0.025"], buckets["5.0"], buckets["+Inf"]) == (2, 3, 3, 4)
    assert list(buckets.values()) == sorted(buckets.values())
    assert found["prediction_seconds_count", ""] == 4
    assert found["prediction_seconds_sum", ""] == pytest.approx(9.0206, abs=1e-6)


def test_a_camera_that_is_lost_and_comes_back(camera: Metrics) -> None:
    camera.note(SourceEvent("camera:0", "lost", "no frame for 4 s", 0.0))
    found = scrape(camera)
    assert (found["source_up", "camera:0"], found["reconnects_total", "camera:0"]) == (0, 0)
    camera.note(SourceEvent("camera:0", "back", "after 7 s", 0.0))
    found = scrape(camera)
    assert (found["source_up", "camera:0"], found["reconnects_total", "camera:0"]) == (1, 1)


def test_names_are_escaped() -> None:
    source = open_source(picture(1))
    source.name = 'a "b"\\c\n\udce9é'
    sink = open_metrics("0", source)
    see(sink, 0, timed(classes(0.5), 1.0), source.name)
    found = scrape(sink)
    sink.close(SUMMARY)
    assert found["frames_total", r"a \"b\"\\c\n?é"] == 1
    assert found["found_total", "thing"] == 1


def test_several_sources_are_counted_each() -> None:
    cameras = [open_source(picture(1)) for _ in range(2)]
    for number, camera in enumerate(cameras):
        camera.live, camera.name = True, f"camera:{number}"
    sink = open_metrics("0", SeveralSources(cameras))
    for index in (0, 3):
        see(sink, index, timed(detections(1), 1.0), "camera:0")
    see(sink, 0, timed(detections(1), 1.0), "camera:1")
    sink.note(SourceEvent("camera:1", "lost", "no frame for 4 s", 0.0))
    found = scrape(sink)
    sink.close(SUMMARY)
    for name, values in (("frames_total", (2, 1)), ("dropped_total", (2, 0)), ("source_up", (1, 0))):
        assert tuple(found[name, f"camera:{number}"] for number in range(2)) == values


def test_pictures_of_a_folder_are_one_source(tmp_path: Path) -> None:
    for number in range(3):
        write_picture(tmp_path / f"{number}.png")
    with open_source(tmp_path) as source:
        sink = open_metrics("0", source)
        seen: list[dict[tuple[str, str], float]] = []
        run_stream(lambda image: detections(2), source, [sink], on_frame=lambda *_: seen.append(scrape(sink)))
    assert [found["frames_total", source.name] for found in seen] == [1, 2, 3]
    assert seen[-1]["found_total", "thing"] == 6
    assert not [name for name, _ in seen[-1] if name == "dropped_total"]


def test_spools_are_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecnn.stream.outbox.CLOSE_S", 0.1)
    source = open_source(pictures(5))
    boxes = open_outboxes(source, webhook=f"http://127.0.0.1:{free_port()}/", spool=str(tmp_path))
    sink = open_metrics("0", source, boxes)
    seen: list[dict[tuple[str, str], float]] = []
    predict = predicting([detections(1)] * 5)
    run_stream(predict, source, [*boxes, sink], on_frame=lambda *_: seen.append(scrape(sink)))
    assert [found["spool_lines", "webhook"] for found in seen] == [1, 2, 3, 4, 5]
    assert seen[-1]["spool_bytes", "webhook"] > 5 * 100
    assert seen[-1]["spool_given_up_total", "webhook"] == 0


@pytest.mark.parametrize("path", ["/", "/metrics/../x", "/favicon.ico"])
def test_nothing_else_is_there(camera: Metrics, path: str) -> None:
    assert get(camera.port, path)[0] == 404
    assert get(camera.port, "/metrics?x=y")[0] == 200


def test_a_client_that_says_nothing_holds_others_up_for_a_moment(
    camera: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_connection(("127.0.0.1", camera.port)) as silent:
        silent.sendall(b"GET /metr")
        assert scrape(camera)["source_up", "camera:0"] == 1


def test_a_client_that_goes_on_and_on_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "CLIENT_S", 0.3)
    sink = open_metrics("0", open_source(picture(1)))
    with socket.create_connection(("127.0.0.1", sink.port)) as client:
        client.sendall(b"G")
        time.sleep(0.1)
        sink.close(SUMMARY)


def test_nobody_listens_afterwards() -> None:
    sink = open_metrics("0", open_source(picture(1)))
    sink.close(SUMMARY)
    with pytest.raises(ConnectionRefusedError):
        get(sink.port)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("9100", ("127.0.0.1", 9100)),
        (":9100", ("127.0.0.1", 9100)),
        ("0.0.0.0:9100", ("0.0.0.0", 9100)),
        ("[::1]:9100", ("::1", 9100)),
    ],
)
def test_places(text: str, place: tuple[str, int]) -> None:
    assert parse_place(text) == place


@pytest.mark.parametrize("text", ["", "here", "host:", "host:x", "65536", "-1", "٣"])
def test_what_is_no_place(text: str) -> None:
    with pytest.raises(InputError, match="give a port, or HOST:PORT"):
        parse_place(text)


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(
            Unavailable, match=rf"--metrics 127\.0\.0\.1:{port}: cannot listen there \(Address"
        ):
            open_metrics(str(port), open_source(picture(1)))


@pytest.mark.parametrize("host", ["203.0.113.1", "a..b", "no.such.host.invalid"])
def test_a_host_that_is_not_this_machine(host: str) -> None:
    with pytest.raises(Unavailable, match="cannot listen there"):
        open_metrics(f"{host}:9100", open_source(picture(1)))
