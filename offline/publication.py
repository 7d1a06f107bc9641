"""
Publish a model artefact on Kubernetes: as a ConfigMap, or by its path on a volume that a Knative Service mounts.

A ConfigMap is for small artefacts and pods without a shared volume.

The API is used directly, because `kubectl apply` keeps a second copy in an annotation of at most 256 KiB. A ConfigMap
holds 1 MiB; the demo's artefact takes 0.45.
"""

import http.client
import json
import ssl
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIMIT_BYTES = 1024 * 1024
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TIMEOUT_S = 10.0
_ATTEMPTS = 5
_SETTING = "MODEL_PATH"


class PublishError(Exception):
    """The artefact cannot be published."""


@dataclass(frozen=True)
class ClusterAccess:
    """
    The API server and the account to use.

    Attributes:
        address: `HOST[:PORT]`.
        namespace: Namespace of the ConfigMap.
        token: Token of a ServiceAccount that may create, get and update the ConfigMap.
        trust: Verifies the server's certificate; None for plain HTTP, in tests.
    """

    address: str
    namespace: str
    token: str
    trust: ssl.SSLContext | None

    @classmethod
    def own(cls, account: Path = _ACCOUNT) -> "ClusterAccess":
        """
        Return the cluster that this pod runs in.

        Raises:
            PublishError: the process runs outside a pod, or in a pod without a token.
        """
        try:
            namespace, token = ((account / name).read_text().strip() for name in ("namespace", "token"))
            trust = ssl.create_default_context(cafile=account / "ca.crt")
            # Python 3.13 sets this flag, which refuses clusters whose authority has no key identifier.
            trust.verify_flags &= ~ssl.VERIFY_X509_STRICT
            return cls("kubernetes.default.svc", namespace, token, trust)
        except OSError as error:
            raise PublishError(f"no ServiceAccount token to publish with: {error}") from error

    def call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """
        Send a request; return its status and answer.

        Raises:
            PublishError: the API server gave no valid answer.
        """
        connection = (
            http.client.HTTPSConnection(self.address, timeout=_TIMEOUT_S, context=self.trust)
            if self.trust
            else http.client.HTTPConnection(self.address, timeout=_TIMEOUT_S)
        )
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"null")
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise PublishError(f"the API server did not answer: {error!r}") from error
        finally:
            connection.close()


def publish(folder: Path, *, name: str, cluster: ClusterAccess) -> None:
    """
    Create the ConfigMap *name* with the files of *folder*, or replace its content.

    Raises:
        PublishError: the files do not fit into a ConfigMap, or the API server refuses.
    """
    data = {file.name: b64encode(file.read_bytes()).decode() for file in sorted(folder.iterdir())}
    if (size := sum(map(len, data.values()))) > LIMIT_BYTES:
        raise PublishError(
            f"{size} bytes do not fit into a ConfigMap; bake the model into the image, or mount a volume"
        )
    labels = {"app.kubernetes.io/part-of": "recsys"}
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": cluster.namespace, "labels": labels},
        "binaryData": data,
    }
    path = f"/api/v1/namespaces/{cluster.namespace}/configmaps"
    status, answer = cluster.call("POST", path, body)
    if status == http.client.CONFLICT:
        status, answer = cluster.call("PUT", f"{path}/{name}", body)
    if status not in {http.client.OK, http.client.CREATED}:
        reason = answer.get("message", "") if isinstance(answer, dict) else ""
        raise PublishError(f"the API server refuses ConfigMap {name} ({status}): {reason}")


def serve(model: Path, *, service: str, cluster: ClusterAccess) -> None:
    """
    Set MODEL_PATH of a Knative Service to *model*, which its pods see under the same path.

    Knative starts a revision with the new setting, and shifts traffic to it when its pods have loaded the model.

    Raises:
        PublishError: the Service does not exist, its traffic does not follow the latest revision, or the API refuses.
    """
    path = f"/apis/serving.knative.dev/v1/namespaces/{cluster.namespace}/services/{service}"
    for _ in range(_ATTEMPTS):
        status, body = cluster.call("GET", path)
        if status == http.client.OK:
            _set_model(body, model)
            status, body = cluster.call("PUT", path, body)
        # Another writer was faster; its change must not be lost.
        if status != http.client.CONFLICT:
            break
    if status != http.client.OK:
        reason = body.get("message", "") if isinstance(body, dict) else ""
        raise PublishError(f"the API server refuses to update Service {service} ({status}): {reason}")


def _set_model(service: dict[str, Any], model: Path) -> None:
    name, spec = service["metadata"]["name"], service["spec"]
    traffic = spec.get("traffic") or [{"latestRevision": True}]
    if not (len(traffic) == 1 and traffic[0].get("latestRevision")):
        raise PublishError(
            f"the traffic of Service {name} does not follow its latest revision, so the new model would not serve; "
            f"finish the rollout, then run kn service update {name} --env {_SETTING}={model}"
        )
    # A revision name of the template is taken already.
    spec["template"].get("metadata", {}).pop("name", None)
    for setting in spec["template"]["spec"]["containers"][0]["env"]:
        if setting["name"] == _SETTING:
            setting["value"] = str(model)
            return
    raise PublishError(f"Service {name} has no setting {_SETTING}")
