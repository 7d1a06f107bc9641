"""`./run.sh up --tls`: create a temporary certificate authority for this machine, and a certificate signed by it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme
from cryptography import x509

_LIFE = timedelta(days=30)
_RENEW = timedelta(days=1)


def ensure_certificate(state_dir: Path) -> Path:
    """Make a certificate unless a valid one exists, say how to trust it, and return its path; its key is beside it."""
    folder = state_dir / "tls"
    if not _is_valid(folder / "cert.pem"):
        _create(folder)
    print(f"HTTPS with a certificate made for this machine; trust it with --cacert {folder / 'ca.pem'},")
    print(f"in Python with ssl.create_default_context(cafile={str(folder / 'ca.pem')!r})")
    return folder / "cert.pem"


def _is_valid(path: Path) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        return False
    return certificate.not_valid_after_utc > datetime.now(UTC) + _RENEW


def _create(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    authority = trustme.CA(organization_name="recsys on this machine")
    certificate = authority.issue_cert("localhost", "127.0.0.1", "::1", not_after=datetime.now(UTC) + _LIFE)
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    (folder / "cert.pem").write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
