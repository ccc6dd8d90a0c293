"""Events for a tracker that is driven by hand, and what it has made of them."""

from __future__ import annotations

import datetime
import math
import pathlib
import struct

from drytrack.core import log_events

NOW = datetime.datetime(2026, 11, 20, 23, 12, 1)


def start(par_dir, config=None, **fields):
    fields = {"run_ts": NOW, "run_id": "run", **fields}
    return log_events.StartExperimentEvent.unpublished(
        config, "Digits", par_dir=pathlib.Path(par_dir), **fields
    )


def stop(**summary):
    return log_events.StopExperimentEvent.unpublished("Digits", "run", summary=summary)


def metric(epoch, metrics, model="mlp", source="train"):
    return log_events.MetricEvent.unpublished(model, source, epoch, metrics)


def step_metric(step, metrics, context=(), axis="step", model="mlp", source="train"):
    return log_events.StepMetricEvent.unpublished(
        source, step, metrics, dict(context), axis, model
    )


def load_model(epoch, model="mlp"):
    return log_events.LoadModelEvent.unpublished(model, "checkpoint", "file", epoch)


def bits(value):
    """Return what tells floats apart, all NaN being one."""
    return "nan" if math.isnan(value) else struct.pack("d", value)


def exact(loaded):
    return {
        source: {
            name: [(step, bits(value)) for step, value in zip(*series, strict=True)]
            for name, series in metrics.items()
        }
        for source, metrics in loaded.items()
    }
