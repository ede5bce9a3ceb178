"""What can go wrong, one small class per kind of failure.

Every message is one sentence for the person at the terminal: what happened, where (file, line,
layer, tensor), and what to do. ``exit_code`` is what the command line returns for the kind.
"""


class CkgrowError(Exception):
    """The base of everything ckgrow raises on purpose."""

    exit_code = 5


class SpecError(CkgrowError):
    """The content of a spec, a manifest or an option is wrong."""

    exit_code = 2


class CheckpointError(CkgrowError):
    """The content of a checkpoint, graph or array is unreadable, unsupported or unexplained."""

    exit_code = 3


class FileError(CkgrowError):
    """Input or output failed: missing, no permission, disk full, exists, in use by another run."""

    exit_code = 4


class UnrecognisedError(CheckpointError):
    """The tensors of a checkpoint, by their names and shapes, are of no known architecture."""


class GraphError(CheckpointError):
    """A graph does not fit together: a value, a shape or a tensor is not what a node needs."""


class Terminated(BaseException):
    """SIGTERM arrived. Not an Exception, so that no handler swallows it on its way out."""

    exit_code = 143
