"""What files hold."""

from pathlib import Path


def content(folder: Path) -> bytes:
    """Return the bytes of all files in *folder*."""
    return b"".join(file.read_bytes() for file in folder.iterdir())
