"""Tableaux held to the order conditions, and their methods to the order, in every variable."""

import itertools
import math
from decimal import Decimal, localcontext
from functools import partial

import pytest
import torch

from sdcore.errors import InputError
from sdcore.lab import Gaussian, Mixture
from sdcore.lab.order import measure
from sdcore.lab.order_conditions import Tree, broken_condition, gamma, trees
from sdcore.sampling import Prediction, State, sample
from sdcore.schedulers import TABLE, resolve
from sdcore.schedulers.solvers.runge_kutta import VARIABLES, runge_kutta
from sdcore.schedulers.tableau import FOLDER, TABLEAUX, Tableau, parse, read

Exact = tuple[list[list[Decimal]], dict[int, list[Decimal]]]  # a; b by order


def printed(name: str) -> Exact:
    """The numbers as they stand in the file, before they are rounded to floats."""
    lines = (FOLDER / f"{name}.tableau").read_text().splitlines()
    above, _, below = "\n".join(line for line in lines if "|" in line or "-+-" in line).partition(
        "-+-"
    )
    rows = [line.partition("|") for line in above.splitlines() if "|" in line]
    b = [line.partition("|") for line in below.splitlines() if "|" in line]

    def number(text: str) -> Decimal:
        over, _, under = text.partition("/")
        return Decimal(over) / Decimal(under or 1)

    a = [list(map(number, row.split())) for _, _, row in rows]
    return a, {int(order): list(map(number, row.split())) for order, _, row in b}


def defects(a: list[list[Decimal]], b: list[Decimal], nodes: int) -> float:
    """The most that is left of the order conditions of so many nodes (Butcher 2016, 315A)."""
    known: dict[Tree, list[Decimal]] = {}

    def weights(tree: Tree) -> list[Decimal]:
        """prod over the branches of sum_j a_ij weights_j, for each stage i."""
        if tree not in known:
            inner = [weights(branch) for branch in tree]
            known[tree] = [
                math.prod(
                    (sum(map(Decimal.__mul__, row, each), Decimal(0)) for each in inner),
                    start=Decimal(1),
                )
                for row in a
            ]
        return known[tree]

    return max(
        abs(float(sum(map(Decimal.__mul__, b, weights(tree))) - 1 / Decimal(gamma(tree))))
        for tree in trees(nodes)
    )


def test_trees() -> None:
    counts = [1, 1, 2, 4, 9, 20, 48, 115, 286, 719]
    assert [len(trees(order)) for order in range(1, 11)] == counts
    assert sorted(map(gamma, trees(4))) == [4, 8, 12, 24]


@pytest.mark.parametrize("name", TABLEAUX)
def test_order_conditions(name: str) -> None:
    """Both methods of a pair are of the orders that the file says, and of no higher one."""
    with localcontext() as context:
        context.prec = 40
        a, methods = printed(name)
        for order, b in methods.items():
            assert max(defects(a, b, nodes) for nodes in range(1, order + 1)) < 1e-14
            assert order == 10 or defects(a, b, order + 1) > 1e-7
    tableau = TABLEAUX[name]
    assert [tableau.order, *[tableau.embedded_order][: len(methods) - 1]] == list(methods)
    assert broken_condition(tableau) == ""


def test_a_method_that_claims_too_much() -> None:
    """A slip that leaves the sums of its rows and of b: sum b c = 4/9, and not 1/2."""
    rows = "Typo\n0 |\n1/2 | 1/2\n3/4 | 0 3/4\n---+---\n"
    slip = parse(f"{rows}3 | 3/9 2/9 4/9", "slip.tableau")
    assert broken_condition(slip) == "the method claims order 3, and is off by 0.056 in order 2"
    pair = parse(f"{rows}3 | 2/9 1/3 4/9\n2 | 3/9 2/9 4/9", "slip.tableau")
    assert (
        broken_condition(pair)
        == "the embedded method claims order 2, and is off by 0.056 in order 2"
    )
    assert broken_condition(parse(f"{rows}3 | 2/9 1/3 4/9", "right.tableau")) == ""


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        *itertools.product(TABLEAUX, ("sigma", "lambda")),
        *itertools.product(
            ("rk4", "sdirk3", "verner6"), sorted(VARIABLES.keys() - {"sigma", "lambda"})
        ),
    ],
)
def test_the_order_is_reached(name: str, variable: str) -> None:
    order = TABLEAUX[name].order
    counts = (40, 80) if order < 5 else (20, 40) if order < 8 else (8, 16)
    solver = partial(runge_kutta, tableau=name, variable=variable)
    found = measure(name, solver, counts=counts, claimed=order, rounding=False)
    assert found.order >= order - 0.35, found


@pytest.mark.parametrize("name", ["implicit_midpoint", "crank_nicolson", "sdirk2", "sdirk3"])
def test_each_iteration_is_one_order(name: str) -> None:
    """Up to the tableau's own; and they end at what solves the implicit equations."""
    order = TABLEAUX[name].order
    for iterations in range(1, order + 1):
        solver = partial(runge_kutta, tableau=name, iterations=iterations)
        found = measure(name, solver, counts=(40, 80), rounding=False)
        assert abs(found.order - min(iterations + 1, order)) < 0.35, (iterations, found)
    many, more = (
        list(sample(Mixture(), X, (1.5, 1.3), partial(runge_kutta, tableau=name, iterations=n)))
        for n in (60, 61)
    )
    assert (many[0].x_next - more[0].x_next).abs().max() < 1e-14


def test_with_one_iteration_less_they_are_explicit() -> None:
    """Which is why the default has that one, that the order does not need."""
    ours, theirs = (
        list(sample(Mixture(), X, SIGMAS, resolve(name).solver))[-1].x_next
        for name in ("implicit_midpoint:iterations=1", "midpoint")
    )
    assert torch.equal(ours, theirs)


def test_an_implicit_one_that_claims_no_order_is_asked_all_the_same() -> None:
    """Its one iteration is the explicit midpoint rule."""
    ours, theirs = (
        list(sample(Mixture(), X, SIGMAS, partial(runge_kutta, tableau=tableau)))[-1].x_next
        for tableau in (Tableau(((0.5,),), (1.0,)), "midpoint")
    )
    assert torch.equal(ours, theirs)


def test_the_implicit_midpoint_rule_solves_its_equation() -> None:
    """x' = x + (sigma' - sigma) eps((x + x') / 2, the middle): Gauss' rule of one stage."""
    solver = partial(runge_kutta, tableau="implicit_midpoint", iterations=60)
    (step,) = sample(Mixture(), X, (1.5, 1.2), solver)
    eps = Mixture()((X + step.x_next) / 2, 1.35).eps
    assert (step.x_next - X - (1.2 - 1.5) * eps).abs().max() < 1e-14


X = torch.linspace(-3, 3, 8, dtype=torch.float64).reshape(1, 1, 2, 4)
NAMED = [entry for entry in TABLE if entry.tableau and entry.solver is not runge_kutta]


def test_which_solvers_are_tableaux() -> None:
    names = {"heun", "dpm2", "dpm2_a", "dpmpp_2s", "dpmpp_2s_a", "dpmpp_sde", "seeds_2"}
    assert {entry.name for entry in NAMED} == names


@pytest.mark.parametrize("entry", NAMED, ids=lambda entry: entry.name)
def test_a_solver_is_the_tableau_that_it_names(entry) -> None:
    tableau, _, variable = entry.tableau.partition(" in ")
    quiet = resolve(entry.name, eta=0.0 if entry.eta is not None else None).solver
    generic = partial(runge_kutta, tableau=tableau, variable=variable)
    pairs = zip(
        sample(Mixture(), X, SIGMAS, quiet), sample(Mixture(), X, SIGMAS, generic), strict=True
    )
    for ours, theirs in pairs:
        assert (ours.x_next - theirs.x_next).abs().max() < 2e-15 * (1 + ours.sigma)
        assert ours.nfe == theirs.nfe


def test_heun_along_the_flow_is_a_tableau_too() -> None:
    ours = sample(Mixture(), X, SIGMAS, resolve("heun:variable=s").solver)
    theirs = sample(Mixture(), X, SIGMAS, partial(runge_kutta, tableau="heun", variable="s"))
    assert max((a.x_next - b.x_next).abs().max() for a, b in zip(ours, theirs, strict=True)) < 1e-14


SIGMAS = (8.0, 3.0, 1.1, 0.2, 0.0)


@pytest.mark.parametrize(("variable", "constant"), [("lambda", "x0"), ("lambda_eps", "eps")])
@pytest.mark.parametrize("name", TABLEAUX)
def test_exponential_forms_are_exact_for_a_constant(
    name: str, variable: str, constant: str
) -> None:
    """In one step, however long: what is constant is integrated exactly."""

    def world(x: torch.Tensor, sigma: float) -> Prediction:
        held = torch.full_like(x, 0.7)
        if constant == "x0":
            return Prediction(held, (x - held) / sigma)
        return Prediction(x - sigma * held, held)

    solver = partial(runge_kutta, tableau=name, variable=variable)
    (step,) = sample(world, X, (40.0, 0.5), solver)
    exact = 0.7 + (X - 0.7) * (0.5 / 40) if constant == "x0" else X + (0.5 - 40) * 0.7
    assert (step.x_next - exact).abs().max() < 1e-9 * 40


# Files of one's own

RALSTON = "Ralston 1962\n# with the least error\n0 |\n2/3 | 2/3\n----+-----\n2 | 1/4 3/4\n"


def test_a_file_of_ones_own(tmp_path) -> None:
    file = tmp_path / "mine.tableau"
    file.write_text(RALSTON)
    assert read(file) == TABLEAUX["ralston"]
    scheduler = resolve(f"{file}:variable=lambda")
    ours, theirs = (
        list(sample(Mixture(), X, SIGMAS, solver))[-1].x_next
        for solver in (scheduler.solver, resolve("ralston:variable=lambda").solver)
    )
    assert torch.equal(ours, theirs)
    assert scheduler.written == f"{file}:variable=lambda"
    assert (scheduler.name, scheduler.entry.order, scheduler.entry.nfe) == ("mine", 2, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("2/3 | 2/3", "2/3 | 3/4"), "line 4: c is 2/3, and the a add up to 0.75"),
        (("2/3 | 2/3", "2/3 | two"), "line 4: 'two' is no number like"),
        (("2/3 | 2/3", "2 | 2"), "line 4: c is 0 to 1: the model is asked between the ends"),
        (("2/3 | 2/3", "-1/3 | -1/3"), "line 4: c is 0 to 1"),
        (("2/3 | 2/3", "2/3 | 2/0"), "line 4: '2/0' is no number"),
        (("2/3 | 2/3", "2/3 | 1/3 1/6 1/6"), "line 4: stage 2 asks for later ones"),
        (("1/4 3/4", "1/4 1/4"), "line 6: the b add up to 1, and not to 0.5"),
        (("1/4 3/4", "1/4 1/4 1/2"), "line 6: 3 b, and 2 stages"),
        (("2 | 1/4", "b | 1/4"), "line 6: the order, before the"),
        (("----+-----", ""), "a tableau has 1 to 64 rows"),
        (("2/3 | 2/3", "2/3 2/3"), "line 4: a row of a tableau is written"),
        (("Ralston", "x" * 70000), "longer than 65,536 letters"),
        (("2/3 | 2/3", "nan | nan"), "is no number"),
        (("2/3 | 2/3", "1e99 | 1e99 -1e999"), "is no number"),
    ],
)
def test_a_file_that_is_none(change: tuple[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(RALSTON.replace(*change), "mine.tableau")


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (((), (1.0, 2.0, 3.0)), (0.5, 0.5), "row i"),
        (((),), (0.5,), "add up to 1"),
        ((), (), "add up"),
        (((), (math.inf,)), (0.5, 0.5), "finite"),
        (((), (2.0,)), (0.75, 0.25), "c is 0 to 1"),
        (((), (-0.5,)), (2.0, -1.0), "c is 0 to 1"),
    ],
)
def test_what_is_no_tableau(a: tuple, b: tuple, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Tableau(a, b)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tableau": "rk5"}, "unknown tableau 'rk5': known are bosh3"),
        ({"iterations": 2}, "iterations are for implicit tableaux"),
        ({"rtol": 0.1}, "rtol needs a tableau with an embedded method: bosh3, dopri5"),
    ],
)
def test_options_that_do_not_fit(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        next(sample(Gaussian(), torch.zeros(1), (2.0, 1.0), partial(runge_kutta, **options)))


# Step control

PAIRS = [name for name, known in TABLEAUX.items() if known.embedded and not known.is_blind]


@pytest.mark.parametrize("variable", ["sigma", "lambda", "s"])
@pytest.mark.parametrize("name", PAIRS)
def test_the_error_follows_the_tolerance(name: str, variable: str) -> None:
    x = torch.linspace(-9, 9, 8, dtype=torch.float64).reshape(1, 1, 2, 4)
    exact, ends, guesses, asked = Mixture().flow(x, 8.0, 0.1), [], [], []
    for rtol in (1e-3, 1e-6):
        solver = partial(runge_kutta, tableau=name, variable=variable, rtol=rtol, atol=rtol / 10)
        (step,) = sample(Mixture(), x, (8.0, 0.1), solver)
        ends.append((step.x_next - exact).abs().max().item())
        asked.append(step.nfe)
        assert step.memory[0].kind == "error"
        guesses.append(step.memory[0].value.max().item())
    assert ends[1] < 2e-5 < ends[0] < 0.05
    assert asked[0] < asked[1]
    assert guesses[1] < 3e-4
    assert guesses[1] < guesses[0] < 0.2


def test_a_pair_that_sees_no_error_is_told() -> None:
    """Feagin's compares two stages at c = 1/10: its tolerance bounds nothing."""
    assert [name for name, known in TABLEAUX.items() if known.is_blind] == ["feagin10"]
    x = torch.linspace(-9, 9, 8, dtype=torch.float64).reshape(1, 1, 2, 4)
    solver = partial(runge_kutta, tableau="feagin10", rtol=1e-6, atol=1e-7)
    (step,) = sample(Mixture(), x, (8.0, 0.1), solver)
    off = (step.x_next - Mixture().flow(x, 8.0, 0.1)).abs().max()
    assert off > 10 * step.memory[0].value.max()
    told = resolve("feagin10:rtol=0.01").entry
    assert (told.adaptive, "rtol is no bound" in told.caution) == (True, True)
    for name in ("feagin10", "tsit5:rtol=0.01", "euler"):
        assert resolve(name).entry.caution == ""


def test_a_picture_takes_its_own_steps() -> None:
    """Each of a batch ends as it does alone, and its memos are its own."""
    x = torch.tensor([0.02, 3.0], dtype=torch.float64).reshape(2, 1, 1, 1)
    solver = partial(runge_kutta, tableau="dopri5", rtol=1e-4, atol=1e-4)
    both = list(sample(Mixture(), x, (10.0, 0.1, 0.0), solver))
    for i in range(2):
        alone = list(sample(Mixture(), x[i : i + 1], (10.0, 0.1, 0.0), solver))
        for ours, theirs in zip(both, alone, strict=True):
            assert torch.equal(ours.x_next[i : i + 1], theirs.x_next)
            for memo, other in zip(ours.memory, theirs.memory, strict=True):
                assert torch.equal(memo.value[i : i + 1], other.value)
    lengths = both[0].memory[1].value.flatten()
    assert lengths[0] != lengths[1]


def test_it_is_gone_on_with_from_a_file(tmp_path) -> None:
    solver = resolve("tsit5:rtol=0.001,atol=0.001").solver
    x = torch.cat([X, 3 * X]).float()
    whole = list(sample(Mixture(), x, SIGMAS, solver))
    whole[1].state.save(tmp_path / "state.safetensors")
    state = State.load(tmp_path / "state.safetensors")
    rest = sample(Mixture(), state, SIGMAS, solver)
    for ours, theirs in zip(rest, whole[2:], strict=True):
        assert torch.equal(ours.x_next, theirs.x_next)


def test_the_first_slope_of_a_step_is_the_last_of_the_one_before() -> None:
    """Dormand and Prince's seventh stage is where the next step begins: 6 evaluations each, and one
    for the length of the first."""
    solver = partial(runge_kutta, tableau="dopri5", rtol=1e-6, atol=1e-6)
    (step,) = sample(Gaussian(0.3, 0.5), X, (4.0, 1.0), solver)
    assert (step.nfe - 2) % 6 == 0
    assert step.nfe > 8


def test_step_control_ends_with_one_line() -> None:
    solver = partial(runge_kutta, tableau="bosh3", rtol=1e-7, atol=1e-9, most_steps=20)
    with pytest.raises(InputError, match=r"20 steps were tried, and \d+\.\d% of the interval"):
        next(sample(Mixture(), X, (8.0, 0.1), solver))


def test_step_control_leaves_what_is_no_number() -> None:
    nan = lambda x, sigma: Prediction(x * math.nan, x * math.nan)  # noqa: E731
    (step,) = sample(nan, X, (8.0, 0.1), partial(runge_kutta, tableau="dopri5", rtol=0.1))
    assert step.x_next.isnan().all()
    assert step.nfe == 8


def test_into_sigma_0_with_step_control() -> None:
    """In one interval from noise to the picture: to least_sigma, and then x0."""
    solver = partial(runge_kutta, tableau="tsit5", rtol=1e-5, atol=1e-5, least_sigma=1e-3)
    (step,) = sample(Mixture(), 3 * X, (8.0, 0.0), solver)
    assert (step.x_next - Mixture().flow(3 * X, 8.0, 1e-9)).abs().max() < 2e-3
    back = list(
        sample(Mixture(), X, (0.0, 0.5, 4.0), partial(runge_kutta, tableau="tsit5", rtol=0.1))
    )
    assert back[0].nfe == 1
    assert back[1].x_next.isfinite().all()


def test_step_control_goes_up_too() -> None:
    solver = partial(runge_kutta, tableau="dopri5", rtol=1e-6, atol=1e-7)
    (step,) = sample(Mixture(), X, (0.1, 8.0), solver)
    assert (step.x_next - Mixture().flow(X, 0.1, 8.0)).abs().max() < 1e-4


def test_every_law_with_step_control() -> None:
    """What holds of every solver (sdcore/lab/laws.py); a step's length counts as a number."""
    from sdcore.lab import laws
    from sdcore.lab.setting import Setting

    solver = partial(runge_kutta, tableau="bosh3", rtol=0.01, atol=0.01)
    run = Setting(resolve("euler", "karras").plan(3).sigmas)
    for name, law in laws.LAWS.items():
        law = partial(law, limit=2e-2) if law is laws.passes_gradients else law
        assert law(solver, run) is None, name
    assert laws.exact_for_constant_eps(solver, run) is None
