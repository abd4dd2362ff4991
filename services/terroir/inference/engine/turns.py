"""Whose turn it is: shapes can't share a call, so they take turns by the device time that they have had."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

Member = TypeVar("Member")


class Turns(Generic[Member]):
    """Members by shape. Each shape that has members gets the same share of device time (start-time fair queueing).

    So a call of small pictures comes as often as it is cheaper than one of large pictures, and neither starves. A shape
    that was away has no credit from that time. Within a shape, whoever stepped longest ago goes first.
    """

    def __init__(self) -> None:
        self._members: dict[object, list[Member]] = {}
        self._seconds: dict[object, float] = {}

    def __len__(self) -> int:
        return sum(len(members) for members in self._members.values())

    def __iter__(self) -> Iterator[Member]:
        for members in list(self._members.values()):
            yield from list(members)

    def add(self, shape: object, member: Member) -> None:
        """Let a member join its shape, last."""
        if shape not in self._members:
            self._members[shape] = []
            self._seconds[shape] = min(self._seconds.values(), default=0.0)
        self._members[shape].append(member)

    def remove(self, shape: object, member: Member) -> None:
        """Let a member leave; ValueError if it is not there."""
        self._members[shape].remove(member)
        if not self._members[shape]:
            del self._members[shape], self._seconds[shape]

    def next(self) -> tuple[object, list[Member]] | None:
        """The shape that had the least device time, and its members in their order; None if there is nobody."""
        if not self._members:
            return None
        shape = min(self._seconds, key=self._seconds.__getitem__)
        return shape, list(self._members[shape])

    def spent(self, shape: object, seconds: float, members: list[Member]) -> None:
        """Charge a shape for a call and let the members that went step back behind those that did not."""
        if shape not in self._members:
            return
        self._seconds[shape] += seconds
        went = set(map(id, members))
        present = self._members[shape]
        if len(went) < len(present):  # else all went, and their order need not change: banks are kept by it
            present.sort(key=lambda member: id(member) in went)
