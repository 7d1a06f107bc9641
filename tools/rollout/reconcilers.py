"""Recognises Services that Argo CD or Flux keep equal to manifests in Git."""

from collections.abc import Mapping
from typing import Any

_ARGO_CD, _FLUX, _FLUX_HELM = (
    "argocd.argoproj.io/tracking-id", "kustomize.toolkit.fluxcd.io/name", "helm.toolkit.fluxcd.io/name",
)  # fmt: skip


def reconciler_of(service: Mapping[str, Any]) -> str | None:
    """Return the reconciler whose mark *service* has, in words; None without a mark."""
    metadata = service["metadata"]
    marks = {**(metadata.get("labels") or {}), **(metadata.get("annotations") or {})}
    if application := marks.get(_ARGO_CD, "").partition(":")[0] or marks.get("argocd.argoproj.io/instance"):
        return f"the application {application} of Argo CD"
    if name := marks.get(_FLUX):
        return f"the Kustomization {name} of Flux"
    if name := marks.get(_FLUX_HELM):
        return f"the HelmRelease {name} of Flux"
    return None
