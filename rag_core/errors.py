"""The failure classes of the platform: permanent ones are reported, transient ones are retried.

Every message says what failed, on which document, partition, file or key, what was expected, and what to do.
"""


class RagError(Exception):
    """Base of every error this project raises on purpose."""


class PermanentError(RagError):
    """Another try with the same input cannot help: bad configuration, bad document, refused request."""


class TransientError(RagError):
    """Another try may help: a service is unreachable or overloaded, memory ran out."""


class ConfigError(PermanentError):
    """The configuration is wrong; the message names file, key, value and what was expected."""


class FingerprintMismatchError(PermanentError):
    """Two parts that must come from the same model or schema do not."""


class ImplausibleShrinkError(PermanentError):
    """So much of a source is gone that it is taken for a source that is not there; nothing was deleted."""


class SourceError(TransientError):
    """A source cannot be listed or an object of it cannot be read."""


class ObjectGoneError(SourceError):
    """An object was listed but is no longer there."""


class SourceRefusedError(SourceError, PermanentError):
    """A source refuses for good: no such bucket, no permission. Not retried; whoever asks looks for permanent first."""


class StoreError(TransientError, OSError):
    """The store does not answer, or fails for now; also an OSError, as on local disk."""


class StoreRefusedError(StoreError, PermanentError):
    """The store refuses for good: no such bucket, no permission. Not retried; ask for PermanentError first."""
