"""`helm test`: every service is ready, and the registry answers a call with the operator's certificate."""

import sys
import urllib.request

from terroir.client import Client, Endpoints

endpoints = Endpoints.discover()
for name in ("dataset", "training", "registry", "inference"):
    host = getattr(endpoints, name).rpartition(":")[0]
    with urllib.request.urlopen(f"http://{host}:9090/readyz", timeout=30) as answer:
        print(f"{name}: {answer.status}", flush=True)
with Client(endpoints) as terroir:
    print("bases:", ", ".join(base.name for base in terroir.bases.list()) or "none")
sys.exit(0)
