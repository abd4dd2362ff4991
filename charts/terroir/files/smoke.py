"""`helm test`: every service is ready, and the registry answers a call with the operator's certificate."""

import os
import sys
import urllib.request

from terroir.client import Client, Endpoints

endpoints = Endpoints.discover()
port = os.environ.get("METRICS_PORT", "9090")
for name in ("dataset", "training", "registry", "inference"):
    host = getattr(endpoints, name).rpartition(":")[0]
    with urllib.request.urlopen(f"http://{host}:{port}/readyz", timeout=30) as answer:
        sys.stdout.write(f"{name}: {answer.status}\n")
with Client(endpoints) as terroir:
    sys.stdout.write(f"bases: {', '.join(base.name for base in terroir.bases.list()) or 'none'}\n")
