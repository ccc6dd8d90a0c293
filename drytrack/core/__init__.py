"""The bus: events, trackers, experiments, runs and their records.

Standard library and typing_extensions only; the JSON encoder is loaded with
the first recorded run. Nothing in here knows a tracker.
"""
