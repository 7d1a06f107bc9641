"""
Part of `./run.sh check`: find wordings that a reader has to read twice, in docstrings, comments, messages and docs.

Two habits are refused: a sentence that opens with a clause instead of its subject, and words for which the field has
plainer ones. `HABITS` names each pattern with the remedy. CONTRIBUTING.md says how the project writes.
"""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]

_SUFFIXES = {".md", ".py", ".sh", ".toml", ".yaml"}
_EXEMPT = {"tools/wording.py", "tests/tools/test_wording.py"}  # they hold the patterns themselves
_DIRECTIVE = re.compile(r"#\s*(noqa|type: ?ignore|fmt:|pragma|nosec|!)")


@dataclass(frozen=True)
class Habit:
    """
    A wording to avoid.

    Attributes:
        pattern: Matched against each sentence.
        remedy: How to write instead.
    """

    pattern: re.Pattern[str]
    remedy: str


HABITS = (
    Habit(
        re.compile(r"^(Who|Whom|Whose|Whoever|Whatever|What|So (many|long|often|much|few)|From (what|which|whom)|That it)\b"),
        "name the subject first",
    ),
    Habit(
        re.compile(r"^(Of (a|an|the|what|those|it|them|whom|several|two|these)|Where (there|no|it|a|the|that)|With (it|them|what))\b"),
        "name the subject first",
    ),
    Habit(re.compile(r"\b(nobody|somebody|everybody|whoever|whatever)\b", re.IGNORECASE), "name who or what is meant"),
    Habit(re.compile(r"\banew\b", re.IGNORECASE), "again, restart"),
    Habit(re.compile(r"\bat once\b", re.IGNORECASE), "immediately, or at the same time"),
    Habit(re.compile(r"\b(likewise|thereof|meanwhile|besides)\b", re.IGNORECASE), "also, of it, during this, apart from"),
    Habit(re.compile(r"\b(has|is) gone\b", re.IGNORECASE), "disconnected, ended, was removed"),
    Habit(re.compile(r"\b(cannot be had|to be had|is none|are none|of its own|of their own|by itself|by themselves)\b", re.IGNORECASE), "say it directly"),
    Habit(re.compile(r"\b(lets? go|no matter|all alike|all the same|makes do)\b", re.IGNORECASE), "say it directly"),
)  # fmt: skip


@dataclass(frozen=True)
class HabitFinding:
    """A sentence with a habit, and where the text around it begins."""

    path: str
    line: int
    sentence: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.remedy}: {self.sentence}"


def find_habits(path: str, content: str) -> list[HabitFinding]:
    """Return every sentence of a file that shows one of `HABITS`."""
    return [
        HabitFinding(path, line, sentence, habit.remedy)
        for line, text in _texts(path, content)
        for sentence in _sentences(text)
        for habit in HABITS
        if habit.pattern.search(sentence)
    ]


def _texts(path: str, content: str) -> Iterator[tuple[int, str]]:
    if path.endswith(".py"):
        yield from _paragraphs(_comments(content))
        yield from _docstrings_and_messages(content)
    elif path.endswith(".md"):
        yield from _paragraphs(_prose_lines(content))
    else:
        lines = enumerate(content.splitlines(), 1)
        yield from _paragraphs((n, line.strip("# \t")) for n, line in lines if line.lstrip().startswith("#"))


def _comments(content: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(content).readline):
        if token.type == tokenize.COMMENT and not _DIRECTIVE.match(token.string):
            yield token.start[0], token.string.lstrip("# ")


def _docstrings_and_messages(content: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(content)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node) or ""
            yield from ((getattr(node, "lineno", 1), part) for part in text.split("\n\n"))
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            yield from ((node.lineno, _literal(argument)) for argument in node.exc.args)


def _literal(node: ast.expr) -> str:
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in parts)


def _prose_lines(content: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of a Markdown page that are prose: no code, tables or headings. A list item begins a paragraph."""
    fenced = False
    for number, line in enumerate(content.splitlines(), 1):
        stripped = line.strip()
        fenced ^= stripped.startswith("```")
        if fenced or stripped.startswith(("```", "|", "#", ">")):
            yield number, ""
        else:
            yield number, re.sub(r"^([-*]|\d+\.)\s+", "\n", stripped)


def _paragraphs(lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Join lines that follow each other."""
    start, last, parts = 0, -1, list[str]()
    for number, text in lines:
        if parts and (number != last + 1 or not text or text.startswith("\n")):
            yield start, " ".join(parts)
            parts = []
        if text.strip():
            start = start if parts else number
            parts.append(text.strip())
        last = number
    if parts:
        yield start, " ".join(parts)


def _sentences(text: str) -> list[str]:
    plain = re.sub(r"`[^`]*`", "X", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)).replace("**", "")
    return [part.strip() for part in re.split(r"(?<=[.!?;:])\s+", " ".join(plain.split())) if len(part.split()) > 3]


def _tracked_files() -> list[str]:
    command = ["git", "ls-files"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the files named, or all that git tracks; return the exit status."""
    named = list(arguments if arguments is not None else sys.argv[1:])
    listed = named or _tracked_files()
    found = []
    for path in listed:
        file = ROOT / path
        if path not in _EXEMPT and (file.suffix in _SUFFIXES or file.name in {"Dockerfile", "run"}) and file.is_file():
            found += find_habits(path, file.read_text("utf-8"))
    print(*found, sep="\n", end="\n" if found else "")
    if found:
        print(f"{len(found)} sentences to rewrite; CONTRIBUTING.md says how", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
