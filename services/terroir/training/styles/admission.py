"""Accepting a registration: what can be known to fail is refused before it begins."""

from __future__ import annotations

import uuid
from dataclasses import asdict, dataclass, replace
from typing import Final

from terroir.common.errors import InvalidArgument, NotFound
from terroir.common.principal import Principal
from terroir.common.tracing import current_traceparent
from terroir.common.validation import did_you_mean, ensure_identifier, ensure_name, ensure_text
from terroir.training.config.parser import dump_config
from terroir.training.errors import NothingToTrain, RightsNotAttested
from terroir.training.jobs.submissions import Submissions
from terroir.training.styles.configuration import style_config
from terroir.training.styles.errors import RegionUnknown, StyleExists
from terroir.training.styles.model import Registration, Wish
from terroir.training.styles.ports import DatasetHouse, ImportSources, StyleShelf
from terroir.training.styles.registrations import Registrations
from terroir.training.styles.steps import ensure_same

_SHOWN_REGIONS: Final = 8


@dataclass(frozen=True)
class StyleRequest:
    """A request to register a style, as it came."""

    style: str
    region: str
    """`regions/{code}`."""
    config_yaml: str
    dataset: str = ""
    """`datasets/{id}`; this or an import source."""
    import_source: str = ""
    """`importSources/{id}`."""
    rights_statement: str = ""
    trigger_word: str = ""
    license: str = ""
    assign_region: bool = False
    new_version: bool = False


@dataclass(frozen=True)
class Admission:
    """Checks requests, and begins registrations."""

    registrations: Registrations
    submissions: Submissions
    datasets: DatasetHouse
    shelf: StyleShelf
    sources: ImportSources

    def register(self, request: StyleRequest, request_id: str, principal: Principal) -> Registration:
        """Begin, once for one `request_id`.

        Raises ConfigInvalid, UnjudgedRefused, InvalidArgument (names, texts), RegionUnknown, NotFound (dataset, base,
        adapter to go on from), ImportSourceUnknown, StyleExists, StyleBusy, DatasetDiffers, RightsNotAttested,
        NothingToTrain, BaseUnreadable, PermissionDenied, OperationConflict.
        """
        style = ensure_identifier(request.style, "style_id")
        operation = ensure_text(request_id, "request_id", 128) or str(uuid.uuid4())
        asked = asdict(request) | {"creator": principal.name}
        if (earlier := self.registrations.earlier(style, operation, asked)) is not None:
            return earlier
        return self.registrations.begin(self.checked(request, principal), operation, asked)

    def checked(self, request: StyleRequest, principal: Principal, *, pictures_later: bool = False) -> Wish:
        """The wish in exact names; raises as `register` does. With `pictures_later` they need not be there yet."""
        style = ensure_identifier(request.style, "style_id")
        code = ensure_name(request.region, "region", "regions/{code}")["code"]
        config = self.submissions.resolved(style_config(request.config_yaml, style), f"adapters/{style}")
        self.submissions.ensure_allowed(config, principal)
        region = self._region(code)
        self._ensure_new(style, principal, further=request.new_version)
        wish = Wish(
            style=style,
            region=region,
            dataset=style,
            config_yaml=dump_config(config),
            creator=principal.name,
            assign_region=request.assign_region,
            traceparent=current_traceparent(),
        )
        return self._with_pictures(wish, request, pictures_later=pictures_later)

    def _region(self, code: str) -> str:
        if (found := self.shelf.region(code)) is not None:
            return found
        known = sorted(self.shelf.regions())
        hint = did_you_mean(code, known)
        if not hint:
            shown = ", ".join(known[:_SHOWN_REGIONS]) + (", …" if len(known) > _SHOWN_REGIONS else "")
            hint = f"; there are {shown}" if known else "; there are none yet"
        raise RegionUnknown(
            f"regions/{code} is not in the region tree{hint}; put it there first: terroir region put {code}",
            field="region",
            metadata={"region": code},
        )

    def _ensure_new(self, style: str, principal: Principal, *, further: bool) -> None:
        self.registrations.ensure_free(style)
        where = self.shelf.region_of_adapter(style)
        if where is None:
            return
        if not further:
            raise StyleExists(
                f"adapters/{style} exists already; choose another name, or ask for a further version of it "
                "(new_version; terroir style register --new-version)",
                metadata={"resource": f"adapters/{style}"},
            )
        principal.require_region(where, f"make a version of adapters/{style}")

    def _with_pictures(self, wish: Wish, request: StyleRequest, *, pictures_later: bool) -> Wish:
        if request.import_source:
            return self._of_source(wish, request)
        if not request.dataset:
            if pictures_later:
                return wish
            raise InvalidArgument(
                "no pictures: name a dataset (datasets/ID) or an import source (importSources/ID)",
                reason="PICTURES_MISSING",
                field="dataset",
            )
        told = [name for name in ("rights_statement", "trigger_word", "license") if getattr(request, name)]
        if told:
            raise InvalidArgument(
                f"{told[0]} goes with an import source; a dataset has its own since it was made",
                reason="FIELD_OF_IMPORT_SOURCE",
                field=told[0],
            )
        dataset = ensure_name(request.dataset, "dataset", "datasets/{dataset}")["dataset"]
        if (facts := self.datasets.find(dataset)) is None:
            if pictures_later:
                return replace(wish, dataset=dataset)
            raise NotFound(
                f"datasets/{dataset} does not exist; make it and import pictures first, or let `terroir style register "
                "FOLDER` do both",
                reason="DATASET_NOT_FOUND",
                field="dataset",
            )
        ensure_same(facts.region, wish.region, facts.rights_statement, "", dataset)
        if not facts.rights_statement.strip():
            raise RightsNotAttested(
                f"datasets/{dataset} has no rights statement, and none can be added; say that you hold the rights to "
                "train on the pictures when you make a dataset (terroir style register --rights), and use that one",
                metadata={"dataset": f"datasets/{dataset}"},
            )
        if not facts.pictures and not pictures_later:
            raise NothingToTrain(
                f"datasets/{dataset} has no picture; import some (terroir dataset import {dataset} FOLDER)"
            )
        return replace(wish, dataset=dataset)

    def _of_source(self, wish: Wish, request: StyleRequest) -> Wish:
        source = ensure_name(request.import_source, "import_source", "importSources/{source}")["source"]
        self.sources.ensure(source)
        rights = ensure_text(request.rights_statement, "rights_statement", 2000)
        if not rights.strip():
            raise RightsNotAttested(
                "no rights statement: say in rights_statement that you hold the rights to train on the pictures",
                field="rights_statement",
            )
        if (facts := self.datasets.find(wish.dataset)) is not None:
            ensure_same(facts.region, wish.region, facts.rights_statement, rights, wish.dataset)
        return replace(
            wish,
            import_source=source,
            rights_statement=rights,
            trigger_word=ensure_text(request.trigger_word, "trigger_word", 64),
            license=ensure_text(request.license, "license", 200),
        )
