import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

import linear_regression

EXACT = {"slope": 0.25999, "intercept": 0.74767, "mse": 0.16892}  # the notes' points, once solved


def run(tmp_path, *arguments):
    return linear_regression.main([*arguments, "--out-dir", str(tmp_path / "out")])


def descend(line, steps, lr=linear_regression.LEARNING_RATE):
    """Where `steps` steps of gradient descent take a line, by the formula, in float64.

    A step is line -> line - lr * (H line - g), so the distance to the exact line is multiplied
    by (1 - lr H) each time.
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


def test_A2_notes_points_and_hyperparameters():
    assert list(zip(linear_regression.X, linear_regression.Y, strict=True)) == [
        (3.3, 1.7),
        (4.4, 2.76),
        (5.5, 2.09),
        (6.71, 3.19),
        (6.93, 1.694),
        (4.168, 1.573),
        (9.779, 3.366),
        (6.182, 2.596),
        (7.59, 2.53),
        (2.167, 1.221),
        (7.042, 2.827),
        (10.791, 3.465),
        (5.313, 1.65),
        (7.997, 2.904),
        (3.1, 1.3),
    ]
    assert (linear_regression.EPOCHS, linear_regression.LEARNING_RATE) == (60, 0.001)


@pytest.mark.parametrize("seed", [0, 1])
def test_A2_sixty_epochs_end_where_the_formula_says(tmp_path, seed, capsys):
    results = run(tmp_path, "--seed", str(seed))
    torch.manual_seed(seed)
    model = torch.nn.Linear(1, 1)
    expected = descend([model.weight.item(), model.bias.item()], 60)
    assert (results["slope"], results["intercept"]) == pytest.approx(tuple(expected), abs=1e-5)
    assert results["epochs"] == len(results["train_loss"]) == 60
    assert results["train_loss"] == sorted(results["train_loss"], reverse=True)
    assert results["train_loss"][-1] > results["mse"] > results["exact"]["mse"]
    (gap,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("the gap")]
    keys = ("slope", "intercept", "mse")
    differences = [results[key] - results["exact"][key] for key in keys]
    assert [float(word) for word in gap.split()[2:]] == pytest.approx(differences, rel=1e-3)


def test_A2_30000_epochs_come_within_one_percent_for_any_seed(tmp_path):
    results = run(tmp_path, "--epochs", "30000", "--seed", "1")
    assert results["slope"] == pytest.approx(EXACT["slope"], rel=0.01)
    assert results["intercept"] == pytest.approx(EXACT["intercept"], rel=0.01)
    assert results["mse"] == pytest.approx(EXACT["mse"], rel=1e-4)
    # nn.Linear(1, 1) starts within -1...1, and the gap is linear in the start: corners are worst.
    for corner in ([-1, -1], [-1, 1], [1, -1], [1, 1]):
        slope, intercept = descend(corner, 30000)
        assert slope == pytest.approx(EXACT["slope"], rel=0.005)
        assert intercept == pytest.approx(EXACT["intercept"], rel=0.005)


def test_A2_loss_is_printed_every_5_epochs(tmp_path, capsys):
    results = run(tmp_path)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
    assert [int(line.split()[1].partition("/")[0]) for line in lines] == list(range(5, 61, 5))
    printed = [float(line.split()[-1]) for line in lines]
    assert printed == pytest.approx(results["train_loss"][4::5], rel=1e-3)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--epochs", "5"], "steps not yet taken"),
        (["--lr", "0.02", "--epochs", "1500"], "Within 1 %"),
        (["--lr", "0.03"], "did not fall"),
    ],
)
def test_A2_what_it_says_of_the_gap(flags, words, tmp_path, capsys):
    run(tmp_path, *flags)
    assert words in capsys.readouterr().out


def test_A2_state_dict_and_picture_are_saved(tmp_path):
    results = run(tmp_path)
    state = torch.load(results["files"]["weights"], weights_only=True)
    assert state["weight"].item() == results["slope"]
    assert state["bias"].item() == results["intercept"]
    height, width = plt.imread(results["files"]["fit"]).shape[:2]
    assert width >= 800 and height >= 400
    assert set(results["files"].values()) == set((tmp_path / "out").iterdir())
    assert not plt.get_fignums()


def test_A2_picture_holds_the_points_and_both_lines(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(plt, "get_backend", lambda: "qtagg")
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.gca().get_lines()))
    results = run(tmp_path, "--show")
    ((points, fitted, exact),) = shown
    np.testing.assert_allclose(points.get_xydata().T, [linear_regression.X, linear_regression.Y])
    for line, wanted in ((fitted, results), (exact, results["exact"])):
        x, y = np.asarray(line.get_xydata()).T
        assert np.polyfit(x, y, 1) == pytest.approx((wanted["slope"], wanted["intercept"]))


def test_no_window_without_show(tmp_path, monkeypatch):
    monkeypatch.setattr(plt, "show", lambda: pytest.fail("a window without --show"))
    run(tmp_path, "--epochs", "5")


def test_show_where_no_window_opens(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(plt, "get_backend", lambda: "agg")
    with pytest.raises(SystemExit) as stop:
        run(tmp_path, "--epochs", "5", "--show")
    assert "--show" in stop.value.code and "\n" not in stop.value.code
    assert (tmp_path / "out" / "linear-fit.png").is_file()


def test_E5_one_loss_is_not_the_sum_of_five(tmp_path):
    notes = "Epoch [{}/{}], Loss[:.4f]"
    assert notes.format(5, 60, 1.2345) == "Epoch [5/60], Loss[:.4f]"
    results = run(tmp_path, "--epochs", "5")
    after_four = run(tmp_path, "--epochs", "4")["mse"]
    assert results["train_loss"][-1] == pytest.approx(after_four)
    assert sum(results["train_loss"]) > 5 * after_four


def test_E32_a_target_of_the_wrong_shape_gives_a_wrong_number():
    targets = torch.tensor(linear_regression.Y)
    outputs = torch.zeros(15, 1)
    with pytest.warns(UserWarning, match="target size"):
        wrong = torch.nn.functional.mse_loss(outputs + targets.unsqueeze(1), targets)
    assert wrong > 0.5  # the right number is 0


def test_same_seed_same_numbers(tmp_path):
    first, again, other = (run(tmp_path, "--seed", seed) for seed in ("3", "3", "4"))
    assert first == again
    assert first["train_loss"] != other["train_loss"]


def test_steps_too_long_are_told_not_crashed_on(tmp_path, capsys):
    results = run(tmp_path, "--lr", "0.03")
    assert results["mse"] > 1e20
    assert "--lr" in capsys.readouterr().out
    assert np.isnan(run(tmp_path, "--lr", "1")["slope"])


def test_ctrl_c_saves_what_was_learned(tmp_path, monkeypatch, capsys):
    step, steps = torch.optim.SGD.step, []

    def interrupted(optimizer):
        if len(steps) == 10:
            raise KeyboardInterrupt
        steps.append(step(optimizer))

    monkeypatch.setattr(torch.optim.SGD, "step", interrupted)
    with pytest.raises(SystemExit) as stop:
        run(tmp_path)
    assert stop.value.code == 130
    weights = tmp_path / "out" / "linear.pt"
    assert str(weights) in capsys.readouterr().out
    monkeypatch.undo()
    ten = run(tmp_path / "ten", "--epochs", "10")
    assert torch.load(weights, weights_only=True)["weight"].item() == ten["slope"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--epochs", "0"],
        ["--epochs", "many"],
        ["--lr", "nan"],
        ["--lr", "0"],
        ["--seed", "-1"],
        ["--device", "gpu"],
        ["--unknown"],
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        run(tmp_path, *arguments)
    message = capsys.readouterr().err + (stop.value.code if stop.value.code != 2 else "")
    assert stop.value.code != 0
    assert len(message.splitlines()) == 1 and arguments[0] in message
    assert not any(tmp_path.glob("out/*"))


def test_out_dir_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="error: cannot write to --out-dir"):
        linear_regression.main(["--out-dir", str(tmp_path / "file" / "out")])
