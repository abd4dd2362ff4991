"""The part of RegistryService that keeps saved recipes."""

from __future__ import annotations

import asyncio
from typing import Any, TypeAlias

import grpc

from terroir._proto.registry.v1 import recipe_pb2, registry_pb2_grpc
from terroir._proto.registry.v1 import registry_pb2 as pb
from terroir.common.principal import PrincipalSource
from terroir.registry.names import parse_recipe
from terroir.registry.operations import operation_id
from terroir.registry.paging import PageQuery
from terroir.registry.regions.messages import recipe_message, style_recipe
from terroir.registry.regions.saved_recipes import SavedRecipes

_Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


class RecipeCalls(registry_pb2_grpc.RegistryServiceServicer):
    """Calls about saved recipes; a base of the class that serves all of RegistryService, which sets these."""

    _recipes: SavedRecipes
    _principals: PrincipalSource

    async def GetRecipe(self, request: pb.GetRecipeRequest, _context: _Context) -> recipe_pb2.Recipe:
        """Return one saved recipe."""
        return recipe_message(await asyncio.to_thread(self._recipes.get, parse_recipe(request.name)))

    async def ListRecipes(self, request: pb.ListRecipesRequest, _context: _Context) -> pb.ListRecipesResponse:
        """List saved recipes by id."""
        found = await asyncio.to_thread(self._recipes.page, PageQuery(request.page_size, request.page_token))
        return pb.ListRecipesResponse(
            recipes=[recipe_message(recipe) for recipe in found.items], next_page_token=found.next_token
        )

    async def PutRecipe(self, request: pb.PutRecipeRequest, context: _Context) -> recipe_pb2.Recipe:
        """Create or replace a saved recipe."""
        wanted, op_id = request.recipe, operation_id(request.request_id)
        recipe = parse_recipe(wanted.name, "recipe.name")
        stored = await asyncio.to_thread(
            self._recipes.put,
            recipe, wanted.display_name, style_recipe(wanted.style), self._principals.of(context),
            op_id=op_id, etag=wanted.etag,
        )  # fmt: skip
        return recipe_message(stored)

    async def DeleteRecipe(self, request: pb.DeleteRecipeRequest, context: _Context) -> pb.DeleteRecipeResponse:
        """Remove a saved recipe."""
        recipe, op_id = parse_recipe(request.name), operation_id(request.request_id)
        principal = self._principals.of(context)
        await asyncio.to_thread(self._recipes.delete, recipe, principal, op_id=op_id, etag=request.etag)
        return pb.DeleteRecipeResponse()
