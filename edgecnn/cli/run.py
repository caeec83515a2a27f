"""``edgecnn run``: a bundle on a camera, a video or pictures."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgecnn.cli import _common
from edgecnn.cli._line import note, status_line
from edgecnn.cli._run_report import Tally, report, warn_of_missing

if TYPE_CHECKING:
    from edgecnn.choices import Objective
    from edgecnn.predictor import Predictor
    from edgecnn.results import Result
    from edgecnn.stream import Frame, Sink, Source

__all__ = ["command"]

log = logging.getLogger(__name__)


class _FiniteRange(click.FloatRange):
    """Nothing compares with NaN, so click lets it pass every range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a number that can be used here.", param, ctx)
        return number


def _size_hw(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    width, _, height = value.partition("x")
    if not (width.isascii() and width.isdigit() and height.isascii() and height.isdigit()):
        raise click.BadParameter(f"{value} is no size; give width and height, as 640x480.")
    return int(height), int(width)


@click.command("run", short_help="Run a bundle on a camera, a video or pictures.")
@click.argument("bundle", default="face")
@click.option(
    "--camera", "cameras", type=click.IntRange(0), multiple=True, help="Number of a camera; repeatable."
)
@click.option(
    "--source",
    "sources",
    metavar="PATH|URL",
    multiple=True,
    help="Video, image, folder, rtsp:// or http:// URL, csi://0, watch://FOLDER, - (raw frames); repeatable.",
)
@click.option(
    "--frame-size", "frame_hw", callback=_size_hw, metavar="WxH", help="Of the raw frames of --source -."
)
@click.option(
    "--timeout",
    type=_FiniteRange(0, 3600, min_open=True),
    default=4.0,
    show_default=True,
    metavar="S",
    help="A camera or URL that gives no frame for so long is opened anew.",
)
@click.option("--show", is_flag=True, help="Show a window; q ends.")
@click.option(
    "--save",
    metavar="PATH",
    multiple=True,
    help="Annotated video (.mp4, .mkv, .avi), best picture (.png, .jpg), folder for a folder; repeatable.",
)
@click.option(
    "--segment",
    type=_FiniteRange(1),
    metavar="S",
    help="A new file of --save video every S seconds: NAME-000001.mp4, …",
)
@click.option(
    "--json",
    "json_path",
    metavar="FILE",
    multiple=True,
    callback=_common.once,
    help="JSON lines; - is stdout.",
)
@click.option(
    "--json-max-mb",
    type=_FiniteRange(0, min_open=True),
    metavar="MB",
    help="Rotate the file of --json before it gets larger: NAME.1, NAME.2, …",
)
@click.option(
    "--keep",
    type=click.IntRange(1),
    metavar="N",
    help="Older files that stay, of --json-max-mb (5, if left out) and of --segment (all, if left out).",
)
@click.option(
    "--webhook",
    metavar="URL",
    multiple=True,
    callback=_common.once,
    envvar="EDGECNN_WEBHOOK",
    show_envvar=True,
    help="POST the JSON lines to http(s)://user:password@host/path.",
)
@click.option(
    "--mqtt",
    metavar="URL",
    multiple=True,
    callback=_common.once,
    envvar="EDGECNN_MQTT",
    show_envvar=True,
    help="Publish the JSON lines to mqtt(s)://user:password@host/topic.",
)
@click.option(
    "--spool",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="Where lines wait for --webhook and --mqtt, instead of ~/.local/state/edgecnn/spool.",
)
@click.option(
    "--spool-mb",
    type=_FiniteRange(0.1),
    default=64.0,
    show_default=True,
    metavar="MB",
    help="What waits for each of them at most; then the oldest are given up.",
)
@click.option("--metrics", metavar="[HOST:]PORT", help="Counters for Prometheus, at /metrics.")
@click.option(
    "--web",
    metavar="[HOST:]PORT",
    multiple=True,
    callback=_common.once,
    help="Show it to browsers: on this machine, or, with a HOST, to those who have the token.",
)
@click.option("--runtime", default="auto", show_default=True, metavar="NAME", help="Which engine runs it.")
@_common.precision_option
@click.option(
    "--mode",
    type=click.Choice(["latency", "throughput"]),
    default="latency",
    show_default=True,
    help="Each frame as soon as can be, or as many frames as can be.",
)
@click.option("--threads", type=click.IntRange(1), help="Threads of one inference.")
@click.option("--threshold", type=_FiniteRange(0, 1), help="Instead of the bundle's.")
@click.option(
    "--min-size", type=click.IntRange(4), metavar="PX", help="Smallest object, instead of the bundle's."
)
@click.option(
    "--smooth", type=click.IntRange(1), default=1, metavar="N", help="Average classes over N frames."
)
@click.option(
    "--still",
    type=click.IntRange(0, 254),
    metavar="LEVELS",
    help="Score only what changed by more grey levels (a camera that does not move).",
)
@click.option(
    "--tiles",
    type=_FiniteRange(0, 1, max_open=True),
    metavar="OVERLAP",
    help="Look at large frames in tiles that overlap by this share (detection).",
)
@click.option("--max-frames", type=click.IntRange(1), metavar="N", help="Stop after N frames.")
@click.option("--duration", type=_FiniteRange(0, min_open=True), metavar="S", help="Stop after S seconds.")
@click.option("--service", is_flag=True, help="For systemd: tell it how it goes; SIGHUP opens BUNDLE again.")
@_common.require_signature
@_common.verbosity
def command(
    bundle: str,
    cameras: tuple[int, ...],
    sources: tuple[str, ...],
    frame_hw: tuple[int, int] | None,
    timeout: float,
    show: bool,
    save: tuple[str, ...],
    segment: float | None,
    json_path: str | None,
    json_max_mb: float | None,
    keep: int | None,
    webhook: str | None,
    mqtt: str | None,
    spool: str | None,
    spool_mb: float,
    metrics: str | None,
    web: str | None,
    runtime: str,
    precision: str,
    mode: Objective,
    threads: int | None,
    threshold: float | None,
    min_size: int | None,
    smooth: int,
    still: int | None,
    tiles: float | None,
    max_frames: int | None,
    duration: float | None,
    service: bool,
) -> None:
    """Run BUNDLE (the face detector that ships, if left out) on a camera, a video or pictures.

    \b
    edgecnn run --camera 0 --show
    edgecnn run --source street.mp4 --save found.mp4 --json found.jsonl
    edgecnn run net.edge --source long.mp4 --mode throughput --json found.jsonl
    edgecnn run --source rtsp://user:password@10.0.0.7/stream --json -
    edgecnn run net.edge --source photos/ --save annotated/
    edgecnn run net.edge --camera 0 --camera 1 --json -
    edgecnn run --camera 0 --web 8080
    """
    wheres = _wheres(bundle, cameras, sources)
    outputs = [Path(path) for path in (*save, *([json_path] if json_path not in (None, "-") else []))]
    if len({path.resolve() for path in outputs}) < len(outputs):
        raise click.UsageError("two outputs name the same file")

    if segment is not None and not save:
        raise click.UsageError("--segment goes with --save")
    if json_max_mb is not None and json_path is None:
        raise click.UsageError("--json-max-mb goes with --json")
    if len(wheres) > 1 and (show or save or smooth > 1 or still is not None):
        raise click.UsageError("--show, --save, --smooth and --still go with one source")
    if still is not None and isinstance(wheres[0], str) and Path(wheres[0]).is_dir():
        raise click.UsageError("--still goes with a camera or a video, not with a folder of pictures")

    from edgecnn.predictor import load
    from edgecnn.stream import (
        Interrupted,
        Supervised,
        WindowSink,
        open_json,
        open_save,
        open_sources,
        run_stream,
    )

    def open_predictor() -> Predictor:
        return load(
            bundle,
            runtime=runtime,
            precision=precision,
            mode=mode,
            threads=threads,
            threshold=threshold,
            min_size=min_size,
            smooth=smooth,
            still=still,
            tiles=tiles,
        )

    with (
        open_sources(wheres, timeout_s=timeout, frame_hw=frame_hw) as opened,
        Supervised(open_predictor) as supervised,
    ):
        predictor = supervised.predictor
        if predictor.runtime.name == "null":
            log.warning("the runtime null has no engine: every score is zero, whatever the frame shows")
        sinks: list[Sink] = []
        if show:
            sinks.append(WindowSink())
        if web is not None:
            sinks.append(_open_web(web, opened, f"{Path(bundle).name} on {predictor.runtime.name}"))
        saved = [_segments(path) if segment else path for path in save]
        sinks[:0] = [open_save(path, opened, segment_s=segment, keep=keep) for path in save]
        if json_path is not None:
            sinks.insert(0, open_json(json_path, opened, max_mb=json_max_mb, keep=keep))
        if webhook or mqtt or metrics:
            from edgecnn.stream.network import open_metrics, open_outboxes

            outboxes = open_outboxes(opened, webhook=webhook, mqtt=mqtt, spool=spool, spool_mb=spool_mb)
            sinks[:0] = [*outboxes, *([open_metrics(metrics, opened, outboxes)] if metrics else [])]
        tally = Tally(opened)
        try:
            with status_line(json_path != "-" and not _common.is_quiet()) as line:
                line.show(str(tally))

                def on_frame(frame: Frame, result: Result) -> None:
                    tally.add(frame, result)
                    line.show(str(tally))

                summary = run_stream(
                    supervised,
                    opened,
                    sinks,
                    workers=predictor.workers,
                    service=service,
                    max_frames=max_frames,
                    duration_s=duration,
                    on_frame=on_frame,
                )
        except Interrupted as interrupted:
            report(interrupted.summary, tally, predictor.runtime.name, json_path, saved)
            raise
        if max_frames is None and duration is None:
            warn_of_missing(summary, opened)
        report(summary, tally, predictor.runtime.name, json_path, saved)


def _open_web(where: str, source: Source, about: str) -> Sink:
    from edgecnn.web import WebSink

    sink = WebSink(where, source, about)
    if not _common.is_quiet():
        note(f"web view: {sink.url}")
    return sink


def _wheres(bundle: str, cameras: tuple[int, ...], sources: tuple[str, ...]) -> list[int | str]:
    wheres: list[int | str] = [*cameras, *sources]
    if len(set(map(str, wheres))) < len(wheres):
        raise click.UsageError("a camera or source is given more than once")
    if wheres:
        return wheres
    if Path(bundle).is_file() or (Path(bundle).is_dir() and not bundle.endswith(".edge")):
        raise click.UsageError(f"{bundle} is no bundle; did you mean: edgecnn run --source {bundle}")
    raise click.UsageError("say where frames come from, such as --camera 0 or --source video.mp4")


def _segments(path: str) -> str:
    """What the files are called that a video is cut into."""
    from edgecnn.stream.video import VIDEO_CODECS

    video = Path(path)
    return str(video.with_stem(f"{video.stem}-*")) if video.suffix.lower() in VIDEO_CODECS else path
