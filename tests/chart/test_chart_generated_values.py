"""Value sets drawn from the schema: each renders documents that Kubernetes takes, or is refused in words.

40 in `make test`, as many as TERROIR_CHART_EXAMPLES says in a soak.
"""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.chart.generated_values import agreeing_values, any_values, leaves, of_schema
from tests.chart.manifests import SERVICES, pod_templates
from tests.chart.rendering import NEWEST, Chart, Refused, defaults, schema
from tests.chart.soundness import faults
from tests.chart.test_chart_bad_input import CONFLICT
from tests.chart.test_chart_pod_security import violations
from tests.chart.validation import problems

EXAMPLES = int(os.environ.get("TERROIR_CHART_EXAMPLES", "40"))
COMMON: dict[str, Any] = {
    "deadline": None,  # each calls Helm
    "database": None,
    # The same in each `make test`; a soak looks elsewhere.
    "derandomize": "TERROIR_CHART_EXAMPLES" not in os.environ,
    # Much is drawn for each, by patterns; and the chart is the same for all of them.
    "suppress_health_check": list(HealthCheck),
    # Without shrinking: the message names what is wrong, and each step would be a call of Helm.
    "phases": [Phase.generate],
}  # fmt: skip


def check(documents: tuple[dict[str, Any], ...], values: dict[str, Any]) -> None:
    found = [one for document in documents for one in problems(document, NEWEST)] + faults(documents)
    assigned = values.get("podSecurity", {})
    strict = assigned.get("assignUser", True) and assigned.get("seccompRuntimeDefault", True)
    if strict:
        for pods in pod_templates(documents):
            found += [f"{pods.where}: {one}" for one in violations(pods)]
    assert found == [], json.dumps(values)
    assert {pods.component for pods in pod_templates(documents)} >= set(SERVICES)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_value_set_that_agrees_with_itself_renders(chart: Chart) -> None:
    rendered = 0

    @settings(max_examples=EXAMPLES, **COMMON)
    @given(values=agreeing_values())
    def run(values: dict[str, Any]) -> None:
        nonlocal rendered
        try:
            documents = chart.render(values)
        except Refused as refused:
            raise AssertionError(f"{refused}\n{json.dumps(values)}") from None
        check(documents, values)
        rendered += 1

    run()
    assert rendered >= EXAMPLES


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_any_other_value_set_renders_or_is_refused_in_words(chart: Chart) -> None:
    """Not by a failure of a template, which would name a line of ours and not a key of theirs."""
    refused = rendered = 0

    @settings(max_examples=max(10, EXAMPLES // 3), **COMMON)
    @given(values=any_values())
    def run(values: dict[str, Any]) -> None:
        nonlocal refused, rendered
        try:
            documents = chart.render(values)
        except Refused as error:
            refused += 1
            assert CONFLICT in str(error), f"{error}\n{json.dumps(values)}"
        else:
            rendered += 1
            check(documents, values)

    run()
    assert rendered
    assert refused


def test_every_value_can_be_drawn() -> None:
    """A part of the schema that the strategies do not know would be left out silently."""
    drawn = leaves(schema())
    assert len(drawn) > 200
    for path, part in drawn:
        assert of_schema(part) is not None, path
    stated = defaults()
    assert {path[0] for path, _ in drawn} == stated.keys()
