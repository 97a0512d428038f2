"""Errors that a user can cause, each of one sentence that names the file and the remedy."""


class UserError(ValueError):
    """The base of all errors that a user can cause; `dfc` and the programs print its sentence."""


class FaceModelError(UserError):
    """A face-model file that is missing, broken or of another layout."""


class WeightsError(UserError):
    """A weight file is missing, damaged or of another network; the message says which and how."""


class ExportError(UserError):
    """A result cannot be written; the message is one sentence that names the place."""


class PhotoError(UserError):
    """A photograph cannot be used; the message is one sentence that names the file."""


class VideoError(UserError):
    """A video cannot be read or written; the message is one sentence that names it."""


class DatasetError(UserError):
    """A dataset cannot be read; the message is one sentence that names the file."""


class ConfigError(UserError):
    """Settings ask for something that does not exist or does not fit together; the message names
    the field as ``config.<name>``."""


class OptionError(UserError):
    """An option has no such value; the message is one sentence with those it has."""


class EvaluationError(UserError):
    """Predictions or scores cannot be read, or do not fit the faces or each other; the message
    names the file."""
