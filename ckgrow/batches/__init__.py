"""Many applies: a manifest in, records out, the work done by a pool here or on a cluster."""

from ckgrow.batches.batching import batch
from ckgrow.batches.display import BatchWatching, Unseen
from ckgrow.batches.document import BatchDocument
from ckgrow.batches.pools import BACKENDS
from ckgrow.batches.records import Record

__all__ = ["BACKENDS", "BatchDocument", "BatchWatching", "Record", "Unseen", "batch"]
