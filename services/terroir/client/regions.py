"""Regions and saved recipes from a program."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import grpc

from terroir._proto.registry.v1 import recipe_pb2, region_pb2_grpc, registry_pb2, registry_pb2_grpc
from terroir._proto.registry.v1 import region_pb2 as pb
from terroir.client.calls import UNARY_SECONDS, new_request_id, typed_errors

_PAGE: Final = 200


class Regions:
    """Calls of RegionService."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = region_pb2_grpc.RegionServiceStub(channel)

    def get(self, name: str) -> pb.Region:
        """One region, by `regions/{code}`."""
        with typed_errors():
            return self._stub.GetRegion(pb.GetRegionRequest(name=name), timeout=UNARY_SECONDS)

    def list(self) -> Iterator[pb.Region]:
        """All regions, page by page."""
        token = ""
        while True:
            with typed_errors():
                page = self._stub.ListRegions(
                    pb.ListRegionsRequest(page_size=_PAGE, page_token=token), timeout=UNARY_SECONDS
                )
            yield from page.regions
            if not (token := page.next_page_token):
                return

    def put(self, region: pb.Region, request_id: str | None = None) -> pb.Region:
        """Create or replace a region, once for one `request_id`; its `etag` as last read refuses a lost update."""
        request = pb.PutRegionRequest(region=region, request_id=request_id or new_request_id())
        with typed_errors():
            return self._stub.PutRegion(request, timeout=UNARY_SECONDS)

    def delete(self, name: str, *, etag: str = "") -> None:
        """Remove a region; its code then lies where its spelling says."""
        request = pb.DeleteRegionRequest(name=name, etag=etag, request_id=new_request_id())
        with typed_errors():
            self._stub.DeleteRegion(request, timeout=UNARY_SECONDS)

    def resolve(self, name: str, *, date: str = "", campaign: str = "") -> pb.ResolveRegionResponse:
        """The recipe that a region gets on a day (`YYYY-MM-DD`; empty: today, UTC), and the chain that was tried."""
        request = pb.ResolveRegionRequest(name=name, date=date, campaign=campaign)
        with typed_errors():
            return self._stub.ResolveRegion(request, timeout=UNARY_SECONDS)


class Recipes:
    """Calls of RegistryService about saved recipes."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = registry_pb2_grpc.RegistryServiceStub(channel)

    def get(self, name: str) -> recipe_pb2.Recipe:
        """One saved recipe, by `recipes/{id}`."""
        with typed_errors():
            return self._stub.GetRecipe(registry_pb2.GetRecipeRequest(name=name), timeout=UNARY_SECONDS)

    def list(self) -> Iterator[recipe_pb2.Recipe]:
        """All saved recipes, page by page."""
        token = ""
        while True:
            with typed_errors():
                page = self._stub.ListRecipes(
                    registry_pb2.ListRecipesRequest(page_size=_PAGE, page_token=token), timeout=UNARY_SECONDS
                )
            yield from page.recipes
            if not (token := page.next_page_token):
                return

    def put(self, recipe: recipe_pb2.Recipe) -> recipe_pb2.Recipe:
        """Create or replace a saved recipe; its `etag` as last read refuses a lost update."""
        request = registry_pb2.PutRecipeRequest(recipe=recipe, request_id=new_request_id())
        with typed_errors():
            return self._stub.PutRecipe(request, timeout=UNARY_SECONDS)

    def delete(self, name: str, *, etag: str = "") -> None:
        """Remove a saved recipe that no region names."""
        request = registry_pb2.DeleteRecipeRequest(name=name, etag=etag, request_id=new_request_id())
        with typed_errors():
            self._stub.DeleteRecipe(request, timeout=UNARY_SECONDS)
