"""What logistic_regression.py, nn_demo.py and cnn_mnist.py learn with, part by part."""

import re
import sys
import types

import pytest
import torch
from matplotlib.figure import Figure
from torch.utils.data import DataLoader, TensorDataset

import cnn_mnist
import logistic_regression
import nn_demo

CPU = torch.device("cpu")


def no_picture(*_):
    """Instead of drawing, which takes longer than these trainings."""


def mnist(folder) -> list[TensorDataset]:
    """For training and for testing, as `main` makes them."""
    _, *parts = nn_demo.load_data("mnist", folder)
    return [TensorDataset(images.unsqueeze(1) / 255, labels) for images, labels in parts]


@pytest.mark.parametrize(
    ("model", "flags", "parameters"),
    [
        ("lenet", "--epochs 25 --batch-size 25 --lr 0.005", 44_426),  # A7
        ("resnet", "--epochs 4 --batch-size 20 --limit 300", 11_178_378),  # A8
    ],
)
def test_A7_A8_learns(model, flags, parameters, mnist_dir, tmp_path, device, capsys):
    common = ["--data-dir", str(mnist_dir), "--device", device, "--out-dir", str(tmp_path / "a/b")]
    results = cnn_mnist.main(["--model", model, *flags.split(), *common])
    assert f"), on {device}\n" in capsys.readouterr().out
    assert sum(parameter.numel() for parameter in cnn_mnist.MODELS[model][0]().parameters()) == parameters
    assert len(results["train_loss"]) == len(results["test_accuracy"]) == int(flags.split()[1])
    assert results["train_accuracy"][-1] >= 0.9 and results["test_accuracy"][-1] >= 0.9
    assert set(results["files"].values()) == set((tmp_path / "a/b").iterdir())

    # The saved file alone gives the same accuracy again.
    loaded = cnn_mnist.MODELS[model][0]()
    loaded.load_state_dict(torch.load(results["files"]["weights"], weights_only=True))
    again = cnn_mnist.evaluate(loaded, DataLoader(mnist(mnist_dir)[1], batch_size=100), CPU)
    assert again == pytest.approx(results["test_accuracy"][-1], abs=0.01 if device == "cuda" else 0)


@pytest.mark.parametrize("script", [logistic_regression, nn_demo, cnn_mnist])
def test_same_seed_same_numbers(script, mnist_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(Figure, "savefig", no_picture)

    def run(name, seed):
        flags = ["--data-dir", str(mnist_dir), "--epochs", "2", "--limit", "100", "--device", "cpu"]
        return script.main([*flags, "--seed", seed, "--out-dir", str(tmp_path / name)])

    first, again, other = run("first", "3"), run("again", "3"), run("other", "4")
    assert first["train_loss"] == again["train_loss"] != other["train_loss"]
    assert first["test_accuracy"] == again["test_accuracy"]


def test_A3_A4_A5_notes_hyperparameters_are_the_defaults():
    for script in (logistic_regression, nn_demo, cnn_mnist):
        args = script.make_parser(epochs="5").parse_args([])
        assert (args.batch_size, args.lr, args.seed, args.limit) == (100, 0.001, 0, None)
    epochs = [logistic_regression.EPOCHS, nn_demo.EPOCHS, cnn_mnist.MODELS["convnet"][1]]
    assert [by_dataset["mnist"] for by_dataset in epochs] == [5, 5, 5]


def test_A4_mlp_is_two_linear_layers_with_relu_between():
    model, images = nn_demo.NeuralNet(), torch.rand(3, 1, 28, 28)
    hidden = (images.reshape(3, 784) @ model.fc1.weight.T + model.fc1.bias).clamp(min=0)
    assert hidden.shape == (3, 500)
    torch.testing.assert_close(model(images), hidden @ model.fc2.weight.T + model.fc2.bias)


def test_one_epoch_is_the_five_lines_of_the_notes(mnist_dir):
    """The same model, trained by hand on the same batches, ends at the same weights and loss."""
    train_set = TensorDataset(*mnist(mnist_dir)[0][:130])
    torch.manual_seed(0)
    model, by_hand = nn_demo.NeuralNet(), nn_demo.NeuralNet()
    by_hand.load_state_dict(model.state_dict())
    criterion = torch.nn.CrossEntropyLoss()

    loader = DataLoader(train_set, batch_size=50, shuffle=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.manual_seed(1)
    returned = nn_demo.train_one_epoch(model, loader, criterion, optimizer, CPU)

    torch.manual_seed(1)
    total, right = 0, 0
    for images, labels in loader:
        logits = by_hand(images)
        loss = criterion(logits, labels)
        total += loss.item() * len(images)
        right += (logits.argmax(dim=1) == labels).sum().item()
        by_hand.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in by_hand.parameters():
                parameter -= 0.1 * parameter.grad
    assert returned == pytest.approx((total / 130, right / 130), rel=1e-5)
    for parameter, other in zip(model.parameters(), by_hand.parameters()):
        torch.testing.assert_close(parameter, other)


class Tiny(torch.nn.Sequential):
    """A stand-in for the three networks, to look at what main does around them."""

    def __init__(self):
        pool = torch.nn.AdaptiveAvgPool2d(1)
        super().__init__(torch.nn.Conv2d(1, 4, 3), pool, torch.nn.Flatten(), torch.nn.Linear(4, 10))


@pytest.mark.parametrize(("name", "second_rate"), [("convnet", 1), ("lenet", 1), ("resnet", 0.5)])
def test_A5_A8_only_resnet_decays(name, second_rate, mnist_dir, tmp_path, monkeypatch):
    monkeypatch.setitem(cnn_mnist.MODELS, name, (Tiny, *cnn_mnist.MODELS[name][1:]))
    for function in ("plot_curves", "plot_mistakes", "print_shapes"):
        monkeypatch.setattr(cnn_mnist, function, no_picture)
    flags = ["--data-dir", str(mnist_dir), "--limit", "20", "--batch-size", "20", "--device", "cpu"]
    biases = []
    for epochs in ("1", "2"):  # of one step each; Adam's first steps are about as long as the rate
        results = cnn_mnist.main([*flags, "--model", name, "--epochs", epochs, "--out-dir", str(tmp_path)])
        biases.append(torch.load(results["files"]["weights"])["3.bias"])
    step = (biases[1] - biases[0]).abs().max().item()
    assert step == pytest.approx(0.001 * second_rate, rel=0.1)


def test_the_two_checks_change_nothing_and_see_a_mistake(mnist_dir, capsys):
    train_set, _ = mnist(mnist_dir)
    torch.manual_seed(0)
    model = nn_demo.NeuralNet()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    criterion = torch.nn.CrossEntropyLoss()
    first, last = nn_demo.check(model, train_set, criterion, 0.001, CPU).values()
    assert torch.equal(torch.random.get_rng_state(), state)  # the run draws the same numbers
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    images, labels = train_set[:100]
    assert first == pytest.approx(criterion(model(images), labels).item(), rel=1e-5)
    assert last < 0.1
    assert f" {first:.3f}. " in (printed := capsys.readouterr().out) and f" {last:.3f}. " in printed
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)  # a model that cannot learn
    assert nn_demo.check(model, train_set, criterion, 0.001, CPU)["overfit_loss"] > 2


@pytest.mark.parametrize("script", [logistic_regression, nn_demo, cnn_mnist])
def test_main_trains_on_shuffled_batches_of_0_to_1_and_tests_on_the_others(script, mnist_dir, tmp_path, monkeypatch):
    """It is seen where they arrive: in train_one_epoch and evaluate."""
    seen = {"trained": [], "tested": []}

    def keep(part):
        def look(model, loader, *_):
            batches = list(loader)
            assert all(len(images) == 200 for images, _ in batches)
            seen[part].append([torch.cat(tensors) for tensors in zip(*batches)])
            return (0.5, 0.5) if part == "trained" and script != logistic_regression else 0.5

        return look

    monkeypatch.setattr(Figure, "savefig", no_picture)
    monkeypatch.setattr(script, "train_one_epoch", keep("trained"))
    monkeypatch.setattr(script, "evaluate", keep("tested"))
    monkeypatch.setattr(script, "check", lambda *_: {}, raising=False)
    flags = ["--data-dir", str(mnist_dir), "--epochs", "2", "--batch-size", "200"]
    script.main([*flags, "--out-dir", str(tmp_path), "--device", "cpu"])
    for part, dataset in zip(seen.values(), mnist(mnist_dir)):
        images, labels = dataset.tensors
        assert images.shape[1:] == (1, 28, 28) and images.dtype == torch.float32
        assert images.min() == 0 and images.max() == 1
        for epoch_images, epoch_labels in part:  # each image once, with its own label
            order, right = epoch_images.sum(dim=(1, 2, 3)).sort(), images.sum(dim=(1, 2, 3)).sort()
            assert torch.equal(order.values, right.values)
            assert torch.equal(epoch_labels[order.indices], labels[right.indices])
    first, second = (labels for _, labels in seen["trained"])
    assert not torch.equal(first, second)
    assert torch.equal(*(labels for _, labels in seen["tested"]))


def test_evaluate_is_the_fraction_right_and_leaves_training_alone():
    class LabelInTheCorner(torch.nn.Module):
        def forward(self, images):
            assert not self.training
            return torch.nn.functional.one_hot(images[:, 0, 0, 0].long(), 10).float()

    labels = torch.arange(230) % 10
    images = labels.float().view(230, 1, 1, 1).repeat(1, 1, 28, 28)
    images[:23] = (images[:23] + 1) % 10  # a tenth of them is wrong
    loader = DataLoader(TensorDataset(images, labels), batch_size=100)
    assert logistic_regression.evaluate(LabelInTheCorner(), loader, CPU) == 207 / 230


@pytest.mark.parametrize("script", [logistic_regression, nn_demo, cnn_mnist])
def test_a_loss_that_is_not_finite_stops_before_the_old_weights_are_lost(script, mnist_dir, tmp_path, monkeypatch):
    losses = [0.5, 0.4, float("nan")]
    losses = iter(losses if script == logistic_regression else [(loss, 0.5) for loss in losses])
    monkeypatch.setattr(script, "train_one_epoch", lambda *_: next(losses))
    monkeypatch.setattr(script, "check", lambda *_: {}, raising=False)
    flags = ["--data-dir", str(mnist_dir), "--device", "cpu"]
    names = {logistic_regression: "logistic", nn_demo: "mlp", cnn_mnist: "convnet"}
    weights = tmp_path / f"{names[script]}-mnist.pt"
    weights.write_text("of the last run")
    with pytest.raises(SystemExit, match="error: the training loss is nan; try a smaller --lr"):
        script.main([*flags, "--out-dir", str(tmp_path)])
    assert weights.read_text() == "of the last run" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(("epochs", "lines"), [(1, 1), (5, 5), (100, 10), (205, 11)])
def test_one_line_an_epoch_or_about_ten(epochs, lines, mnist_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(logistic_regression, "train_one_epoch", lambda *_: 0.125)
    monkeypatch.setattr(logistic_regression, "evaluate", lambda *_: 0.5)
    flags = ["--data-dir", str(mnist_dir), "--epochs", str(epochs), "--out-dir", str(tmp_path)]
    logistic_regression.main(flags)
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
    assert len(printed) == lines
    assert printed[-1] == f"epoch {epochs}: training loss 0.1250, test accuracy 50.00%"


def test_logistic_regression_shows_ten_probabilities_their_loss_and_ten_pictures(
    mnist_dir, tmp_path, monkeypatch, capsys
):
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, file: drawn.append(figure))
    results = logistic_regression.main(["--data-dir", str(mnist_dir), "--lr", "0.1", "--out-dir", str(tmp_path)])
    printed = capsys.readouterr().out
    image, label = mnist(mnist_dir)[1][0]
    model = logistic_regression.LogisticRegression()
    model.load_state_dict(torch.load(results["files"]["weights"]))
    logits = model(image.unsqueeze(0))
    shown = [float(percent) for percent in re.findall(r"\d: ([\d.]+)%", printed)]
    assert shown == pytest.approx((100 * logits.softmax(dim=1)[0]).tolist(), abs=0.06)
    loss = torch.nn.functional.cross_entropy(logits, label.unsqueeze(0)).item()
    assert f" = {loss:.4f}." in printed
    pictures = [ax.images[0].get_array() for ax in drawn[0].axes]
    assert [ax.get_title() for ax in drawn[0].axes] == list("0123456789")
    weights = model.linear.weight.detach()
    assert pictures[3].flatten().tolist() == pytest.approx((weights[3] / weights.abs().max()).tolist())


def test_a_notebook_shows_the_pictures_inline(mnist_dir, tmp_path, monkeypatch):
    shown = []
    display = types.ModuleType("IPython.display")
    display.display, display.Image = lambda *images: shown.extend(images), lambda filename: filename
    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    flags = ["--data-dir", str(mnist_dir), "--epochs", "1", "--out-dir", str(tmp_path)]
    results = logistic_regression.main(flags)
    assert shown == [str(results["files"]["picture"])]
