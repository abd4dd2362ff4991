"""What a feed does: covers are prepared ahead, and a page takes the best that is there, whatever happens.

    terroir up                                        # in another terminal
    python examples/covers_for_a_feed.py CN-ZJ covers # region, and a folder for the pictures

Without a style for the region yet, the base's own look answers; with no server at all, the feed's own picture does.
"""

from __future__ import annotations

import sys
from pathlib import Path

from terroir.client import Client, Rung

POSTS = {
    "post-1": "a red teapot by a river at sunset",
    "post-2": "a fishing boat under a bridge",
    "post-3": "a market street in the rain",
}
OWN_PICTURE = "/static/plain.webp"


def prepare(terroir: Client, regions: list[str]) -> None:
    """Some hours before the posts are shown, or when they are written; the empty region is the base's own look."""
    for seen in terroir.covers.watch(terroir.covers.prepare(POSTS, [*regions, ""], variants=2).name):
        print(f"{seen.drawn + seen.kept + seen.failed} of {seen.total} sets", file=sys.stderr)
    for failure in seen.failures:
        print(f"{failure.content} in {failure.region}: {failure.message}", file=sys.stderr)


def page(terroir: Client, region: str, reader: str) -> list[tuple[str, str, bytes]]:
    """Content, rung and file of each post for one reader: at once, and never an error."""
    covers = terroir.covers.get(list(POSTS), region, sticky_key=reader, with_data=True, default=OWN_PICTURE)
    return [(cover.content, cover.rung, cover.data) for cover in covers]


def main(region: str, folder: str) -> None:
    """Prepare, then show a page."""
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    with Client() as terroir:
        prepare(terroir, [region] if region else [])
        for content, rung, data in page(terroir, region, reader="ana"):
            shown = OWN_PICTURE
            if rung != Rung.DEFAULT:
                shown = str(out / f"{content}.webp")
                Path(shown).write_bytes(data)
            print(f"{content}\t{rung}\t{shown}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
