"""Every error a user can cause, under one base class.

    SmesimError
    ├── WorkloadError   a model configuration, a phase or a dtype
    ├── ChipError       a chip file or a preset
    ├── PlanError       a plan, or a plan that does not fit its chip
    ├── ProgramError    a program that breaks its own rules
    ├── TraceError      a trace, or two traces that do not belong together
    ├── DeviceError     this machine: missing kernels, memory, workers
    ├── SweepError      a sweep file, a point of a sweep, or a folder of results
    └── ScenarioError   a scenario's file, or its script

A message says what was given, where (file, key, line), and what would be accepted. The command line prints it
on one line and exits with code 2; anything else that escapes is a defect of smesim.
"""


class SmesimError(Exception):
    """Base class of all errors that smesim raises on purpose."""


class WorkloadError(SmesimError):
    """A model configuration, phase, dtype or operator graph is wrong."""


class ChipError(SmesimError):
    """A chip file, preset or one of its numbers is wrong."""


class PlanError(SmesimError):
    """A plan is malformed, or does not fit the model or the chip."""


class ProgramError(SmesimError):
    """A program breaks a rule that both executors rely on."""


class TraceError(SmesimError):
    """A trace is malformed, or two traces cannot be compared."""


class DeviceError(SmesimError):
    """This machine cannot run what was asked of it."""


class SweepError(SmesimError):
    """A sweep file, one of its points, or a folder of its results is wrong."""


class ScenarioError(SmesimError):
    """A scenario's file or its script is wrong, or there is no such scenario."""
