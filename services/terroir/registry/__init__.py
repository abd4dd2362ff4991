"""Registry service: base models, adapters as immutable versions, aliases, and the regions that use them.

The bucket is the only state (`terroir.store`):

* `bases/<id>/<n>.json`: one document a base; the shapes of its tensors are a blob.
* `adapters/<id>/<n>.json`: one document a version, written after the blobs it names; the create allocates the number.
* `aliases/<id>/<n>.json`: every document is the adapter's whole alias table after one move: the sequence is the audit
  trail.
* `regions/<n>.json`: one sequence for the whole tree, one changed region a document, so that a cycle is refused even
  when two replicas write at once.
* `journal/<n>.json`: hints of what is about to be written, which every replica follows (`terroir.store.journal`).
* `index/snapshots/<n>.json` and the blobs that they name: what a replica knew at one entry of the journal.
* `compat/<algorithm>/<tensor digest>--<tensor digest>.json`: what was measured of a pair of adapters; a cache.

Reads come from an index of all documents in memory (`index.py`), which `index_following.py` keeps level with the
journal.

Domain modules know no gRPC and no torch; `api.py` and `messages.py` translate.
"""

from __future__ import annotations

import os

# Before anything here imports numpy, which counts cores once: its threads for rank-sized products only spin for each
# other, and where the process may use fewer cores than the machine has, a comparison took 40 seconds instead of 0.1.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
