"""Value sets that tests go through: those of ci/, and one for each option that they leave at its default."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml

from tests.chart.rendering import CHART, merged

PEM: Final = "-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n"
ISSUER: Final = {"issuer": "https://login.example.com", "audience": "terroir", "jwks": "https://login.example.com/k"}

CI: Final[dict[str, dict[str, Any]]] = {
    path.name.removesuffix("-values.yaml"): yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in sorted((CHART / "ci").glob("*-values.yaml"))
}

OPTIONS: Final[dict[str, dict[str, Any]]] = yaml.safe_load(
    (Path(__file__).parent / "options.yaml").read_text(encoding="utf-8")
)

ALL: Final = {**CI, **OPTIONS}
# Both at once, where the pieces meet.
ALL["everything"] = merged(
    CI["many-gpus"], CI["mtls"], OPTIONS["signed-and-guarded"], OPTIONS["placed"], OPTIONS["traced"]
)
