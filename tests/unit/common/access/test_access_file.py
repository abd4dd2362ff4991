from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from terroir.common.access.access_file import AccessFile, AccessRules, read_rules
from terroir.common.clock import FixedClock
from terroir.common.errors import InvalidArgument
from terroir.common.principal import Role
from tests.tools.authority import Issuer


def grant(*principals: str, roles: tuple[str, ...] = ("viewer",), **fields: Any) -> dict[str, Any]:
    return {"principals": list(principals), "roles": list(roles), **fields}


def rules(*grants: dict[str, Any]) -> AccessRules:
    return AccessRules.model_validate({"grants": list(grants)})


BAD = {
    "no yaml": ("issuers: [", "is not YAML"),
    "a list": ("- a", "write a mapping"),
    "a misspelt key": ("grant: []", "did you mean grants"),
    "a role that is none": (yaml.dump({"grants": [grant("cert:a", roles=("admin",))]}), "grants.0.roles.0"),
    "nobody's grant": (yaml.dump({"grants": [grant(roles=("viewer",))]}), "grants.0.principals"),
    "a principal of no kind": (yaml.dump({"grants": [grant("ana")]}), "write cert:NAME or oidc:ISSUER#SUBJECT"),
    "a region that is none": (yaml.dump({"grants": [grant("cert:a", regions=["../x"])]}), "grants.0.regions.0"),
    "HS256": (yaml.dump({"issuers": [Issuer().rules(algorithms=["HS256"])]}), "issuers.0.algorithms.0"),
    "algorithm none": (yaml.dump({"issuers": [Issuer().rules(algorithms=["none"])]}), "issuers.0.algorithms.0"),
    "no algorithm": (yaml.dump({"issuers": [Issuer().rules(algorithms=[])]}), "issuers.0.algorithms"),
    "keys over http": (yaml.dump({"issuers": [Issuer().rules("http://login/jwks")]}), "use https or a file"),
    "no audience": (yaml.dump({"issuers": [{"issuer": "a", "jwks": "b"}]}), "issuers.0.audience"),
}


@pytest.mark.parametrize("mistake", BAD)
def test_says_where_a_file_is_wrong(tmp_path: Path, mistake: str) -> None:
    text, expected = BAD[mistake]
    path = tmp_path / "access.yaml"
    path.write_text(text)
    with pytest.raises(InvalidArgument) as refused:
        read_rules(path)
    assert refused.value.reason == "ACCESS_FILE_INVALID"
    assert str(path) in str(refused.value) and expected in str(refused.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="cannot read the access file") as refused:
        AccessFile(tmp_path / "none.yaml", FixedClock())
    assert refused.value.reason == "ACCESS_FILE_UNREADABLE"


def test_an_empty_file_grants_nothing(tmp_path: Path) -> None:
    (tmp_path / "access.yaml").write_text("")
    assert read_rules(tmp_path / "access.yaml").principal("cert:a").roles == frozenset()


def test_grants_add_up_and_one_without_regions_lifts_the_limit() -> None:
    limited = grant("cert:a", roles=("stylist",), regions=["CN-ZJ"])
    other = grant("cert:a", roles=("publisher",), regions=["JP"])
    assert rules(limited, other).principal("cert:a").regions == {"CN-ZJ", "JP"}
    assert rules(limited, grant("cert:a")).principal("cert:a").regions is None
    assert rules(limited, other).principal("cert:a").roles == {Role.STYLIST, Role.PUBLISHER}
    assert rules(limited).principal("cert:b").roles == frozenset()


def test_a_changed_file_is_taken_within_a_second_and_a_wrong_one_is_not(tmp_path: Path) -> None:
    path, clock, failures = tmp_path / "access.yaml", FixedClock(), list[int]()
    path.write_text(yaml.dump({"grants": [grant("cert:a")]}))
    access = AccessFile(path, clock, lambda: failures.append(1))

    def replace(text: str) -> None:
        (tmp_path / "next").write_text(text)
        (tmp_path / "next").replace(path)

    replace(yaml.dump({"grants": [grant("cert:a", roles=("operator",))]}))
    assert access.rules.principal("cert:a").roles == {Role.VIEWER}
    clock.advance(1)
    assert access.rules.principal("cert:a").roles == {Role.OPERATOR}
    replace("grants: nobody")
    clock.advance(1)
    assert access.rules.principal("cert:a").roles == {Role.OPERATOR}
    path.unlink()
    clock.advance(1)
    assert access.rules.principal("cert:a").roles == {Role.OPERATOR}
    assert len(failures) == 2
    replace("{}")
    clock.advance(1)
    assert access.rules.principal("cert:a").roles == frozenset()


def test_a_file_that_is_wrong_is_told_once_not_at_every_call(tmp_path: Path) -> None:
    path, clock, failures = tmp_path / "access.yaml", FixedClock(), list[int]()
    path.write_text("{}")
    access = AccessFile(path, clock, lambda: failures.append(1))
    path.write_text("grants: wrong")
    for _ in range(5):
        clock.advance(1)
        assert access.rules == AccessRules()
    assert failures == [1]
