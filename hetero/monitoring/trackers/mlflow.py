"""MLflow: local files in `RUN_DIR/mlflow` by default, or any tracking server."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Annotated

from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient
from pydantic import AfterValidator

from hetero.monitoring.tracked import TrackedRun
from hetero.monitoring.tracker import Tracker, TrackerOptions
from hetero.paths import local

_FILE_STORE = "MLFLOW_ALLOW_FILE_STORE"
_NOT_IN_NAMES = re.compile(r"[^\w\-. /:]")


def _address(uri: str) -> str:
    """Of a server or database as it is; MLflow itself would take a ~ for a folder's name."""
    is_path = uri.startswith(("/", "~", "file:"))
    return local(uri, "monitor.trackers.mlflow.tracking_uri").resolve().as_uri() if is_path else uri


class MlflowOptions(TrackerOptions):
    """`experiment` is the job's name by default."""

    tracking_uri: Annotated[str, AfterValidator(_address)] | None = None
    experiment: str | None = None


class MlflowTracker(Tracker):
    """One MLflow run, one batch per step. Characters that its names do not take become `_`."""

    Options = MlflowOptions

    def __init__(self, run: TrackedRun, options: MlflowOptions) -> None:
        if options.tracking_uri is None:
            os.environ.setdefault(_FILE_STORE, "true")  # MLflow serves plain files only where this is set
        uri = options.tracking_uri or (run.folder / "mlflow").resolve().as_uri()
        self._client = MlflowClient(tracking_uri=uri)
        self._run_id = self._start(run, options.experiment or run.project)

    def log(self, step: int, time: float, curves: Mapping[str, float]) -> None:
        milliseconds = round(time * 1000)
        metrics = [Metric(_NOT_IN_NAMES.sub("_", key), value, milliseconds, step) for key, value in curves.items()]
        self._client.log_batch(self._run_id, metrics=metrics)

    def close(self) -> None:
        self._client.set_terminated(self._run_id)

    def _start(self, run: TrackedRun, experiment: str) -> str:
        known = self._client.get_experiment_by_name(experiment)
        place = known.experiment_id if known else self._client.create_experiment(experiment)
        made = self._client.create_run(place, run_name=run.name, tags={"emulated": str(run.emulated).lower()})
        sections = [Param(key, str(value)) for key, value in run.job.items()]
        self._client.log_batch(made.info.run_id, params=sections)
        return str(made.info.run_id)
