"""A version in the forms that other tools take: a WebUI's sidecar, a merged checkpoint, an OCI artefact.

Everything here works on files alone: no gRPC and no torch.
"""
