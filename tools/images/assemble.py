"""
Runs inside a build: gathers what one Python program needs, and nothing else, into a root file system.

The interpreter, its standard library without what only developers want, the program's packages, and the shared
libraries all of those are linked with. No shell, no package manager, no pip, no compiler: what is not there cannot be
called by whoever gets in. Standard library only; works on any Linux whose `ldd` names libraries by path.

    python3 assemble.py ROOT PATH...    PATHs (the program and its packages) go to the same place under ROOT
"""

import compileall
import os
import py_compile
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

# Of the standard library: tests, editors, GUI toolkits, installers, and headers for compiling against.
UNWANTED = [
    "test",
    "idlelib",
    "tkinter",
    "turtledemo",
    "turtle.py",
    "ensurepip",
    "lib2to3",
    "pydoc_data",
    "venv",
    "distutils",
    "site-packages",
    "dist-packages",
    "__pycache__",
]
# Loaded by name at run time, so that nothing is linked with them.
BY_NAME = ("libgcc_s.so.1", "libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2")
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
NOBODY = 65532


def main(root: Path, paths: Iterable[Path]) -> None:
    """Fill *root*."""
    interpreter = Path(sys.executable)
    library = Path(sysconfig.get_path("stdlib"))
    _copy_tree(library, root, unwanted={*UNWANTED, *(each.name for each in library.glob("config-*"))})
    for path in paths:
        _copy_tree(path, root, unwanted={"__pycache__", "*.pyi", "tests"})
    # Scripts that pip makes for packages; nobody could run them here.
    shutil.rmtree(root / "app/lib/bin", ignore_errors=True)
    place(interpreter, root)
    for name in ("python", "python3"):
        link = root / "usr/local/bin" / name
        if not os.path.lexists(link):
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.realpath(interpreter))
    binaries = [interpreter, *(file for file in root.rglob("*.so*") if file.is_file())]
    found = libraries(binaries, root=root)
    for path in sorted({*found, *_by_name(found)}):
        place(path, root)
    configure(root)
    _compile(root)


def place(path: Path, root: Path) -> None:
    """Copy the file *path* to the same place under *root*, with the symbolic links that lead to it."""
    parts, seen = list(path.parts[1:]), Path("/")
    while parts:
        step = seen / parts.pop(0)
        if step.is_symlink():
            link = root / step.relative_to("/")
            link.parent.mkdir(parents=True, exist_ok=True)
            if not os.path.lexists(link):
                link.symlink_to(step.readlink())
            parts = [*Path(os.path.normpath(seen / step.readlink())).parts[1:], *parts]
            seen = Path("/")
        else:
            seen = step
    target = root / seen.relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        shutil.copy2(seen, target)


def libraries(binaries: Iterable[Path], *, root: Path) -> set[Path]:
    """Return the shared libraries outside *root* that *binaries* are linked with, the loader among them."""
    found = set()
    for binary in binaries:
        listed = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=False).stdout  # noqa: S607
        for line in listed.splitlines():
            path = line.rpartition("=>")[2].split("(")[0].strip()
            if path.startswith("/") and not Path(path).is_relative_to(root):
                found.add(Path(path))
    return found


def _by_name(found: Iterable[Path]) -> set[Path]:
    folders = {path.parent for path in found}
    return {folder / name for folder in folders for name in BY_NAME if (folder / name).exists()}


def _copy_tree(path: Path, root: Path, *, unwanted: set[str]) -> None:
    target = root / path.relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(path, target, ignore=shutil.ignore_patterns(*unwanted), dirs_exist_ok=True)


def configure(root: Path) -> None:
    """Write the few files that libc and OpenSSL look for."""
    etc = root / "etc"
    etc.mkdir(exist_ok=True)
    (etc / "passwd").write_text(f"root:x:0:0:root:/:/nologin\nnonroot:x:{NOBODY}:{NOBODY}:nonroot:/tmp:/nologin\n")
    (etc / "group").write_text(f"root:x:0:\nnonroot:x:{NOBODY}:\n")
    (etc / "nsswitch.conf").write_text("hosts: files dns\n")
    if Path(CERTIFICATES).exists():
        place(Path(CERTIFICATES), root)
    if Path("/etc/ld.so.conf").exists() and shutil.which("ldconfig"):
        # Libraries outside the loader's own folders, such as an interpreter's in /usr/local/lib.
        (etc / "ld.so.conf").write_text("/usr/local/lib\n")
        subprocess.run(["ldconfig", "-r", str(root)], check=False)  # noqa: S607
    (root / "tmp").mkdir(exist_ok=True)
    (root / "tmp").chmod(0o1777)
    for name in ("proc", "sys", "dev"):
        (root / name).mkdir(exist_ok=True)


def _compile(root: Path) -> None:
    """Compile everything beforehand, never looking at sources again: the root is read-only at run time."""
    compileall.compile_dir(
        str(root),
        quiet=2,
        stripdir=str(root),
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), map(Path, sys.argv[2:]))
