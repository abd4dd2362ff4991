"""`terroir adapter lineage`: where a version came from and what came of it, as two trees."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Annotated

import typer
from rich.tree import Tree

from terroir.cli.session import resource, session

_Links = Mapping[str, list[tuple[str, str]]]
"""Name → (relation, name of the next)."""


def lineage(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(help="`jiangnan` (newest), `jiangnan@production` or `jiangnan/versions/3`.", show_default=False),
    ],
    pictures: Annotated[
        bool, typer.Option("--pictures", help="Down to the pictures, which the dataset service is asked for.")
    ] = False,
) -> None:
    """Follow a version back to its data, code and base, and forward to aliases and what was trained from it.

    A version trained from another is followed through that one too. What carries no digest was only told by whoever
    published, not checked here.
    """
    with session(context).client() as client:
        graph = client.lineage(resource("adapters", name), pictures=pictures)
    if session(context).as_json:
        session(context).show(graph)
        return
    digests = {node.name: node.digest for node in graph.nodes}
    start = graph.nodes[0].name
    backwards: _Links = _links((edge.target, edge.relation, edge.source) for edge in graph.edges)
    forwards: _Links = _links((edge.source, edge.relation, edge.target) for edge in graph.edges)
    for title, links in (("comes from", backwards), ("leads to", forwards)):
        tree = Tree(f"{start} {title}")
        _grow(tree, start, links, digests, {start})
        if not links.get(start):
            tree.add("nothing that is known")
        session(context).console.print(tree)


def _links(edges: Iterable[tuple[str, str, str]]) -> _Links:
    links = defaultdict(list)
    for here, relation, there in edges:
        links[here].append((relation, there))
    return links


def _grow(tree: Tree, name: str, links: _Links, digests: Mapping[str, str], drawn: set[str]) -> None:
    """Add what `name` is linked to, each thing with its own links the first time that it is met."""
    for relation, there in links.get(name, []):
        digest = digests.get(there, "")
        shown = there if digest and digest in there else f"{there} {digest[:12]}".rstrip()
        branch = tree.add(f"{relation.replace('_', ' ')}: {shown}")
        if there not in drawn:
            drawn.add(there)
            _grow(branch, there, links, digests, drawn)
