"""Every error and warning that drytrack raises, in one tree.

::

    DrytrackError
    ├── AccessOutsideScopeError (RuntimeError)    no current run, or several
    ├── RunStateError (RuntimeError)              not started, started twice, over
    │   ├── NestedRunError                        a second run without parent=
    │   └── BusBusyError                          a handler holds the bus for ever
    ├── RunExistsError (FileExistsError)          the id is taken
    ├── RunHeldError (RuntimeError)               a living process holds the run
    ├── RunNotFoundError (LookupError)            nothing to resume
    ├── RecordError (ValueError)                  a record that cannot be read
    ├── StorageError (OSError)                    a folder that cannot be written
    ├── JournalError (ValueError)                 a journal that cannot be read
    ├── SchemaError (ValueError)                  a database of another make or version
    ├── EventDefinitionError (TypeError)          an event class that cannot work
    ├── HandlerError (TypeError)                  a handler for something else
    ├── EventValueError (ValueError)              a field refused at the door
    │   ├── MetricValueError                      a metric that is no number
    │   └── InvalidNameError                      a name that cannot be kept
    ├── RegistrationError (ValueError)            a model or an actor, twice
    ├── TrackerNameError (ValueError)             two trackers of one name
    ├── TrackerNotFoundError (LookupError)        no such tracker in the run
    ├── RequiredTrackerError (RuntimeError)       a Required tracker did not start
    ├── ArtifactError (OSError)                   a file that cannot be kept
    ├── BackendError (RuntimeError)               what a backend cannot do
    ├── ConfigurationError (ValueError)           a setting of drytrack's own
    │   ├── UnknownBackendError                   no such backend, or option of it
    │   ├── UnknownModeError                      no such mode
    │   └── RankError                             a rank that is no rank
    └── MissingDependencyError (ImportError)      an extra to install

    DrytrackWarning (UserWarning)
    ├── TrackerExceptionWarning                   a handler raised
    ├── DeliveryWarning                           late, dropped or left behind
    ├── RecordWarning                             record or journal incomplete
    └── RunWarning                                fork, rank, life cycle
"""

from __future__ import annotations

__all__ = [
    "AccessOutsideScopeError",
    "ArtifactError",
    "BackendError",
    "BusBusyError",
    "ConfigurationError",
    "DeliveryWarning",
    "DrytrackError",
    "DrytrackWarning",
    "EventDefinitionError",
    "EventValueError",
    "HandlerError",
    "InvalidNameError",
    "JournalError",
    "MetricValueError",
    "MissingDependencyError",
    "NestedRunError",
    "RankError",
    "RecordError",
    "RecordWarning",
    "RegistrationError",
    "RequiredTrackerError",
    "RunExistsError",
    "RunHeldError",
    "RunNotFoundError",
    "RunStateError",
    "RunWarning",
    "SchemaError",
    "StorageError",
    "TrackerExceptionWarning",
    "TrackerNameError",
    "TrackerNotFoundError",
    "UnknownBackendError",
    "UnknownModeError",
]


class DrytrackError(Exception):
    """Base of all errors that drytrack raises."""


class AccessOutsideScopeError(DrytrackError, RuntimeError):
    """The current run was asked for where there is none, or no single one."""


class RunStateError(DrytrackError, RuntimeError):
    """A run was used before its start, after its end, or started twice."""


class NestedRunError(RunStateError):
    """A run was started inside another one without naming it as parent."""


class BusBusyError(RunStateError):
    """An event waited in vain for a handler of another thread to finish."""


class RunExistsError(DrytrackError, FileExistsError):
    """A new run was given the id of one that exists."""


class RunHeldError(DrytrackError, RuntimeError):
    """A run was resumed while a living process holds it."""


class RunNotFoundError(DrytrackError, LookupError):
    """There is no run to resume or to read."""


class RecordError(DrytrackError, ValueError):
    """A run record is damaged or was written by a newer version."""


class StorageError(DrytrackError, OSError):
    """A folder of the run cannot be created or written."""


class JournalError(DrytrackError, ValueError):
    """A journal cannot be read as a whole."""


class SchemaError(DrytrackError, ValueError):
    """A database was made by something else, or by another version."""


class EventDefinitionError(DrytrackError, TypeError):
    """An event class would publish too early, or never."""


class HandlerError(DrytrackError, TypeError):
    """A handler was registered for something that is no event class."""


class EventValueError(DrytrackError, ValueError):
    """A field of an event was refused before anyone had seen the event."""


class MetricValueError(EventValueError):
    """A metric is not a number."""


class InvalidNameError(EventValueError):
    """A name holds what no file, table or service could give back."""


class RegistrationError(DrytrackError, ValueError):
    """A model or an actor is registered twice, in another run, or not at all."""


class TrackerNameError(DrytrackError, ValueError):
    """A tracker's name is taken, or needed to tell two instances apart."""


class TrackerNotFoundError(DrytrackError, LookupError):
    """No tracker of that class or name takes part."""


class RequiredTrackerError(DrytrackError, RuntimeError):
    """A tracker wrapped in ``Required`` failed when the run started."""


class ArtifactError(DrytrackError, OSError):
    """A file or model to log does not exist, is being written, or has no format."""


class BackendError(DrytrackError, RuntimeError):
    """A backend was asked for what it cannot do, or cannot do now."""


class ConfigurationError(DrytrackError, ValueError):
    """A setting of drytrack's own (argument or environment) is wrong."""


class UnknownBackendError(ConfigurationError):
    """There is no backend of that name, or none that takes that option."""


class UnknownModeError(ConfigurationError):
    """An initialisation mode that does not exist."""


class RankError(ConfigurationError):
    """A rank that is no integer, or negative."""


class MissingDependencyError(DrytrackError, ImportError):
    """A tracker needs a package that is not installed."""


class DrytrackWarning(UserWarning):
    """Base of all warnings that drytrack raises."""


class TrackerExceptionWarning(DrytrackWarning):
    """A tracker's handler raised; the run went on without it."""


class DeliveryWarning(DrytrackWarning):
    """Events were dropped, or had not been delivered when the run ended."""


class RecordWarning(DrytrackWarning):
    """The record or the journal of a run is incomplete, and from where on."""


class RunWarning(DrytrackWarning):
    """A run is used in a way that tracks nothing, or not what one expects."""
