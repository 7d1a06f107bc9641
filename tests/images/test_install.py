"""The install step of an image build: the libraries that it adds to the packages."""

import sys
from pathlib import Path

import pytest

from tools.images import install


def test_a_library_that_wheels_lack_is_found_by_the_loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A library counts as missing if `ldd` does not find it; a program with all its libraries misses none."""
    assert install.missing([Path(sys.executable)]) == []
    ldd = tmp_path / "ldd"
    ldd.write_text("#!/bin/sh\necho 'libgomp.so.1 => not found'\n")
    ldd.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert install.missing([Path("lib_lightgbm.so")]) == ["libgomp.so.1"]


@pytest.mark.parametrize(("works", "status"), [(True, 0), (False, 1)])
def test_a_missing_library_is_installed_or_named(works, status, monkeypatch: pytest.MonkeyPatch, capfd):
    """The package of the library is installed; without a package manager, the build fails and names the library."""
    installed: list[str] = []

    def add(*packages: str) -> bool:
        installed.extend(packages)
        return bool(works)

    monkeypatch.setattr(install, "find_pip", lambda: ["true"])
    monkeypatch.setattr(install, "missing", lambda _: ["libgomp.so.1"])
    monkeypatch.setattr(install, "install_packages", add)
    assert install.main("lib", ["offline.txt"]) == status
    assert installed == ["libgomp1"]
    assert ("libgomp.so.1" in capfd.readouterr().err) == (status == 1)
