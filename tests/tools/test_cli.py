"""The command line: help, wrong arguments, completion, and what a clone without packages does."""

import fcntl
import importlib
import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import typer.main

from loadtests.phases import SHAPES
from offline.evaluation.holdout import Holdout
from offline.inputs import FORMATS
from recsys import __version__
from recsys.contracts import events
from tests.running import ROOT
from tools.cli import measurements, options
from tools.cli.app import WORK
from tools.cli.verbs import app, main

pytestmark = pytest.mark.may_block

VERBS: dict[str, Any] = dict(typer.main.get_group(app).commands)
BEFORE = ["up", "down", "status", "logs", "kn", "rollout", "acceptance", "recommend", "send-event", "events", "demo",
          "store", "train", "evaluate", "doctor", "bench", "load", "plan", "images", "prove-images", "test", "coverage",
          "check", "docs", "lock"]  # fmt: skip
"""The verbs that other parts of the project and its users call."""


def examples(verb: str) -> list[str]:
    return [line.strip("`") for line in VERBS[verb].epilog.split("\n\n")[1:]]


def test_every_verb_is_there():
    """No verb is lost, and each belongs to a group of the help."""
    assert set(BEFORE) <= VERBS.keys()
    assert all(verb.rich_help_panel for verb in VERBS.values())


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_examples(verb, capsys):
    """The help exits with 0, describes each parameter, and shows examples that the verb's own parser accepts."""
    assert main([verb, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"Usage: ./run.sh {verb}" in shown
    assert "Examples:" in shown
    assert all(parameter.help for parameter in VERBS[verb].params)
    for example in examples(verb):
        program, name, *words = shlex.split(example)
        assert (program, name) == ("./run.sh", verb)
        VERBS[verb].make_context(verb, words)


def test_the_verbs_and_their_work_agree():
    """The function that does the work of a verb takes the parameters of the verb by name, and returns a status."""
    assert VERBS.keys() == WORK.keys()
    for verb in VERBS.keys() - {"load"}:
        check_work(verb)
    # A separate process, because Locust replaces the standard library's sockets.
    program = "from tests.tools.test_cli import check_work; check_work('load')"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def check_work(verb: str) -> None:
    """Check the function that does the work of *verb*."""
    module, _, name = WORK[verb].partition(":")
    work = inspect.signature(getattr(importlib.import_module(module), name))
    work.bind(**dict.fromkeys(parameter.name for parameter in VERBS[verb].params if parameter.name != "help"))
    positional = [each for each in work.parameters.values() if each.kind is each.POSITIONAL_OR_KEYWORD]
    assert work.return_annotation is int, verb
    assert not positional, (verb, work)


def test_the_choices_are_those_of_the_work():
    """Choices are written out, so that completion imports nothing; they are the same names."""
    assert choices(measurements.load, "shape") == set(SHAPES)
    assert set(get_args(get_args(options.Format)[0])) == set(FORMATS)
    assert set(get_args(get_args(get_args(options.Holdout)[0])[0])) == set(get_args(Holdout))
    (kind,) = (parameter for parameter in VERBS["send-event"].params if parameter.name == "type_")
    assert kind.default == events.INTERACTION


def choices(verb: Any, name: str) -> set[str]:
    annotation = get_type_hints(inspect.unwrap(verb))[name]
    return set(get_args(annotation))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["evalute"], "./run.sh: No such command 'evalute'. Did you mean 'evaluate'? (see ./run.sh --help)"),
        (["up", "--prot", "1"], "No such option: --prot"),
        (["up", "--port", "0"], "must be 1 to 65535, not '0'"),
        (["recommend"], "Missing argument 'USER'"),
        (["recommend", "u", "--url", "http://a", "--port", "1"], "--port and --url name two pipelines"),
        (["events", "--all"], "go with redrive"),
        (["train", "redis://127.0.0.1"], "a store goes with --from-store"),
        (["train", "--from-store", "--if-missing"], "--from-store trains on a store"),
        (["evaluate", "--via", "http://a", "--ablate"], "--via asks a model that is trained already"),
        (["evaluate", "--plot", "a.txt"], "--plot draws .png, .svg, .pdf"),
        (["bench", "topk", "--interactions", "f"], "--interactions goes with train"),
        (["load", "--duration", "soon"], "is not a duration"),
        (["load", "--rate", "0"], "must be a number above 0"),
        (["plan", "--rps", "1", "--p99-ms", "nan"], "must be a number above 0"),
        (["rollout", "rank-items", "--steps", "5,0"], "must be numbers above 0"),
        (["rollout", "rank-items", "--max-error-rate", "2"], "is not a share"),
        (["send-event", "--data", "{"], "--data must be JSON"),
        (["completion", "tcsh"], "tcsh"),
        ([], "Missing command"),
    ],
)
def test_wrong_arguments_are_one_line_and_status_2(words, says, capsys):
    """The line names the verb's help."""
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line
    assert line.startswith("./run.sh")
    assert line.endswith("--help)")


def test_the_version_is_the_package_s(capsys):
    """`--version` prints it alone."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


class TestCompletion:
    """The completion script, and the words that it completes."""

    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_the_script_asks_this_python(self, shell, capsys):
        """The script never starts `./run.sh`, a name that many projects use for programs that act."""
        assert main(["completion", shell]) == 0
        script = capsys.readouterr().out
        assert f"{sys.executable} -m tools.cli" in script
        asking = [line for line in script.splitlines() if "_RUN_SH_COMPLETE=" in line]
        assert asking
        for line in asking:
            assert not re.search(r"complete_\w+ (\$1|\./run\.sh)", line)

    def test_bash_completes_verbs_options_and_choices(self, tmp_path):
        """In a shell that has the script and nothing else of this project."""
        program = 'eval "$SCRIPT"; COMP_WORDS=($WORDS ""); COMP_CWORD=$((${#COMP_WORDS[@]}-1)); [ -z "$LAST" ] || '
        program += 'COMP_WORDS[COMP_CWORD]=$LAST; _runsh_completion ./run.sh; echo "${COMPREPLY[@]}"'
        script = subprocess.run(
            [sys.executable, "-m", "tools.cli", "completion", "bash"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

        def complete(words: str, last: str) -> set[str]:
            environment = os.environ | {"SCRIPT": script, "WORDS": words, "LAST": last}
            done = subprocess.run(
                ["bash", "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
            )
            return set(done.stdout.split())

        assert complete("./run.sh", "eva") == {"evaluate"}
        assert {"--shape", "--state-dir"} <= complete("./run.sh load", "--s")
        assert complete("./run.sh load --shape", "s") == set(SHAPES)


class TestClone:
    """A clone without `.venv`: help installs nothing and acts on nothing."""

    @pytest.fixture
    def clone(self, tmp_path: Path) -> Path:
        for file in ("run.sh", "docs/reference/cli.md", "src/recsys/__init__.py"):
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, tmp_path / file)
        shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
        # A Python that would act is not found: PATH holds none.
        (tmp_path / "bin").mkdir()
        for tool in ("bash", "dirname", "readlink", "env", "cksum", "cat", "grep", "sed", "flock"):
            (tmp_path / "bin" / tool).symlink_to(shutil.which(tool) or tool)
        return tmp_path

    def environment(self, clone: Path) -> dict[str, str]:
        return {"PATH": str(clone / "bin")}

    def run(self, clone: Path, *words: str) -> subprocess.CompletedProcess[str]:
        before = sorted(clone.rglob("*"))
        done = subprocess.run(
            ["bash", "run.sh", *words],
            cwd=clone,
            env=self.environment(clone),
            capture_output=True,
            text=True,
            check=False,
        )
        assert sorted(clone.rglob("*")) == before
        return done

    @pytest.mark.parametrize("verb", VERBS)
    def test_help_of_a_verb_is_printed(self, clone, verb):
        """It is the section of the reference, with every option."""
        for words in ([verb, "--help"], ["help", verb], [verb, "--state-dir", "x", "--help"]):
            done = self.run(clone, *words)
            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout.startswith(f"### {verb}\n")
            assert done.stdout.count("###") == 1
            for parameter in VERBS[verb].params:
                assert all(name in done.stdout for name in parameter.opts if name.startswith("--") and name != "--help")

    @pytest.mark.parametrize("words", [[], ["help"], ["--help"], ["-h"]])
    def test_help_lists_the_verbs(self, clone, words):
        """With a line for each."""
        done = self.run(clone, *words)
        assert (done.returncode, done.stderr) == (0, "")
        assert all(f"`{verb}`" in done.stdout for verb in VERBS)
        assert "###" not in done.stdout

    def test_the_version_is_printed(self, clone):
        """Without Python."""
        assert self.run(clone, "--version").stdout == f"{__version__}\n"

    def test_a_link_and_a_relative_path_lead_to_the_clone(self, clone):
        """A link to `run.sh` runs the clone that it points to, and CDPATH leads to no other folder."""
        (clone / "links").mkdir()
        (clone / "links" / "recsys").symlink_to(clone / "run.sh")
        (clone / "links" / clone.name).mkdir()
        for script in ("links/recsys", f"../{clone.name}/run.sh", f"{clone.name}/run.sh"):
            done = subprocess.run(
                ["bash", script, "--version"],
                cwd=clone if script != f"{clone.name}/run.sh" else clone.parent,
                env=self.environment(clone) | {"CDPATH": str(clone / "links")},
                capture_output=True,
                text=True,
                check=False,
            )
            assert (done.stdout, done.stderr) == (f"{__version__}\n", "")

    def test_an_unknown_verb_installs_nothing(self, clone):
        """It is a wrong argument."""
        done = self.run(clone, "fly")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == "./run.sh: no such verb 'fly'; see ./run.sh --help\n"

    @pytest.mark.parametrize("words", [["up"], ["model", "check"], ["train", "--to", "s3://models/films"]])
    def test_help_installs_nothing_into_an_environment(self, clone, words):
        """A verb whose main packages are installed does not install the others for its help."""
        key = 'echo "local $({ echo "$PWD"; cat requirements/local.txt; } | cksum)"'
        (clone / ".venv" / "bin").mkdir(parents=True)
        (clone / ".venv" / ".installed").write_text(subprocess.check_output(["bash", "-c", key], cwd=clone, text=True))
        (clone / ".venv" / "bin" / "python").write_text('#!/usr/bin/env bash\necho "$@"\n')
        (clone / ".venv" / "bin" / "python").chmod(0o755)
        done = self.run(clone, *words, "--help")
        assert (done.stdout, done.stderr) == (f"-m tools.cli {' '.join(words)} --help\n", "")

    def test_a_closed_input_and_output_are_no_failure(self, clone):
        """As in a script that starts a command with `>&-`."""
        closings = [" ".join(some) for count in (1, 2, 3) for some in combinations(("<&-", ">&-", "2>&-"), count)]
        for words, code in (("--version", 0), ("fly", 2)):
            for closing in closings:
                command = ["bash", "-c", f"exec bash run.sh {words} {closing}"]
                done = subprocess.run(command, cwd=clone, env=self.environment(clone), capture_output=True, check=False)
                assert done.returncode == code, (words, closing)
                assert bool(done.stderr) == (code == 2 and "2>&-" not in closing), (closing, done.stderr)

    def test_one_command_at_a_time_installs(self, clone):
        """A command that starts while another installs says so, and waits before it looks for a Python."""
        command = ["bash", "run.sh", "status"]
        with (clone / "run.sh").open() as script:
            fcntl.flock(script, fcntl.LOCK_EX)
            waiting = subprocess.Popen(
                command, cwd=clone, env=self.environment(clone), stderr=subprocess.PIPE, text=True
            )
            assert waiting.stderr is not None
            assert waiting.stderr.readline() == "another ./run.sh installs into .venv; waiting for it\n"
            assert waiting.poll() is None
        assert waiting.communicate()[1].startswith("Python 3.11 or newer is needed")


def test_a_closed_output_is_no_failure_with_a_traceback():
    """As with `| head`."""
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m tools.cli completion bash | true; exit ${{PIPESTATUS[0]}}"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode in {0, 141}
    assert "Traceback" not in done.stderr


def test_a_verb_imports_only_its_own_work():
    """The help of all verbs needs none of the packages that make a verb slow to start."""
    program = (
        "import sys; from tools.cli.verbs import main; status = main(['up', '--help']);"
        "sys.exit(status or ', '.join({'numpy', 'scipy', 'httpx', 'locust', 'ssl'} & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("flag", ["--fused", "--direct", "--exposures"])
def test_the_zero_mode_has_manifests_of_its_own(flag: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Flags that need other manifests are refused before anything is trained."""
    assert main(["up", "--zero", flag, "--state-dir", str(tmp_path)]) == 2
    assert "--zero goes without --fused, --direct and --exposures" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [["users", "erase"], ["users", "show"], ["recommend"]], ids=" ".join)
def test_an_argument_that_is_no_text_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A user's id is text. The message shows the bytes."""
    assert main([*words, os.fsdecode(b"ann\xe9")]) == 2
    assert capsys.readouterr().err == (
        "./run.sh: the argument 'ann\\\\xe9' is not UTF-8; correct it, or rename the file\n"
    )
