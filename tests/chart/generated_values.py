"""Value sets that nobody wrote: drawn from values.schema.json, and made to agree with themselves."""

from __future__ import annotations

import copy
from typing import Any, Final

from hypothesis import strategies as st

from tests.chart.rendering import defaults, schema
from tests.chart.scenarios import PEM

Leaf = tuple[tuple[str, ...], dict[str, Any]]
_SCHEMA: Final = schema()
_MOST_CHANGES: Final = 14
_LONGEST: Final = 60
_TEXT: Final = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FFF), max_size=12)


def resolved(part: dict[str, Any]) -> dict[str, Any]:
    """With what it refers to; its own words go before."""
    if "$ref" not in part:
        return part
    target = resolved(_SCHEMA["$defs"][part["$ref"].rpartition("/")[2]])
    return {**target, **{key: value for key, value in part.items() if key != "$ref"}}


def leaves(part: dict[str, Any], path: tuple[str, ...] = ()) -> list[Leaf]:
    """Every value that can be set by itself; maps, lists and resources are one."""
    part = resolved(part)
    if part.get("type") == "object" and "properties" in part and path[-1:] not in (("resources",), ("settings",)):
        return [leaf for name, one in part["properties"].items() for leaf in leaves(one, (*path, name))]
    return [(path, part)]


def of_schema(part: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Any value that a part of the schema allows."""
    part = resolved(part)
    if "enum" in part:
        return st.sampled_from(part["enum"])
    if "anyOf" in part:
        return st.one_of([of_schema(one) for one in part["anyOf"]])
    match part["type"]:
        case "null":
            return st.none()
        case "boolean":
            return st.booleans()
        case "integer":
            return _numbers(part, whole=True)
        case "number":
            return _numbers(part, whole=False)
        case "string":
            return _strings(part)
        case "array":
            items = of_schema(part["items"])
            return st.lists(items, min_size=part.get("minItems", 0), max_size=max(2, part.get("minItems", 0)),
                            unique_by=repr if part.get("uniqueItems") else None)  # fmt: skip
        case _:
            return _objects(part)


def _numbers(part: dict[str, Any], *, whole: bool) -> st.SearchStrategy[Any]:
    low, high = part.get("minimum", part.get("exclusiveMinimum", 0)), part.get("maximum", 2**33)
    if whole:
        return st.integers(low, high)
    low = low + 0.25 if "exclusiveMinimum" in part else low
    return st.one_of(st.integers(int(low) + 1, int(max(high, low + 1))) if high >= low + 1 else st.just(low),
                     st.floats(low, high, allow_nan=False).map(lambda number: round(number, 3)))  # fmt: skip


def _strings(part: dict[str, Any]) -> st.SearchStrategy[str]:
    if part.get("pattern", "").startswith("^-----BEGIN"):
        return st.just(PEM)
    if "pattern" in part:
        # In Python `$` also stands before a line's end, and `[^\s]` is any sign of any script.
        pattern = part["pattern"].replace("$", r"\Z").replace(r"[^\s/]", "[a-z0-9.]").replace(r"[^\s]", "[a-z0-9./]")
        drawn = st.from_regex(pattern, alphabet=st.characters(codec="ascii"))
        return drawn.filter(lambda text: part.get("minLength", 0) <= len(text) < _LONGEST)
    return _TEXT


def _objects(part: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    if "properties" not in part:
        keys = _strings(part["propertyNames"])
        return st.dictionaries(keys, of_schema(part["additionalProperties"]), max_size=2)
    required = set(part.get("required", ()))
    fields = {name: of_schema(one) for name, one in part["properties"].items()}
    return st.fixed_dictionaries(
        {name: one for name, one in fields.items() if name in required},
        optional={name: one for name, one in fields.items() if name not in required},
    )


@st.composite
def any_values(draw: st.DrawFn) -> dict[str, Any]:
    """Some values set to anything that the schema allows."""
    changed = draw(st.lists(st.sampled_from(leaves(_SCHEMA)), max_size=_MOST_CHANGES, unique_by=lambda leaf: leaf[0]))
    made: dict[str, Any] = {}
    for path, part in changed:
        here = made
        for key in path[:-1]:
            here = here.setdefault(key, {})
        here[path[-1]] = draw(of_schema(part))
    return made


@st.composite
def agreeing_values(draw: st.DrawFn) -> dict[str, Any]:
    """The same, with what contradicts itself put right; so each of them must render."""
    values = whole(draw(any_values()))
    put_right(values)
    return values


def whole(values: dict[str, Any]) -> dict[str, Any]:
    """Laid over the defaults."""

    def lay(over: dict[str, Any], under: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
        made = dict(under)
        for key, value in over.items():
            deep = isinstance(value, dict) and isinstance(under.get(key), dict)
            made[key] = lay(value, under[key], (*path, key)) if deep else value
        return made

    return lay(values, copy.deepcopy(defaults()), ())


def put_right(values: dict[str, Any]) -> None:
    """Answer to every message of templates/_conflicts.tpl."""
    _store(values)
    _tls(values)
    _model(values)
    _inference(values["inference"])
    _training(values)
    _tracing(values["tracing"])


def _store(values: dict[str, Any]) -> None:
    store, external = values["store"], values["store"]["external"]
    if store["enabled"]:
        store["external"] = {"endpoint": "", "region": "", "existingSecret": "", "machineRole": False}
        return
    store["existingSecret"] = ""
    external["existingSecret"] = "" if external["machineRole"] else external["existingSecret"] or "s3"
    values["insecure"] = values["insecure"] or external["endpoint"].startswith("http://")


def _tls(values: dict[str, Any]) -> None:
    tls, access, tokens = values["tls"], values["access"], values["serviceAccountTokens"]
    tls["certManager"]["issuerRef"]["name"] = "ca" if tls["source"] == "certManager" else ""
    tls["certManager"].update(duration="720h", renewBefore="240h")
    for name in tls["existingSecrets"]:
        tls["existingSecrets"][name] = f"own-{name}" if tls["source"] == "existingSecrets" else ""
    generated = tls["generated"]
    generated["renewAfterDays"] = min(generated["renewAfterDays"], max(1, generated["days"] - 1))
    generated["days"] = max(2, generated["days"])
    if tls["source"] == "none":
        values["insecure"], access["issuers"], access["grants"], tokens["enabled"] = True, [], [], False
    elif not tls["requireClientCertificate"] and not access["issuers"]:
        tls["requireClientCertificate"] = True
    if tokens["enabled"]:
        tokens["issuer"], tokens["jwks"] = (
            tokens["issuer"] or "https://cluster",
            tokens["jwks"] or "https://cluster/jwks",
        )
        access["issuers"] = [one for one in access["issuers"] if one["issuer"] != tokens["issuer"]]
        tls["requireClientCertificate"] = tls["requireClientCertificate"] or not access["issuers"]
    if any(one["jwks"].startswith("/") for one in (*access["issuers"], tokens)):
        access["jwksConfigMap"] = access["jwksConfigMap"] or "jwks"


def _model(values: dict[str, Any]) -> None:
    model = values["inference"]["model"]
    source, bucket = model["source"], model["bucket"]
    model["pvc"]["claimName"] = (model["pvc"]["claimName"] or "base") if source == "pvc" else ""
    model["image"]["reference"] = (model["image"]["reference"] or "models/sd15:1") if source == "image" else ""
    bucket["url"] = (bucket["url"] or "s3://models/sd15") if source == "bucket" else ""
    if source == "embedded":
        model["id"], model["path"] = "terroir-tiny", ""
    elif model["id"] == "terroir-tiny":
        model["id"] = "sd15"
    if source == "bucket" and bucket["endpoint"]:
        bucket["existingSecret"] = bucket["existingSecret"] or "weights"
        values["insecure"] = values["insecure"] or bucket["endpoint"].startswith("http://")


def _inference(inference: dict[str, Any]) -> None:
    scaling, rollout = inference["autoscaling"], inference["rollout"]
    if scaling["hpa"]["enabled"]:
        scaling["keda"]["enabled"] = False
        scaling["hpa"]["queueDepth"] = scaling["hpa"]["queueDepth"] or 3
    scaling["maxReplicas"] = max(
        scaling["maxReplicas"], scaling["minReplicas"], scaling["keda"]["fallback"]["replicas"]
    )
    if scaling["keda"]["enabled"]:
        inference["startupSeconds"] = min(inference["startupSeconds"], 3000)
        scaling["keda"]["cooldownSeconds"] = max(scaling["keda"]["cooldownSeconds"], inference["startupSeconds"] + 1)
    if str(rollout["maxSurge"]).strip("0%") == "" and str(rollout["maxUnavailable"]).strip("0%") == "":
        rollout["maxUnavailable"] = 1
    if inference["signaturePolicy"] != "off":
        inference["trustedKeys"] = inference["trustedKeys"] or {"a.pem": PEM}


def _training(values: dict[str, Any]) -> None:
    ray, external = values["ray"], values["training"]["externalRay"]
    if ray["enabled"]:
        external.update(dashboardUrl="", existingSecret="")
    elif not external["dashboardUrl"]:
        external["existingSecret"] = ""
        values["training"]["replicas"] = min(values["training"]["replicas"], 1)
    for number, group in enumerate(ray["workerGroups"]):
        group["name"] = f"{group['name'][:10].rstrip('-')}-{number}"
        group["maxReplicas"] = max(group["maxReplicas"], group.get("minReplicas", 0))
    if values["training"]["gpusPerJob"]:
        if ray["enabled"]:
            ray["workerGroups"][0]["gpu"] = {"count": 1, "resourceName": "nvidia.com/gpu"}
        elif not external["dashboardUrl"]:
            values["training"]["gpusPerJob"] = 0


def _tracing(tracing: dict[str, Any]) -> None:
    if not tracing["otlpEndpoint"]:
        tracing["existingSecret"] = ""
