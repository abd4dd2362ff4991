"""Registry service: base models, adapters as immutable versions, aliases, and the regions that use them.

The bucket is the only state (`terroir.store`):

* `bases/<id>/<n>.json`: one document a base; the shapes of its tensors are a blob.
* `adapters/<id>/<n>.json`: one document a version, written after the blobs it names; the create allocates the number.
* `aliases/<id>/<n>.json`: all that moves of an adapter after one change, and that change: the sequence is the audit
  trail (`moving/state.py`).
* `regions/<n>.json`: one sequence for the whole tree and the saved recipes, one change a document, so that a cycle is
  refused even when two replicas write at once.
* `journal/<n>.json`: hints of what is about to be written, which every replica follows (`terroir.store.journal`).
* `index/snapshots/<n>.json` and the blobs that they name: what a replica knew at one entry of the journal.
* `compat/<algorithm>/<tensor digest>--<tensor digest>.json`: what was measured of a pair of adapters; a cache.

Its rooms: `bases/` registers base models, `publishing.py` and `versions.py` make adapters, `moving/` holds aliases,
deprecations and presets, `regions/` the tree and the recipes, `index/` what every replica keeps in memory, searches and
watches. Domain modules know no gRPC and no torch; `api.py` and `messages.py` of each room translate.
"""

from __future__ import annotations

import os

# Before anything here imports numpy, which counts cores once: its threads for rank-sized products only spin for each
# other, and where the process may use fewer cores than the machine has, a comparison took 40 seconds instead of 0.1.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
