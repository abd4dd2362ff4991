"""What a recommender does: a cover in the style of the reader's region, or the base style where there is none.

python examples/recommender.py CN-ZJ "a red teapot by a river at sunset" cover.png
"""

from __future__ import annotations

import sys

from terroir.client import Client


def cover(region: str, content: str, path: str) -> None:
    """Draw `content` in the style of `region` and save it."""
    with Client() as terroir:
        result = terroir.generate(content, region=region, seeds=[7], timeout=20.0)
        result.pictures[0].save(path)


if __name__ == "__main__":
    cover(*sys.argv[1:4])
