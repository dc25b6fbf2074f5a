"""The written form of a thing with options."""

import math

import pytest

from sdcore.errors import InputError
from sdcore.written import Written, format, parse

READ = {
    "euler": Written("euler"),
    " DPM++ 2M Karras ": Written("DPM++ 2M Karras"),
    "DPM++ 2M Karras:euler_at_final=1": Written("DPM++ 2M Karras", {"euler_at_final": 1}),
    "heun_churn:s_churn=10, s_noise=1.003": Written(
        "heun_churn", {"s_churn": 10, "s_noise": 1.003}
    ),
    "comfyui:dpm_2": Written("comfyui:dpm_2"),
    "comfyui:dpm_2:eta=1": Written("comfyui:dpm_2", {"eta": 1}),
    "sigmas:14.6,2,0": Written("sigmas:14.6,2,0"),
    "timesteps:999,500": Written("timesteps:999,500"),
    "x:a=true,b=False,c=none,d=inf,e=-1e-3": Written(
        "x", {"a": True, "b": False, "c": None, "d": math.inf, "e": -1e-3}
    ),
    "x:a='true',b='1,2',c=\"it's\",d=half way": Written(
        "x", {"a": "true", "b": "1,2", "c": "it's", "d": "half way"}
    ),
    "unipc:disable_corrector=[0,1],solver_type=bh1": Written(
        "unipc", {"disable_corrector": (0, 1), "solver_type": "bh1"}
    ),
    "x:a=[],b=['p,q',r]": Written("x", {"a": (), "b": ("p,q", "r")}),
    "x:a=": Written("x", {"a": ""}),
    "x:weights=other.py": Written("x", {"weights": "other.py"}),
    "mine.py": Written("", {}, "mine.py"),
    "mine.py:Mine": Written("Mine", {}, "mine.py"),
    "mine.py:Mine,scale=3": Written("Mine", {"scale": 3}, "mine.py"),
    "mine.py:scale=3": Written("", {"scale": 3}, "mine.py"),
    r"C:\my solvers\mine.py": Written("", {}, r"C:\my solvers\mine.py"),
    r"C:\my solvers\mine.py:Mine,path=C:\x": Written(
        "Mine", {"path": r"C:\x"}, r"C:\my solvers\mine.py"
    ),
    "../a.b/über.py:Löser": Written("Löser", {}, "../a.b/über.py"),
}


@pytest.mark.parametrize("text", READ)
def test_a_text_is_read(text: str) -> None:
    assert parse(text) == READ[text]
    for key, value in READ[text].options.items():  # 1 == True, but they are written differently
        assert type(parse(text).options[key]) is type(value)


@pytest.mark.parametrize("text", READ)
def test_what_was_read_is_written_and_read_again(text: str) -> None:
    written = parse(text)
    assert parse(format(written)) == written
    assert str(written) == format(written)
    assert format(parse(format(written))) == format(written)


VALUES = (
    0, -7, 1.5, 1e-300, 0.1 + 0.2, math.inf, -math.inf, True, False, None, "", "text", "two words",
    "3", "none", "True", "a,b=c", "it's", 'say "so"', "[1]", "back\\slash", "line\nfeed", "inf",
    " padded ", (1, 2.5), (), ("a,b", None), ("]",),
)  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
@pytest.mark.parametrize("file", [None, "mine.py"])
def test_every_value_survives(value: object, file: str | None) -> None:
    written = Written("Name", {"first": value, "then": 1}, file)
    assert repr(parse(format(written))) == repr(written)


@pytest.mark.parametrize(
    "text", ["", "  ", ":a=1", "x:a=1,b", "x:a=1,,b=2", "x:a=1,", "x:a=1,a=2", "x:a=[1,b=2",
             "mine.py:", "mine.py:Mine,", "mine.py:Mine,3", "mine.py:Mine scale=3", "x" * 20_000,
             "x:a='1'2"],
)  # fmt: skip
def test_what_cannot_be_read_is_told_in_a_line(text: str) -> None:
    with pytest.raises(InputError) as error:
        parse(text)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    "written",
    [Written("a:b=c"), Written("mine.py"), Written(""), Written(" euler"), Written("x", {"a b": 1}),
     Written("Mine", {}, "mine.txt"), Written("", {}, "a:b=c/mine.py")],
)  # fmt: skip
def test_what_would_be_read_as_something_else_is_not_written(written: Written) -> None:
    with pytest.raises(InputError):
        format(written)
