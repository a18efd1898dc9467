"""TensorBoard: event files in `RUN_DIR/tensorboard`, by TensorBoard's own writer, without torch or TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from hetero.monitoring.tracked import TrackedRun
from hetero.monitoring.tracker import Tracker, TrackerOptions
from hetero.paths import PathText, local


class TensorBoardOptions(TrackerOptions):
    folder: PathText | None = None
    flush_s: int = 10


class TensorBoardTracker(Tracker):
    """Values are float32 in the file, as in all event files."""

    Options = TensorBoardOptions

    def __init__(self, run: TrackedRun, options: TensorBoardOptions) -> None:
        key = "monitor.trackers.tensorboard.folder"
        folder = local(options.folder or run.folder / "tensorboard", key)
        self._writer = EventFileWriter(str(folder), flush_secs=options.flush_s)

    def log(self, step: int, time: float, curves: Mapping[str, float]) -> None:
        values = [Summary.Value(tag=name, simple_value=value) for name, value in curves.items()]
        self._writer.add_event(Event(wall_time=time, step=step, summary=Summary(value=values)))

    def close(self) -> None:
        self._writer.close()
