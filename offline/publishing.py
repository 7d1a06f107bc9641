"""
A small model artefact in a Kubernetes ConfigMap, so that pods can mount it where there is no shared volume.

Written through the API rather than with `kubectl apply`, which keeps a second copy in an annotation that may not be
larger than 256 KiB. A ConfigMap itself holds 1 MiB; the demo's artefact takes 0.45.
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


class PublishError(Exception):
    """The artefact cannot be published."""


@dataclass(frozen=True)
class Cluster:
    """
    The API server, and who is asking.

    Attributes:
        address: `HOST[:PORT]`.
        namespace: Where the ConfigMap goes.
        token: Of a ServiceAccount that may create it, and get and update it.
        trust: Whose certificate the server has; None for plain HTTP, in tests.
    """

    address: str
    namespace: str
    token: str
    trust: ssl.SSLContext | None

    @classmethod
    def own(cls, account: Path = _ACCOUNT) -> "Cluster":
        """
        Return the cluster this pod runs in.

        Raises:
            PublishError: this is no pod, or one without a token.
        """
        try:
            namespace, token = ((account / name).read_text().strip() for name in ("namespace", "token"))
            trust = ssl.create_default_context(cafile=account / "ca.crt")
            # From Python 3.13 on it is set, and refuses the certificates of clusters whose authority names no key.
            trust.verify_flags &= ~ssl.VERIFY_X509_STRICT
            return cls("kubernetes.default.svc", namespace, token, trust)
        except OSError as error:
            raise PublishError(f"no ServiceAccount token to publish with: {error}") from error

    def call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """
        Send a request; return its status and answer.

        Raises:
            PublishError: there was no answer.
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


def publish(folder: Path, *, name: str, cluster: Cluster) -> None:
    """
    Put the files of *folder* into the ConfigMap *name*: make it, or exchange all of its content.

    Raises:
        PublishError: they do not fit, or the API server refuses.
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
        raise PublishError(f"the API server refuses ({status}): {(answer or {}).get('message', '')}")
