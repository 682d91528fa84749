import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

import linear_regression

EXACT = {"slope": 0.25999, "intercept": 0.74767, "mse": 0.16892}  # the exact line through the notes' points


def run(tmp_path, *arguments):
    return linear_regression.main([*arguments, "--out-dir", str(tmp_path / "out")])


def descend(line, steps, lr=linear_regression.LEARNING_RATE):
    """Compute with the formula, in float64, where `steps` steps of gradient descent take a line.

    A step is line -> line - lr * (H line - g), so it multiplies the distance to the exact line by (1 - lr H).
    """
    columns = np.column_stack([linear_regression.X, np.ones(15)])
    exact = np.linalg.lstsq(columns, np.array(linear_regression.Y), rcond=None)[0]
    shrink = np.eye(2) - lr * 2 * columns.T @ columns / 15
    return exact + np.linalg.matrix_power(shrink, steps) @ (line - exact)


def test_A2_exact_least_squares(tmp_path):
    exact = run(tmp_path, "--epochs", "1")["exact"]
    assert exact == pytest.approx(EXACT, abs=5e-6)
    slope, intercept = np.polyfit(linear_regression.X, linear_regression.Y, 1)
    assert (exact["slope"], exact["intercept"]) == pytest.approx((slope, intercept))


@pytest.mark.parametrize("seed", [0, 1])
def test_A2_sixty_epochs_end_where_the_formula_says(tmp_path, seed, capsys):
    results = run(tmp_path, "--seed", str(seed))
    torch.manual_seed(seed)
    model = torch.nn.Linear(1, 1)
    expected = descend([model.weight.item(), model.bias.item()], 60)
    assert (results["slope"], results["intercept"]) == pytest.approx(tuple(expected), abs=1e-5)
    assert results["epochs"] == len(results["train_loss"]) == 60  # as in the notes
    assert results["train_loss"] == sorted(results["train_loss"], reverse=True)
    assert results["train_loss"][-1] > results["mse"] > results["exact"]["mse"]
    # It prints every fifth loss, and then the two lines.
    printed = capsys.readouterr().out
    found = re.findall(r"epoch +(\d+)/60 +loss (.*)", printed)
    assert [int(epoch) for epoch, _ in found] == list(range(5, 61, 5))
    losses = [float(loss) for _, loss in found]
    assert losses == pytest.approx(results["train_loss"][4::5], rel=1e-3)
    for name, line in (("gradient descent", results), ("least squares", results["exact"])):
        numbers = re.search(rf"{name} +slope (.*) +intercept (.*) +mse (.*)", printed).groups()
        assert [float(number) for number in numbers] == pytest.approx([line[key] for key in EXACT], rel=1e-4)


def test_A2_many_more_epochs_come_within_one_percent(tmp_path):
    # This takes a twentieth of 30,000 steps, with a twenty times larger rate.
    results = run(tmp_path, "--lr", "0.02", "--epochs", "1500", "--seed", "1")
    assert {key: results[key] for key in EXACT} == pytest.approx(EXACT, rel=0.01)


@pytest.mark.parametrize(("flags", "grows"), [("--lr 0.03", True), ("--lr 0.02 --epochs 2500", False)])
def test_A2_too_large_a_rate_makes_the_loss_grow(flags, grows, tmp_path):
    results = run(tmp_path, *flags.split())
    assert (results["mse"] > results["train_loss"][0]) == grows
    assert results["mse"] >= results["exact"]["mse"]  # No line is better than the exact one.


def test_A2_a_loss_that_is_not_finite_stops_before_the_old_weights_are_lost(tmp_path):
    weights = run(tmp_path)["files"]["weights"].read_bytes()
    for flags in (["--lr", "1"], ["--lr", "1e38", "--epochs", "1"]):  # The second fails in its only step.
        with pytest.raises(SystemExit, match=r"error: the training loss is no longer .* a smaller --lr"):
            run(tmp_path, *flags)
    assert (tmp_path / "out" / "linear.pt").read_bytes() == weights


def test_A2_state_dict_and_picture_are_saved(tmp_path):
    results = run(tmp_path)
    state = torch.load(results["files"]["weights"], weights_only=True)
    assert state["weight"].item() == results["slope"]
    assert state["bias"].item() == results["intercept"]
    assert set(results["files"].values()) == set((tmp_path / "out").iterdir())


def test_A2_picture_holds_the_points_and_both_lines(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.gca()))
    run(tmp_path, "--epochs", "5")
    assert shown == [] == plt.get_fignums()  # There is no window without --show.
    results = run(tmp_path, "--show")
    points, fitted, exact = shown[0].get_lines()
    np.testing.assert_allclose(points.get_xydata().T, [linear_regression.X, linear_regression.Y])
    ends = exact.get_transform().transform([(0, 0), (1, 1)])
    ends = shown[0].transData.inverted().transform(ends)
    for xy, line in ((fitted.get_xydata(), results), (ends, results["exact"])):
        assert np.polyfit(*np.asarray(xy).T, 1) == pytest.approx((line["slope"], line["intercept"]))


def test_E5_one_loss_is_not_the_sum_of_five(tmp_path):
    results = run(tmp_path, "--epochs", "5")
    after_four = run(tmp_path, "--epochs", "4")["mse"]
    assert results["train_loss"][-1] == pytest.approx(after_four)
    assert sum(results["train_loss"]) > 5 * after_four
