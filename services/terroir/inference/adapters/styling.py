"""From what a request asks for to the adapters that it wears: names, tags and region become one composition."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

from terroir.common.tracing import span
from terroir.inference.adapters.device_tier import DeviceTier
from terroir.inference.adapters.directory import Directory
from terroir.inference.adapters.popularity import Popularity
from terroir.inference.adapters.residency import LoadedAdapter, Residency
from terroir.inference.adapters.sources import VersionInfo
from terroir.inference.adapters.tier_metrics import TierMetrics
from terroir.inference.adapters.tiers import Tier
from terroir.inference.errors import AdapterBaseMismatch, AdapterWithdrawn, TooManyAdapters
from terroir.inference.request.prompt import Tag
from terroir.inference.request.wish import Wish
from terroir.lora.adapter import Adapter
from terroir.lora.composition import Composition
from terroir.lora.key_table import KeyTable

MAX_ADAPTERS: Final = 8


@dataclass(frozen=True)
class Base:
    """The base that is loaded."""

    name: str
    digest: str
    key_table: KeyTable


@dataclass(frozen=True)
class Style:
    """What a request wears; its adapters are held in memory while this is open."""

    prompt: str
    """With the region's prefix."""
    negative_prompt: str
    """The request's, or else the region's."""
    composition: Composition
    loaded: Mapping[str, LoadedAdapter]
    """By digest."""
    region_chain: tuple[str, ...]
    notices: tuple[str, ...] = ()
    """What names were not looked up as they should be."""

    @property
    def adapters(self) -> Mapping[str, Adapter]:
        """By digest."""
        return {digest: loaded.adapter for digest, loaded in self.loaded.items()}

    @property
    def warnings(self) -> list[str]:
        """What the adapters do otherwise than asked."""
        return [*self.notices, *(warning for loaded in self.loaded.values() for warning in self._warnings(loaded))]

    def matched_layers(self, digest: str) -> int:
        """Layers that an adapter changes, with the weights asked for."""
        part = next(part for part in self.composition.parts if part.digest == digest)
        return sum(1 for layer in self.loaded[digest].adapter.modules if part.weight_on(layer))

    def _warnings(self, loaded: LoadedAdapter) -> list[str]:
        found = []
        if loaded.ignored_keys:
            found.append(
                f"{loaded.version}: {loaded.ignored_keys} keys of its file name no layer of the base and were left out"
            )
        if self.matched_layers(loaded.digest) == 0:
            found.append(f"{loaded.version}: it changes nothing, because its weight is 0 on all layers that it covers")
        return found


class Stylist:
    """Resolves names at each request, so that what was published a moment ago is used."""

    def __init__(
        self,
        directory: Directory,
        residency: Residency,
        device: DeviceTier,
        popularity: Popularity[str],
        metrics: TierMetrics,
    ) -> None:
        self._directory = directory
        self._residency = residency
        self._device = device
        self._popularity = popularity
        self._metrics = metrics

    @asynccontextmanager
    async def dress(self, wish: Wish, base: Base) -> AsyncIterator[Style]:
        """Resolve and hold the request's adapters.

        Raises TooManyAdapters, before anything is looked up or loaded, NotFound, RegistryUnreachable,
        AdapterBaseMismatch, AdapterWithdrawn and what loading raises.
        """
        asked, prompt, negative_prompt = list(wish.adapters), wish.prompt, wish.negative_prompt
        chain: tuple[str, ...] = ()
        notices: list[str] = []
        _ensure_few(asked)
        if wish.region:
            with span("find recipe", region=wish.region):
                known = await self._directory.recipe(wish.region)
            recipe = known.value
            self._popularity.count(wish.region)
            notices += [known.warning] if known.warning else []
            asked += [Tag(name, weight, weight) for name, weight in recipe.adapters]
            prompt = f"{recipe.prompt_prefix} {prompt}".strip()
            negative_prompt = negative_prompt or recipe.negative_prompt
            chain = recipe.tried
            _ensure_few(asked)
        versions, warnings = await self._resolve([tag.adapter for tag in asked], base)
        composition = Composition.of(
            (version.file_digest, tag.weight, tag.text_encoder_weight)
            for version, tag in zip(versions, asked, strict=True)
        )
        by_digest = {version.file_digest: version for version in versions}
        async with self._held([by_digest[digest] for digest in composition.digests], base) as loaded:
            yield Style(prompt, negative_prompt, composition, loaded, chain, tuple(notices + warnings))

    async def resolve(self, names: Sequence[str], base: Base) -> list[VersionInfo]:
        """Versions of names, all of the loaded base; raises as `dress` does."""
        versions, _ = await self._resolve(names, base)
        return versions

    async def _resolve(self, names: Sequence[str], base: Base) -> tuple[list[VersionInfo], list[str]]:
        with span("find adapters", adapters=len(names)):
            found = await asyncio.gather(*(self._directory.version(name) for name in dict.fromkeys(names)))
        by_name = dict(zip(dict.fromkeys(names), found, strict=True))
        for known in found:
            _ensure_same_base(known.value, base)
            _ensure_not_withdrawn(known.value)
        return [by_name[name].value for name in names], [known.warning for known in found if known.warning]

    @asynccontextmanager
    async def _held(self, versions: Sequence[VersionInfo], base: Base) -> AsyncIterator[dict[str, LoadedAdapter]]:
        found: dict[str, Tier] = {}
        for version in versions:  # all loads begin at once, not one after the other
            if self._residency.begin(version, base.key_table):
                found[version.file_digest] = Tier.DEVICE if version.file_digest in self._device else Tier.HOST
        async with AsyncExitStack() as held:
            loaded = {}
            for version in versions:
                with span("hold adapter", adapter=version.name, digest=version.file_digest) as holding:
                    adapter = await held.enter_async_context(self._residency.hold(version, base.key_table))
                    adapter = replace(adapter, found=found.get(adapter.digest, adapter.found))
                    holding.set(tier=adapter.found.value, size_bytes=version.size_bytes)
                self._metrics.hit(adapter.found)
                self._metrics.worn(version.name)
                loaded[adapter.digest] = adapter
            yield loaded


def _ensure_few(asked: Sequence[Tag]) -> None:
    if len(asked) > MAX_ADAPTERS:
        raise TooManyAdapters(
            f"{len(asked)} adapters with those of prompt and region, at most {MAX_ADAPTERS} are allowed; drop some",
            field="adapters",
        )


def _ensure_same_base(version: VersionInfo, base: Base) -> None:
    if version.base_digest != base.digest:
        raise AdapterBaseMismatch(
            f"{version.name} was trained on {version.base} with digest {version.base_digest[:12]}, this server draws "
            f"with {base.name} ({base.digest[:12]}); use an adapter for this base, or a server with that base",
            metadata={"version": version.name, "expected": base.digest, "found": version.base_digest},
        )


def _ensure_not_withdrawn(version: VersionInfo) -> None:
    if version.withdrawn:
        raise AdapterWithdrawn(
            f"{version.name} was withdrawn: {version.withdrawn}; use another version",
            metadata={"version": version.name},
        )
