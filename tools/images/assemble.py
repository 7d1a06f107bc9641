"""
Runs inside an image build: copies a Python program and its dependencies into an otherwise empty root file system.

The root contains the interpreter, the standard library without developer tools, the program's packages, and the shared
libraries that these are linked with. It has no shell, package manager, pip or compiler that an intruder could use. This
script needs only the standard library, and works on any Linux whose `ldd` prints paths.

    python3 assemble.py ROOT PATH...    copies each PATH (the program and its packages) to the same path under ROOT
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

# Parts of the standard library to leave out: tests, editors, GUI toolkits and installers.
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
# Programs load these libraries by name at run time, so `ldd` does not list them.
BY_NAME = ("libgcc_s.so.1", "libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2")
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
NOBODY = 65532


def main(root: Path, paths: Iterable[Path]) -> None:
    """Copy the interpreter, *paths* and all their libraries into *root*."""
    interpreter = Path(sys.executable)
    library = Path(sysconfig.get_path("stdlib"))
    _copy_tree(library, root, unwanted={*UNWANTED, *(each.name for each in library.glob("config-*"))})
    for path in paths:
        _copy_tree(path, root, unwanted={"__pycache__", "*.pyi", "tests"})
    # The packages' command-line scripts are not used.
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
    """Copy the file *path* to the same path under *root*, with the symbolic links on the way to it."""
    parts, resolved = list(path.parts[1:]), Path("/")
    while parts:
        step = resolved / parts.pop(0)
        if step.is_symlink():
            link = root / step.relative_to("/")
            link.parent.mkdir(parents=True, exist_ok=True)
            if not os.path.lexists(link):
                link.symlink_to(step.readlink())
            parts = [*Path(os.path.normpath(resolved / step.readlink())).parts[1:], *parts]
            resolved = Path("/")
        else:
            resolved = step
    target = root / resolved.relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        shutil.copy2(resolved, target)


def libraries(binaries: Iterable[Path], *, root: Path) -> set[Path]:
    """Return the shared libraries outside *root* that *binaries* are linked with, including the loader."""
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
    """Write the configuration files that libc and OpenSSL read."""
    etc = root / "etc"
    etc.mkdir(exist_ok=True)
    (etc / "passwd").write_text(f"root:x:0:0:root:/:/nologin\nnonroot:x:{NOBODY}:{NOBODY}:nonroot:/tmp:/nologin\n")
    (etc / "group").write_text(f"root:x:0:\nnonroot:x:{NOBODY}:\n")
    (etc / "nsswitch.conf").write_text("hosts: files dns\n")
    if Path(CERTIFICATES).exists():
        place(Path(CERTIFICATES), root)
    if Path("/etc/ld.so.conf").exists() and shutil.which("ldconfig"):
        # The loader does not search /usr/local/lib by default; some interpreters have libraries there.
        (etc / "ld.so.conf").write_text("/usr/local/lib\n")
        subprocess.run(["ldconfig", "-r", str(root)], check=False)  # noqa: S607
    (root / "tmp").mkdir(exist_ok=True)
    (root / "tmp").chmod(0o1777)
    for name in ("proc", "sys", "dev"):
        (root / name).mkdir(exist_ok=True)


def _compile(root: Path) -> None:
    """Compile all modules. The bytecode is not checked against sources, because the root is read-only at run time."""
    compileall.compile_dir(
        str(root),
        quiet=2,
        stripdir=str(root),
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), map(Path, sys.argv[2:]))
