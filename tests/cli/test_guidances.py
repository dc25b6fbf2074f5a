"""`sdcore guidances`: every guidance as it is written, and what it costs."""

import json

import click.testing

from sdcore.cli.commands import cli
from sdcore.guidance import GUIDANCES, branch_names, resolve


def printed(*args):
    result = click.testing.CliRunner().invoke(cli, ["guidances", *args], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_each_line_begins_with_what_can_be_typed():
    title, *lines = printed().splitlines()
    assert title.startswith("written, with its defaults")
    assert [line.split(":")[0] for line in lines] == list(GUIDANCES)
    for line, name in zip(lines, GUIDANCES, strict=True):
        written, nfe, paper, *_ = line.split()
        assert resolve(written) == resolve(name, scale=GUIDANCES[name].options.get("scale", 7.5))
        assert int(nfe) == len(branch_names(resolve(name), [1.0]))
        assert paper == "arXiv"
        assert GUIDANCES[name].paper in line


def test_as_json():
    rows = {row["name"]: row for row in json.loads(printed("--json"))}
    assert list(rows) == list(GUIDANCES)
    assert rows["interval"]["options"] == {"low": 0.0, "high": "inf"}
    assert rows["perp_neg"]["nfe"] == 3
    assert rows["pag"]["options"] == {"strength": 3.0, "layers": ["mid_block"]}
    for name, row in rows.items():
        assert row["paper"].startswith("arXiv 2"), name
