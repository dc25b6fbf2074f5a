"""Defaults from files: which counts, what is refused and where it says so, what ignores them."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sdcore.cli import main
from sdcore.cli.commands import cli
from sdcore.cli.defaults import defaults_of, takes_defaults
from sdcore.config_file import config_files, open_config, user_file
from sdcore.errors import InputError
from sdcore.images import read_settings
from tests.cli.shell import Shell, pixels

Chosen = dict[str, Any]
USER, PROJECT = "home/sdcore/config.yaml", "sdcore.yaml"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's folder of its own, and the files that lie there count."""
    monkeypatch.delenv("SDCORE_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", "home")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def chosen() -> Callable[..., Chosen]:
    """The defaults of a command, with these texts as the user's and the project's file."""

    def of(
        project: str = "", user: str = "", name: str = "sample", presets: Any = (), given: Any = (),
        environment: dict[str, str] | None = None, **more: Any,
    ) -> Chosen:  # fmt: skip
        for path, text in ((USER, user), (PROJECT, project)):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_text(text)
        around = {"XDG_CONFIG_HOME": "home"} | (environment or {})
        files = config_files(environment=around, **more)
        found = defaults_of(name, cli.commands, files, presets, given, around)
        return {key: each.raw for key, each in found.items()}

    return of


LAYERS = ("user", "user", "project", "project", "environment", "preset")  # weakest first
LINES = ("steps: 1", "sample: {steps: 2}", "steps: 3", "sample: {steps: 4}", "5",
         "presets: {a: {steps: 6}}")  # fmt: skip


@pytest.mark.parametrize(
    "there", [each for n in range(1, 7) for each in itertools.combinations(range(6), n)]
)
def test_the_stronger_layer_counts(chosen: Callable[..., Chosen], there: tuple[int, ...]) -> None:
    texts = {
        where: "\n".join(LINES[n] for n in there if LAYERS[n] in wheres)
        for where, wheres in (("user", ("user", "preset")), ("project", ("project",)))
    }
    environment = {"SDCORE_SAMPLE_STEPS": LINES[4]} if 4 in there else {}
    presets = ("a",) if 5 in there else ()
    found = chosen(**texts, environment=environment, presets=presets)
    assert found == {"steps": (str(there[-1] + 1),)}


def test_the_command_line_counts_most(shell: Shell) -> None:
    Path(PROJECT).write_text("steps: 3\nseed: 5\nout: mine\nformat: webp\npresets: {p: {steps: 4}}")
    model = ("--model", shell.model)

    def steps(*more: object) -> int:
        path = shell("sample", "red", *model, *more).paths[0]
        assert path.parent.name == "mine"
        assert path.suffix == ".webp"
        return read_settings(path).steps

    assert steps() == 3
    assert steps("--preset", "p") == 4
    assert steps("--preset", "p", "--steps", 2) == 2
    assert read_settings(Path("mine/red-5.webp")).steps == 3


def test_a_list_is_several_values_and_the_command_line_replaces_it(shell: Shell) -> None:
    Path(PROJECT).write_text("scheduler: [euler, heun]\nsteps: 2\nseed: 0")
    assert len(shell("sample", "red", "--model", shell.model).paths) == 2
    drawn = shell("sample", "red", "--model", shell.model, "--scheduler", "ddim").paths
    assert [read_settings(path).scheduler for path in drawn] == ["ddim"]


def test_a_value_that_is_out_of_range_is_told_with_its_file_and_line(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(PROJECT).write_text("seed: 1\nsteps: 0\npresets: {p: {eta: -1}}")
    model = ("--model", shell.model)
    zero = shell("sample", "red", *model)
    assert zero.status == 2
    assert zero.err.rstrip().endswith("(steps: sdcore.yaml, line 2)")
    own = shell("sample", "red", *model, "--steps", 0)  # it is the command line's
    assert own.status == 2
    assert "sdcore.yaml" not in own.err
    preset = shell("sample", "red", *model, "--steps", 1, "--scheduler", "ddim", "--preset", "p")
    assert preset.err.rstrip().endswith("(eta: preset p (sdcore.yaml, line 3))")
    Path(USER).parent.mkdir(parents=True)
    Path(USER).write_text("serve:\n  batch: 0\n")
    assert shell("serve").err.rstrip().endswith(f"(batch: {USER}, line 2)")
    monkeypatch.setenv("SDCORE_SAMPLE_WIDTH", "7")
    width = shell("sample", "red", *model, "--steps", 1)
    assert "(width: environment SDCORE_SAMPLE_WIDTH)" in width.err


def test_rerun_ignores_every_file(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = shell.sample("red", "--seed", 1, "--out", "a.png").paths[0]
    Path(PROJECT).write_text("steps: 3\ncfg: 2\nscheduler: heun\nseed: 9\nnegative: blue\nout: b")
    monkeypatch.setenv("SDCORE_RERUN_STEPS", "4")
    again = shell("rerun", drawn, "--out", "again.png").paths[0]
    assert again.read_bytes() == drawn.read_bytes()
    Path(PROJECT).write_text("nonsense: {")
    assert shell("rerun", drawn, "--out", "again.png").status == 0
    changed = shell.sample("red", "--seed", 1, "--out", "c.png", "--no-config").paths[0]
    assert pixels(changed) == pixels(drawn)


def test_types_are_the_options_own(chosen: Callable[..., Chosen]) -> None:
    text = "eta: 1e-4\nseed: 0-3\ncfg: 5\nnegative: no\nsheet: yes\ncrop: 0,0\nlora: [a:1, b]"
    assert chosen(text) == {
        "eta": ("1e-4",), "seed": ("0-3",), "cfg": ("5",), "negative": ("no",), "sheet": "yes",
        "crop": ("0,0",), "loras": ("a:1", "b"),
    }  # fmt: skip


def test_names_of_the_example_and_of_other_tools(chosen: Callable[..., Chosen]) -> None:
    text = "model: picturebook\nresolution: 768x512\nnum_inference_steps: 30\nguidance_scale: 7.5"
    assert chosen(text) == {
        "model": ("picturebook",), "width": ("768",), "height": ("512",), "steps": ("30",),
        "cfg": ("7.5",),
    }  # fmt: skip
    assert chosen("resolution: 512")["height"] == ("512",)
    assert chosen("sample: {width: 64}\nresolution: 512")["width"] == ("64",)


def test_a_command_takes_what_it_has(chosen: Callable[..., Chosen]) -> None:
    text = "model: a\nsteps: 30\nsheet: true\nsample: {cfg: 3}\nlikelihood: {cfg: 1}"
    assert chosen(text, name="likelihood") == {"model": "a", "steps": "30", "cfg": "1"}


def test_the_same_word_for_another_thing_is_left_alone(chosen: Callable[..., Chosen]) -> None:
    text = "model: a\nsteps: 30\nout: pictures\nseed: 4\nresolution: 64"
    drawn = {"model": ("a",), "steps": ("30",), "width": ("64",), "height": ("64",)}
    assert chosen(text) == drawn | {"out": "pictures", "seed": ("4",)}
    assert chosen(text, name="train").keys() == {"model"}
    inverted = chosen(text + "\ninvert: {seed: 5}", name="invert")
    assert inverted == {"model": "a", "steps": "30", "width": "64", "height": "64", "seed": "5"}


def test_null_is_the_way_back(chosen: Callable[..., Chosen]) -> None:
    assert chosen("steps: null\ncfg: ~", user="steps: 30\ncfg: 3\nseed: 1") == {"seed": ("1",)}
    assert chosen("out: null", user="out: there") == {}  # and so the one that is built in


def test_an_alternative_goes_with_what_is_weaker(chosen: Callable[..., Chosen]) -> None:
    assert chosen("sigmas: '9,1,0'", user="spacing: karras") == {"sigmas": ("9,1,0",)}
    assert chosen("spacing: karras", given=["timesteps"]) == {}
    image = "image: a.png\n"
    assert "strength" in chosen(image + "strength: 0.3\nfit: pad")
    assert chosen(image + "start_step: 2", user="strength: 0.3").keys() == {"image", "start_step"}
    # What says how one starts from a picture is idle where there is none.
    assert chosen("strength: 0.3\nfit: pad\nmask_blur: 2") == {}
    assert chosen("strength: 0.3", given=["image"]) == {"strength": ("0.3",)}


def test_resolution_and_environment(chosen: Callable[..., Chosen]) -> None:
    environment = {"SDCORE_SAMPLE_NEGATIVE": "two words", "SDCORE_SAMPLE_NO_MARK": "1"}
    assert chosen(environment=environment) == {"negative": ("two words",), "no_mark": "1"}
    served = chosen(name="serve", environment={"SDCORE_SERVE_MODELS": "a:b"})
    assert served == {"models": ("a", "b")}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nstpes: 3", "sdcore.yaml, line 1: unknown option 'a'"),
        ("steps: 3\nstpes: 3", "sdcore.yaml, line 2: unknown option 'stpes': did you mean"),
        ("sample:\n  steps: 3\n  cgf: 1", "line 3: unknown option of sample 'cgf': did you mean"),
        ("smaple: {steps: 3}", "line 1: unknown command or key 'smaple': did you mean"),
        ("rerun: {steps: 3}", "line 1: rerun takes no defaults from a file"),
        ("presets: {a: {stpes: 3}}", "line 1: unknown option 'stpes': did you mean"),
        ("steps: 7.9", "sdcore.yaml, line 1: steps: '7.9' is not a valid integer"),
        ("steps: seven", "sdcore.yaml, line 1: steps: 'seven' is not a valid integer"),
        ("sample: {cfg: high}", "sdcore.yaml, line 1: cfg: 'high' is not a valid float"),
        ("sheet: maybe", "line 1: sheet: 'maybe' is not a valid boolean"),
        ("format: gif", "line 1: format: 'gif' is not one of"),
        ("fallback: steps", "line 1: fallback: --fallback allows a smaller picture"),
        ("target_size: 5", "line 1: target_size: --target-size is written like 1024x768"),
        ("resolution: 1x2x3", "line 1: resolution is written like 512 or 768x512"),
        ("out: [a, b]", "line 1: out takes one value, and no list"),
        ("steps: 3\nsteps: 4", "sdcore.yaml, line 2: steps stands in line 1 too"),
        ("steps: 3\ndefaults: {steps: 4}", "line 2: steps also stands at sdcore.yaml, line 1"),
        ("cfg: 3\ncfg_scale: 4", "line 2: cfg_scale is cfg of sdcore.yaml, line 1 once more"),
        ("steps: {a: 1}", "unknown command or key 'steps'"),
        ("scheduler: [[a]]", "line 1: scheduler is a list of more than texts and numbers"),
        ("sample: [1]", "unknown option 'sample'"),
        ("presets: 3", "line 1: keys and values belong here"),
        ("help: true", "unknown option 'help'"),
        ("no_config: yes", "unknown option 'no_config'"),
        ("scheduler: mine.py", "line 1: scheduler names a file of code, 'mine.py'"),
        ("guidance: cfg+Mine.PY:A", "names a file of code"),
        ("filter: [mine.py]", "filter names a file of code"),
        ("sample: {noise: mine.py}", "names a file of code"),
        ("image: //host/share/a.png", "names a place on another machine"),
        ("model: nobody/nothing-of-this-name", "is not here: it is fetched only where you name it"),
        ("serve: {host: 0.0.0.0}", None),
    ],
)  # fmt: skip
def test_what_a_file_may_not_say(
    chosen: Callable[..., Chosen], text: str, message: str | None
) -> None:
    name = "sample" if message is not None else "serve"
    with pytest.raises(InputError) as caught:
        chosen(text, name=name)
    assert (message or "line 1: host says how others reach this machine") in str(caught.value)


def test_the_own_file_may_name_code_and_the_rest(chosen: Callable[..., Chosen]) -> None:
    text = "scheduler: mine.py\nserve: {host: 0.0.0.0}\npresets: {p: {guidance: mine.py}}"
    assert chosen(user=text) == {"scheduler": ("mine.py",)}
    assert chosen(user=text, presets=["p"])["guidance"] == ("mine.py",)
    assert chosen(user=text, name="serve")["host"] == "0.0.0.0"
    with pytest.raises(InputError, match="names a file of code"):
        chosen("presets: {p: {guidance: mine.py}}", presets=["p"])
    assert chosen("negative: a mine.py", user="") == {"negative": ("a mine.py",)}


def test_presets(chosen: Callable[..., Chosen]) -> None:
    user = "presets:\n  a: {steps: 1, cfg: 2}\n  b: {steps: 3}"
    assert chosen(user=user, presets=["a", "b"]) == {"steps": ("3",), "cfg": ("2",)}
    # One preset is one thing: of two files the stronger's, whole.
    assert chosen("presets: {a: {eta: 1}}", user=user, presets=["a"]) == {"eta": ("1",)}
    with pytest.raises(InputError, match=r"unknown preset 'c': known are a, b \(home"):
        chosen(user=user, presets=["c"])


def test_which_files_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("mine.yaml").write_text("steps: 3")
    Path(PROJECT).write_text("steps: 4")

    def paths(*args: Any, **environment: str) -> list[str]:
        return [str(file.path) for file in config_files(*args, environment=environment)]

    monkeypatch.setattr(Path, "home", lambda: Path("/h"))
    assert paths() == ["/h/.config/sdcore/config.yaml", PROJECT]
    assert paths(XDG_CONFIG_HOME="x") == ["x/sdcore/config.yaml", PROJECT]
    assert paths("mine.yaml", SDCORE_CONFIG="other.yaml") == ["mine.yaml"]
    assert paths(SDCORE_CONFIG="mine.yaml") == ["mine.yaml"]
    assert paths(SDCORE_CONFIG="") == paths(None, True) == []
    monkeypatch.setattr("sys.platform", "darwin")
    assert user_file({}) == Path("/h/Library/Application Support/sdcore/config.yaml")
    for wrong in ("none.yaml", "."):
        with pytest.raises(InputError, match=r"no configuration file|cannot read"):
            config_files(wrong)
    with pytest.raises(InputError, match="give one"):
        config_files("mine.yaml", True)
    Path("bytes.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="no UTF-8 text"):
        open_config(Path("bytes.yaml"), "file")


def test_an_environment_variable_that_names_nothing(chosen: Callable[..., Chosen]) -> None:
    with pytest.raises(InputError, match="'SDCORE_SAMPLE_STPES': did you mean SDCORE_SAMPLE_STEPS"):
        chosen(environment={"SDCORE_SAMPLE_STPES": "3"})
    with pytest.raises(InputError, match="environment SDCORE_SAMPLE_STEPS: steps: 'x' is not"):
        chosen(environment={"SDCORE_SAMPLE_STEPS": "x"})


def test_config_prints_every_value_and_its_origin(
    shell: Shell, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(PROJECT).write_text("# mine\nsteps: 3\npresets: {p: {cfg: 4}}")
    monkeypatch.setenv("SDCORE_SAMPLE_SEED", "5")
    told = [" ".join(str(line).split()) for line in shell("config", "--preset", "p").paths]
    assert told[:2] == [
        f"user file: {USER} (not there)",
        "project file: sdcore.yaml; presets p",
    ]
    for line in (
        "steps 3 sdcore.yaml, line 2",
        "cfg 4 preset p (sdcore.yaml, line 3)",
        "seed 5 environment SDCORE_SAMPLE_SEED",
        "scheduler - the model's own",
        "out out built in",
        "sheet no built in",
    ):
        assert line in told
    asked = {option.opts[0][2:] for option in cli.commands["sample"].params
             if option.param_type_name == "option" and option.expose_value}  # fmt: skip
    names = {line.split()[0] for line in told[4:]}
    assert names == asked - {"save-preset"}
    with pytest.raises(SystemExit):
        main(["config", "serve", "--json"])
    report = json.loads(capfd.readouterr().out)
    assert report["values"]["port"] == {"value": 7860, "origin": "built in"}
    assert report["values"]["key"] == {"value": None, "origin": "built in"}


def test_config_tells_where_a_servers_key_comes_from_and_not_the_key(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDCORE_API_KEY", "my secret")
    monkeypatch.setenv("SDCORE_SERVE_MAX_BODY", "1000")
    told = [" ".join(str(line).split()) for line in shell("config", "serve").paths]
    assert "key set environment SDCORE_API_KEY" in told
    assert "max-body 1000 environment SDCORE_SERVE_MAX_BODY" in told
    monkeypatch.setenv("SDCORE_SERVE_KEY_FILE", "key.txt")
    told = " ".join(map(str, shell("config", "serve").paths))
    assert "secret" not in told
    assert "that of the file" in told


def test_config_of_what_takes_none(shell: Shell) -> None:
    assert "rerun takes no defaults from files" in shell("config", "rerun").err
    assert "did you mean sample?" in shell("config", "smaple").err


def test_a_preset_is_saved_and_drawn_with(shell: Shell) -> None:
    Path(USER).parent.mkdir(parents=True)
    Path(USER).write_text("# mine, and it stays\nsteps: 9  # so\n")
    drawn = shell.sample(
        "red", "--seed", 3, "--negative", "a: 'b' \U0001f3e0", "--cfg", 2, "--cfg", 3, "--sheet",
         "--out", "o", "--save-preset", "mine",
    )  # fmt: skip
    assert (drawn.status, len(drawn.paths)) == (0, 3)
    assert f"preset mine saved in {USER}" in drawn.err
    text = Path(USER).read_text()
    assert text.startswith("# mine, and it stays\nsteps: 9  # so\n")
    again = shell("sample", "red", "--preset", "mine", "--out", "again")
    for old, new in zip(drawn.paths, again.paths, strict=True):
        assert old.read_bytes() == new.read_bytes()
    only = shell("sample", "--steps", 4, "--save-preset", "other")
    assert (only.status, only.paths) == (0, [])
    assert [*open_config(Path(USER), "user file").presets] == ["other", "mine"]
    assert (
        "is in home/sdcore/config.yaml already"
        in shell("sample", "--steps", 4, "--save-preset", "mine").err
    )


@pytest.mark.parametrize(
    ("before", "args", "message"),
    [
        ("presets: {a: {steps: 3}}", ["--steps", "4"], "in braces: add the preset by hand"),
        ("", [], "keeps the options of this command line: give some"),
        ("", ["--steps", "4", "--no-config"], "no file to save it in"),
        ("presets:\n", ["--steps", "4"], ""),
        ("presets:\n      a:\n        steps: 3", ["--steps", "4"], ""),
    ],
)
def test_where_a_preset_can_be_saved(
    shell: Shell, before: str, args: list[str], message: str
) -> None:
    Path(USER).parent.mkdir(parents=True)
    Path(USER).write_text(before)
    result = shell("sample", *args, "--save-preset", "new")
    assert result.status == (2 if message else 0)
    assert message in result.err
    if message:
        assert Path(USER).read_text() == before
    else:
        assert "new" in open_config(Path(USER), "user file").presets


def test_a_broken_file_does_not_hide_the_help(shell: Shell) -> None:
    Path(PROJECT).write_text("steps: {")
    assert shell("sample", "--help").status == 0
    failed = shell("sample", "red")
    assert failed.status == 2
    assert failed.err.startswith("sdcore: sdcore.yaml, line ")
    assert failed.err.count("\n") == 1
    assert shell("--no-config", "plan", "--scheduler", "euler", "--steps", "3").status == 0


def test_every_command_but_those_of_a_file() -> None:
    without = {n for n, c in cli.commands.items() if not takes_defaults(n, c)}
    assert {"rerun", "resume", "config"} <= without
    assert {"sample", "serve", "plan", "likelihood"}.isdisjoint(without)
