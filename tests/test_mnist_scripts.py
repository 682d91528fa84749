"""logistic_regression.py, nn_demo.py and cnn_mnist.py, end to end on tiny data."""

import time

import pytest
import torch

import cnn_mnist
import logistic_regression
import nn_demo

# script, model, flags with which 600 drawn digits are learned in seconds, parameters, accuracy
LESSONS = {
    "A3-logistic": (logistic_regression, "LogisticRegression", "--lr 0.1 --epochs 30", 7_850, 0.9),
    "A4-mlp": (nn_demo, "NeuralNet", "--epochs 8", 397_510, 0.95),
    "A5-convnet": (cnn_mnist, "ConvNet", "--epochs 3 --batch-size 50", 29_034, 0.95),
    "A7-lenet": (
        cnn_mnist,
        "LeNet",
        "--model lenet --epochs 25 --batch-size 25 --lr 0.005",
        44_426,
        0.9,
    ),
    "A8-resnet": (
        cnn_mnist,
        "ResNet",
        "--model resnet --epochs 4 --batch-size 20 --limit 300",
        11_178_378,
        0.9,
    ),
}


@pytest.mark.parametrize("lesson", LESSONS)
def test_learns(lesson, mnist_dir, tmp_path, device):
    script, model, flags, parameters, accuracy = LESSONS[lesson]
    flags = flags.split()
    out_dir = tmp_path / "new" / "folder"
    common = ["--data-dir", str(mnist_dir), "--device", device, "--out-dir", str(out_dir)]
    start = time.perf_counter()
    results = script.main([*flags, *common])
    assert sum(results["train_seconds"]) < time.perf_counter() - start
    epochs = int(flags[flags.index("--epochs") + 1])
    assert results["dataset"] == "mnist"
    assert results["device"] == device
    assert results["epochs"] == epochs
    assert results["parameters"] == parameters
    assert all(
        len(results[name]) == epochs for name in ("train_loss", "test_accuracy", "train_seconds")
    )
    assert results["train_loss"][-1] < 0.5 * results["train_loss"][0]
    assert results["test_accuracy"][-1] >= accuracy
    assert all(seconds > 0 for seconds in results["train_seconds"])
    if lesson == "A8-resnet":
        assert results["shapes"]["stem.0"] == (1, 64, 112, 112)  # of 224x224, as in the notebook
    for file in results["files"].values():
        assert file.parent == out_dir
        assert file.stat().st_size > 1000
        if file.suffix == ".png":
            assert file.read_bytes().startswith(b"\x89PNG")

    # The saved file alone gives the same accuracy again.
    model = getattr(script, model)()
    model.load_state_dict(torch.load(results["files"]["weights"], weights_only=True))
    _, _, _, images, labels = script.load_data("mnist", mnist_dir, None, torch.device("cpu"))
    again = script.evaluate(model, images, labels)
    assert again == pytest.approx(results["test_accuracy"][-1], abs=0.01 if device == "cuda" else 0)


@pytest.mark.parametrize("script", [logistic_regression, nn_demo, cnn_mnist])
def test_same_seed_same_numbers(script, mnist_dir, tmp_path):
    def run(name, seed):
        flags = ["--data-dir", str(mnist_dir), "--epochs", "2", "--limit", "200", "--device", "cpu"]
        return script.main([*flags, "--seed", seed, "--out-dir", str(tmp_path / name)])

    first, again, other = run("first", "3"), run("again", "3"), run("other", "4")
    assert first["train_loss"] == again["train_loss"]
    assert first["test_accuracy"] == again["test_accuracy"]
    weights, weights_again = (torch.load(run["files"]["weights"]) for run in (first, again))
    assert all(torch.equal(weights[name], weights_again[name]) for name in weights)
    assert first["train_loss"] != other["train_loss"]


def test_notes_hyperparameters_are_the_defaults():
    for script in (logistic_regression, nn_demo, cnn_mnist):
        args = script.make_parser().parse_args([])
        assert (args.batch_size, args.lr, args.seed, args.limit) == (100, 0.001, 0, None)
    assert logistic_regression.EPOCHS["mnist"] == nn_demo.EPOCHS["mnist"] == 5
    assert {model: epochs["mnist"] for model, epochs in cnn_mnist.EPOCHS.items()} == {
        "convnet": 5,
        "lenet": 5,
        "resnet": 1,
    }


def test_logistic_regression_is_one_weighted_sum_per_digit():
    model, images = logistic_regression.LogisticRegression(), torch.rand(3, 1, 28, 28)
    by_hand = images.reshape(3, 784) @ model.linear.weight.T + model.linear.bias
    torch.testing.assert_close(model(images), by_hand)


def test_mlp_is_two_linear_layers_with_relu_between():
    model, images = nn_demo.NeuralNet(), torch.rand(3, 1, 28, 28)
    hidden = (images.reshape(3, 784) @ model.fc1.weight.T + model.fc1.bias).clamp(min=0)
    assert hidden.shape == (3, 500)
    torch.testing.assert_close(model(images), hidden @ model.fc2.weight.T + model.fc2.bias)


def test_train_one_epoch_is_the_five_lines_of_the_notes(mnist_dir):
    """The same model, trained by hand on the same batches, ends at the same weights and loss."""
    cpu = torch.device("cpu")
    _, images, labels, _, _ = nn_demo.load_data("mnist", mnist_dir, 130, cpu)
    torch.manual_seed(0)
    model, by_hand = nn_demo.NeuralNet(), nn_demo.NeuralNet()
    by_hand.load_state_dict(model.state_dict())
    criterion = torch.nn.CrossEntropyLoss()

    loader = nn_demo.make_loader(images, labels, batch_size=50)
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    mean_loss = nn_demo.train_one_epoch(model, loader, criterion, optimizer)

    torch.manual_seed(1)
    total = 0
    for batch, truth in loader:
        loss = criterion(by_hand(batch), truth)
        total += loss.item() * len(batch)
        by_hand.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in by_hand.parameters():
                parameter -= 0.1 * parameter.grad
    assert mean_loss == pytest.approx(total / 130, rel=1e-5)
    for parameter, other in zip(model.parameters(), by_hand.parameters()):
        torch.testing.assert_close(parameter, other)


def test_loader_shows_every_image_once_with_its_label_in_a_new_order():
    images = torch.arange(230.0).view(-1, 1, 1, 1).expand(-1, 1, 28, 28)
    loader = logistic_regression.make_loader(images, torch.arange(230), batch_size=100)
    epochs = []
    for _ in range(2):
        batches = [(batch[:, 0, 0, 0], truth) for batch, truth in loader]
        assert [len(truth) for _, truth in batches] == [100, 100, 30]
        assert all(torch.equal(pixels.long(), truth) for pixels, truth in batches)
        epochs.append(torch.cat([truth for _, truth in batches]))
        assert sorted(epochs[-1].tolist()) == list(range(230))
    assert not torch.equal(*epochs)


def test_evaluate_is_the_fraction_right_and_leaves_training_alone():
    class LabelInTheCorner(torch.nn.Module):
        def forward(self, images):
            assert not self.training
            return torch.nn.functional.one_hot(images[:, 0, 0, 0].long(), 10).float()

    labels = torch.arange(2300) % 10
    images = torch.zeros(2300, 1, 28, 28)
    images[:, 0, 0, 0] = labels
    images[:23, 0, 0, 0] = (labels[:23] + 1) % 10
    assert logistic_regression.evaluate(LabelInTheCorner(), images, labels) == 2277 / 2300


@pytest.mark.parametrize("script", [logistic_regression, nn_demo, cnn_mnist])
def test_ctrl_c_keeps_what_was_learned(script, mnist_dir, tmp_path, monkeypatch, capsys):
    learned = []

    def press_ctrl_c(model, *data):
        learned[:] = [parameter.clone() for parameter in model.parameters()]
        raise KeyboardInterrupt  # not a real SIGINT: a shell's background jobs ignore that

    monkeypatch.setattr(script, "evaluate", press_ctrl_c)
    with pytest.raises(SystemExit) as stop:
        flags = ["--data-dir", str(mnist_dir), "--limit", "100", "--device", "cpu"]
        script.main([*flags, "--out-dir", str(tmp_path)])
    assert stop.value.code == 130
    (weights,) = tmp_path.glob("*.pt")
    assert str(weights) in capsys.readouterr().out
    saved = torch.load(weights, weights_only=True)
    assert all(any(torch.equal(p, value) for value in saved.values()) for p in learned)


@pytest.mark.parametrize("script", [logistic_regression, nn_demo, cnn_mnist])
def test_weights_of_a_gpu_load_where_there_is_none(script, mnist_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
    flags = ["--data-dir", str(mnist_dir), "--limit", "100", "--epochs", "1", "--device", "cpu"]
    weights = script.main([*flags, "--out-dir", str(tmp_path)])["files"]["weights"]
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="CUDA"):
            torch.load(weights, weights_only=True)


@pytest.mark.parametrize(("epochs", "lines"), [(1, 1), (5, 5), (100, 11), (205, 12)])
def test_one_line_an_epoch_or_about_ten(epochs, lines, capsys):
    results = {"epochs": epochs, "train_loss": [], "test_accuracy": [], "train_seconds": []}
    for _ in range(epochs):
        for name in ("train_loss", "test_accuracy", "train_seconds"):
            results[name].append(0.125)
        logistic_regression.print_epoch(results)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == lines
    assert printed[-1].startswith(f"epoch {epochs}/{epochs}")
    assert "0.1250" in printed[-1] and "12.50%" in printed[-1]
