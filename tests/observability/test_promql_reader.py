"""The reader that the consistency tests rest on."""

from __future__ import annotations

import pytest

from tests.observability.promql import Matcher, Selector, read


def test_reads_functions_ranges_matchers_and_groups() -> None:
    text = """
      histogram_quantile(0.99, sum by (le, job) (rate(a_bucket{x="1",y=~"b|c\\\\.d"}[5m]))) > 2
      and on (namespace) max without (pod) (b) # a comment with c
      or 0 * d:e:rate5m{z!="}"}
    """
    found = read(text)
    rate = ("histogram_quantile", "sum", "rate")
    assert found.selectors == (
        Selector("a_bucket", (Matcher("x", "=", "1"), Matcher("y", "=~", "b|c\\.d")), "5m", rate),
        Selector("b", (), "", ("max",)),
        Selector("d:e:rate5m", (Matcher("z", "!=", "}"),), "", ()),
    )
    assert found.grouping == {"le", "job", "namespace", "pod"}


def test_groups_may_follow_what_they_group() -> None:
    found = read("sum(rate(a[1m])) by (job) / count(b)")
    assert [(one.metric, one.functions) for one in found.selectors] == [("a", ("sum", "rate")), ("b", ("count",))]
    assert found.grouping == {"job"}


@pytest.mark.parametrize("text", ["time() - 3 * 86400", "vector(0)", "1e3 + .5 + 2.5"])
def test_numbers_and_functions_alone_select_nothing(text: str) -> None:
    assert read(text).selectors == ()


@pytest.mark.parametrize("text", ["a{", "sum(a", "a ~ b", '{job="x"}'])
def test_refuses_what_it_would_misread(text: str) -> None:
    with pytest.raises((ValueError, AssertionError)):
        read(text)
