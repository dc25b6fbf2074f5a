"""`sdcore schedulers`, `sdcore plan`, and the options of `sample` that lay a schedule."""

import json

import pytest
from click.testing import CliRunner

from sdcore.cli.commands import cli
from sdcore.errors import InputError
from sdcore.images import read_settings
from sdcore.schedulers import SPACINGS, TABLE, resolve
from sdcore.settings import Settings
from tests.plain_settings import PLAIN


def call(*arguments):
    result = CliRunner().invoke(cli, [str(each) for each in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


def test_the_list_names_every_scheduler():
    rows = json.loads(call("schedulers", "--json"))
    assert [row["name"] for row in rows] == [entry.name for entry in TABLE]
    text = call("schedulers")
    for entry in TABLE:
        assert all(name in text for name in (*entry.names, entry.paper))


def test_the_list_names_every_spacing():
    listed = json.loads(call("schedulers", "--spacings", "--json"))
    assert list(SPACINGS) == list(listed)[: len(SPACINGS)]
    assert "comfyui:beta" in listed
    assert all(name in call("schedulers", "--spacings") for name in SPACINGS)


def test_a_plan_of_more_questions_than_are_counted_is_refused():
    often = "restart:restarts=100,restart_steps=1000"
    with pytest.raises(InputError, match="more than 100000 times for one picture: ask for fewer"):
        call("plan", "--scheduler", often, "--steps", 20)


def test_a_plan_says_what_sampling_will_do():
    facts = json.loads(
        call("plan", "--scheduler", "heun", "--spacing", "karras", "--steps", 4, "--json")
    )
    plan = resolve("heun", "karras").plan(4)
    rows = facts["rows"]
    assert [row["sigma"] for row in rows] == list(plan.sigmas[:-1])
    assert [row["sigma_next"] for row in rows] == list(plan.sigmas[1:])
    assert [row["timestep"] for row in rows] == list(plan.timesteps)
    assert [row["nfe"] for row in rows] == [2, 2, 2, 1]
    assert rows[-1]["h"] is None  # infinite
    assert (facts["nfe"], facts["draws"], facts["order"]) == (7, 0, 2)
    assert facts["start_scale"] == plan.start_scale
    noisy = json.loads(call("plan", "--scheduler", "euler_a", "--steps", 4, "--json"))
    assert [row["draws"] for row in noisy["rows"]] == [1, 1, 1, 0]


def test_a_plan_as_a_table():
    text = call("plan", "--scheduler", "DPM++ 2M Karras", "--steps", "3")
    assert text.splitlines()[0].startswith("scheduler dpmpp_2m  spacing a1111:karras  tail zero")
    assert len(text.splitlines()) == 2 + 3


def test_a_plan_of_lists_and_of_a_models_config(tiny_path):
    facts = json.loads(call("plan", "--model", tiny_path, "--timesteps", "900,500,1", "--json"))
    assert facts["scheduler"] == "ddim"
    assert [row["timestep"] for row in facts["rows"]] == [900, 500, 1]
    assert facts["tail"] == "sigma_min"  # its set_alpha_to_one is false
    facts = json.loads(call("plan", "--sigmas", "5,3,0.5", "--json"))
    assert (facts["steps"], facts["rows"][-1]["sigma_next"]) == (2, 0.5)


def differences(*arguments):
    facts = json.loads(call("plan", *arguments, "--json"))
    return {d["what"].split(",")[0]: (d["ours"], d["theirs"]) for d in facts["like"]["differences"]}


def test_what_another_tool_would_do():
    found = differences("--scheduler", "dpmpp_2m", "--spacing", "karras", "--like", "a1111")
    assert found["spacing"] == ("karras", "a1111:karras")
    ours, theirs = found["starting scale"]
    assert ours / theirs == pytest.approx(1.002338, abs=1e-6)
    assert "noise" in found
    found = differences("--scheduler", "euler", "--spacing", "normal", "--like", "comfyui")
    assert all(
        theirs == int(theirs) for what, (_, theirs) in found.items() if what.startswith("t of")
    )
    found = differences("--scheduler", "euler", "--spacing", "kl_optimal", "--like", "a1111")
    assert found["last sigma"] == (0, pytest.approx(0.0291675, abs=1e-7))
    assert differences("--scheduler", "euler", "--spacing", "linspace", "--like", "diffusers") == {}


def test_another_tool_runs_the_nearest_spacing_that_it_has():
    for scheduler, tool, spacing in (
        ("lcm", "a1111", "a1111:lcm"),
        ("lcm", "comfyui", "comfyui:sgm_uniform"),
        ("ddim", "kdiffusion", "kdiffusion:normal"),
    ):
        found = differences("--scheduler", scheduler, "--steps", 4, "--like", tool)
        assert found["spacing"][1] == spacing


def test_whether_another_tool_has_the_scheduler(tmp_path):
    """A1111 runs DDIM by timestep, which is what diffusers does with `leading`: as here."""
    assert set(differences("--scheduler", "ddim", "--like", "a1111")) == {"noise"}
    own = tmp_path / "mine.py"
    own.write_text(
        "def solver(denoise, x, interval, memory, draw):\n"
        "    return x, denoise(x, interval.sigma), ()\n"
    )
    for scheduler in ("restart", "dpmpp_3m_taylor", own):
        assert differences("--scheduler", scheduler, "--like", "diffusers") == {
            "scheduler": (resolve(str(scheduler)).name, "none of that kind")
        }
    assert "scheduler" in differences("--scheduler", own, "--like", "comfyui")
    assert differences("--scheduler", "dpmpp_3m", "--like", "diffusers") == {}
    of_a_class = differences("--scheduler", "DPMSolverMultistepScheduler", "--like", "diffusers")
    assert of_a_class == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--spacing", "karras", "--sigmas", "3,1"), "--spacing and --sigmas both"),
        (("--sigmas", "3,1", "--timesteps", "3,1"), "--sigmas and --timesteps both"),
        (("--sigmas", "3,1", "--steps", "5"), "has 1 steps, and steps says 5"),
        (("--sigmas", "3,1", "--like", "a1111"), "same in every tool"),
        (("--spacing", "ays", "--like", "kdiffusion"), "k-diffusion has no spacing like ays, only"),
        (("--scheduler", "eulr"), "did you mean euler"),
    ],
)
def test_plans_that_cannot_be(arguments, message):
    with pytest.raises(InputError, match=message):
        call("plan", *arguments)


def test_a_picture_of_a_list_and_its_rerun(tiny_path, tmp_path):
    first, again, other = (tmp_path / f"{name}.png" for name in "abc")
    call("sample", "red", "--model", tiny_path, "--seed", 1, "--scheduler", "euler", "--sigmas",
         "14,6,2,0.5", "--out", first)  # fmt: skip
    settings = read_settings(first)
    assert (settings.spacing, settings.steps) == ("sigmas:14,6,2,0.5", 3)
    call("rerun", first, "--out", again)
    assert first.read_bytes() == again.read_bytes()
    call("rerun", first, "--timesteps", "900,400", "--tail", "sigma_min", "--out", other)
    settings = read_settings(other)
    assert (settings.spacing, settings.steps, settings.tail) == (
        "timesteps:900,400",
        2,
        "sigma_min",
    )


def test_a_picture_in_a_tools_way_and_its_rerun(tiny_path, tmp_path):
    first, again = tmp_path / "a.png", tmp_path / "b.png"
    call("sample", "red", "--model", tiny_path, "--seed", 1, "--scheduler", "DPM++ 2M Karras",
         "--steps", 3, "--tail", "discard_penultimate", "--out", first)  # fmt: skip
    settings = read_settings(first)
    assert (settings.scheduler, settings.spacing) == ("dpmpp_2m", "a1111:karras")
    call("rerun", first, "--out", again)
    assert first.read_bytes() == again.read_bytes()


def test_settings_without_a_tail_are_read():
    old = json.loads(PLAIN.to_json())
    del old["tail"]
    assert Settings.from_json(json.dumps(old)).tail is None
