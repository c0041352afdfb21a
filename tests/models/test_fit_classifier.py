"""The classifier loop: balanced draws by share, selection by AUPRC, same bits for the same seed, simple shapes."""

from copy import deepcopy
from importlib import import_module

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from models import ClassifierSpec, ClassifierTraining, ModelError, PatchArrays, Stage, fit_classifier, predict
from models.fit_classifier import StageTrainer
from models.patch_arrays import to_float
from models.predict import normalised, recompute_batch_norm
from models.stages import BalancedDraws

# The module: the package's attribute of this name is the function.
module = import_module("models.fit_classifier")


def shapes(count: int, seed: int, noise: float = 40.0) -> PatchArrays:
    """16 px images: a bright blob (class 1) or not (class 0) in noise."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) % 2).astype(np.int64)
    y, x = np.mgrid[:16, :16]
    images = rng.normal(110, noise, (count, 1, 16, 16))
    for i in np.flatnonzero(labels):
        cy, cx = rng.integers(4, 12, 2)
        images[i, 0] += 120 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 6)
    return PatchArrays(images.clip(0, 255).astype(np.uint8), np.arange(count), labels)


def constant(value: int, labels) -> PatchArrays:
    labels = np.asarray(labels, dtype=np.int64)
    return PatchArrays(np.full((len(labels), 1, 16, 16), value, np.uint8), np.arange(len(labels)), labels)


def network(model="cnn_small", seed=0):
    return ClassifierSpec(model=model, image_size=16, channels=1, num_classes=2).build(seed)


def train(sources, stages, training=None, seed=0, validation=None, net=None):
    training = training or ClassifierTraining(batch_size=16, validate_every=5)
    validation = validation if validation is not None else shapes(40, 99)
    return fit_classifier(net if net is not None else network(), sources, stages, validation, training, seed=seed)


REAL = {"real": 1.0}


def auroc(fit, test, model="cnn_small", **options):
    net = network(model, seed=5)
    net.load_state_dict(fit.state)
    return roc_auc_score(test.labels, predict(net, test, **options)[:, 1])


@pytest.mark.parametrize("model", ["cnn", "cnn_small"])
def test_simple_shapes_are_separated(model):
    training = ClassifierTraining(batch_size=32, validate_every=20, normalise="per_patch", learning_rate=2e-3)
    fit = train({"real": shapes(200, 0)}, [Stage("real", 60, 2e-3, REAL)], training, net=network(model))
    assert auroc(fit, shapes(200, 1), model, normalise="per_patch") > 0.95
    assert fit.history["loss"][-1] < fit.history["loss"][0]


def test_the_paper_optimizer_learns_too():
    training = ClassifierTraining(
        optimizer="sgd", learning_rate=0.001, schedule="constant", batch_size=12, weight_decay=0, ema=None,
        batch_norm_on=None, augmentation="none", validate_every=50,
    )  # fmt: skip
    fit = train({"real": shapes(200, 0)}, [Stage("real", 150, 0.01, REAL)], training, net=network("cnn"))
    assert auroc(fit, shapes(200, 1), "cnn") > 0.9


def test_permuted_labels_teach_nothing():
    data = shapes(200, 0)
    rng = np.random.default_rng(0)
    shuffled = PatchArrays(data.pixels, data.rows, rng.permutation(data.labels))
    validation = shapes(60, 2)
    validation = PatchArrays(validation.pixels, validation.rows, rng.permutation(validation.labels))
    training = ClassifierTraining(batch_size=32, validate_every=10, select="last")
    values = [
        auroc(train({"real": shuffled}, [Stage("real", 30, 2e-3, REAL)], training, seed, validation), shapes(300, 1))
        for seed in range(3)
    ]
    assert abs(np.mean(values) - 0.5) < 0.2


def test_the_seed_alone_decides():
    def run(seed):
        torch.rand(int(torch.randint(1, 50, ())))  # whatever ran before
        return train({"real": shapes(40, 0)}, [Stage("real", 4, 1e-3, REAL)], seed=seed).state

    before = torch.get_rng_state()
    a, b, c = run(1), run(1), run(2)
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert any(not torch.equal(a[k], c[k]) for k in a)
    torch.set_rng_state(before)
    train({"real": shapes(40, 0)}, [Stage("real", 2, 1e-3, REAL)])
    assert torch.equal(before, torch.get_rng_state())


# -- draws -------------------------------------------------------------------------------------------------------


def drawn(sources, shares, batches=200, size=32):
    stage = BalancedDraws(sources, Stage("s", 1, 1e-3, shares))
    pairs = [stage.batch(size, np.random.default_rng(k)) for k in range(batches)]
    return torch.cat([i[:, 0, 0, 0] for i, _ in pairs]).numpy(), torch.cat([label for _, label in pairs]).numpy()


def test_classes_are_balanced_and_sources_follow_their_shares():
    sources = {"real": constant(1, [0] * 30 + [1] * 3), "b": constant(2, [0] * 5 + [1] * 50), "c": constant(3, [1] * 7)}
    values, labels = drawn(sources, {"real": 0.6, "b": 0.3, "c": 0.1})
    assert labels.mean() == 0.5
    positives, negatives = values[labels == 1], values[labels == 0]
    for value, share in ((1, 0.6), (2, 0.3), (3, 0.1)):
        assert (positives == value).mean() == pytest.approx(share, abs=0.03)
    # "c" has no negatives: the others share them in their own proportion.
    assert (negatives == 1).mean() == pytest.approx(2 / 3, abs=0.03)
    assert (negatives == 3).sum() == 0


def test_odd_batches_are_balanced_on_average():
    _, labels = drawn({"real": constant(0, [0, 1])}, REAL, batches=400, size=5)
    assert labels.mean() == pytest.approx(0.5, abs=0.03)


def test_every_image_of_a_source_is_drawn_alike():
    data = PatchArrays(
        np.arange(10, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 2, 2), np.uint8),
        np.arange(10),
        np.arange(10) % 2,
    )
    values, labels = drawn({"real": data}, REAL, batches=400)
    assert (values % 2 == labels).all()
    assert np.bincount(values).min() > 0.8 * len(values) / 10


def test_stages_that_cannot_be_drawn_are_refused():
    with pytest.raises(ModelError, match="no image of class 0") as caught:
        train({"real": constant(0, [1, 1])}, [Stage("real", 1, 1e-3, REAL)])
    assert caught.value.code == "class_missing" and caught.value.numbers == {"label": 0}
    with pytest.raises(ModelError, match="draws from 'b'"):
        train({"real": shapes(4, 0)}, [Stage("mix", 1, 1e-3, {"real": 0.5, "b": 0.5})])
    with pytest.raises(ModelError) as caught:
        train({"real": shapes(4, 0)}, [Stage("real", 1, 1e-3, REAL)], validation=constant(0, [0, 0]))
    assert caught.value.code == "no_validation"
    with pytest.raises(ModelError) as caught:
        train({"real": shapes(40, 0)}, [Stage("real", 10, 1e30, REAL)])
    assert caught.value.code == "diverged"


# -- selection ---------------------------------------------------------------------------------------------------


@pytest.fixture
def scripted(monkeypatch):
    """Function: let the validation AUPRC follow a script."""

    def script(values):
        queue = list(values)
        monkeypatch.setattr(module, "selection_score", lambda *_: queue.pop(0))

    return script


def test_the_best_step_is_kept_and_the_latest_of_equals(scripted):
    stages, training = [Stage("real", 8, 1e-3, REAL)], ClassifierTraining(batch_size=16, validate_every=2)
    states = {}
    for best, values in ((4, [0.2, 0.9, 0.5, 0.4]), (8, [0.2, 0.9, 0.5, 0.9])):
        scripted(values)
        fit = train({"real": shapes(40, 0)}, stages, training)
        assert (fit.best_step, fit.best_auprc) == (best, 0.9)
        assert fit.history["val_auprc"] == values
        states[best] = fit.state
    scripted([0.9, 0.1, 0.1, 0.1])
    last = train({"real": shapes(40, 0)}, stages, training.model_copy(update={"select": "last"}))
    assert last.best_step == 8 and last.best_auprc == 0.1
    assert all(torch.equal(states[8][k], last.state[k]) for k in last.state)
    assert any(not torch.equal(states[4][k], last.state[k]) for k in last.state)


def test_only_the_last_stage_is_chosen_from(scripted):
    scripted([0.99, 0.3, 0.2])
    stages = [Stage("pretrain", 5, 1e-3, REAL), Stage("real", 10, 1e-3, REAL)]
    fit = train({"real": shapes(40, 0)}, stages)
    assert (fit.best_step, fit.history["stage"]) == (10, ["pretrain", "real", "real"])


# -- what is done to images --------------------------------------------------------------------------------------


def test_validation_and_prediction_are_never_augmented(monkeypatch):
    """With an augmentation that blanks images training sees blanks only, validation sees none."""
    monkeypatch.setattr(module, "traditional", lambda images, rng: images * 0)
    seen = {True: [], False: []}

    class Watching(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, images):
            seen[self.training and torch.is_grad_enabled()].append(float(images.abs().max()))
            return self.inner(images)

    train({"real": shapes(40, 0)}, [Stage("real", 5, 1e-3, REAL)], net=Watching())
    assert max(seen[True]) == 0 and min(seen[False]) > 0


def test_no_augmentation_leaves_images_as_they_are(monkeypatch):
    monkeypatch.setattr(module, "traditional", lambda *_: pytest.fail("augmented"))
    train(
        {"real": shapes(40, 0)}, [Stage("real", 2, 1e-3, REAL)], ClassifierTraining(batch_size=4, augmentation="none")
    )


def test_per_patch_normalisation():
    images = torch.rand(4, 3, 8, 8) * 0.3
    out = normalised(images, "per_patch")
    torch.testing.assert_close(out.mean((1, 2, 3)), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.std((1, 2, 3)), torch.ones(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(out, normalised(images * 2 + 0.1, "per_patch"), atol=1e-4, rtol=1e-4)
    assert torch.equal(normalised(torch.full((1, 1, 4, 4), 0.5), "per_patch"), torch.zeros(1, 1, 4, 4))
    assert normalised(images, "none") is images


def test_batch_norm_statistics_are_means_over_the_given_images():
    net = torch.nn.Sequential(torch.nn.BatchNorm2d(1))
    images = shapes(128, 0).take(np.arange(128))
    recompute_batch_norm(net, images, "none", "fp32")
    values = to_float(images)
    assert net[0].running_mean.item() == pytest.approx(values.mean().item(), abs=1e-5)
    assert net[0].running_var.item() == pytest.approx(values.var().item(), rel=0.01)
    assert net[0].momentum == 0.1 and not net[0].training


def batch_norms(net):
    return [m for m in net.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]


@pytest.mark.parametrize(("model", "count"), [("cnn", 65), ("cnn", 129), ("cnn", 193), ("resnet18", 65)])
def test_a_single_image_that_is_left_over_joins_the_part_before_it(model, count):
    """Both networks have a layer that sees one value per channel of an image, which torch refuses to train on."""
    side = {"cnn": 16, "resnet18": 32}[model]
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (count, 1, side, side), dtype=np.uint8))
    net = ClassifierSpec(model=model, image_size=side, channels=1, num_classes=2).build(0)
    recompute_batch_norm(net, images, "none", "fp32")
    expected = ClassifierSpec(model=model, image_size=side, channels=1, num_classes=2).build(0).eval()
    for layer in batch_norms(expected):
        layer.momentum = None
        layer.train()
    with torch.no_grad():
        for part in images.split([64] * (count // 64 - 1) + [65]):
            expected(to_float(part.to(memory_format=torch.channels_last)))
    for found, wanted in zip(batch_norms(net), batch_norms(expected), strict=True):
        assert torch.equal(found.running_mean, wanted.running_mean)
        assert torch.equal(found.running_var, wanted.running_var)
        assert found.momentum == 0.1 and not found.training and not found._forward_pre_hooks


@pytest.mark.parametrize("count", [65, 129, 193])
def test_any_number_of_training_images_can_be_learned_from(count):
    training = ClassifierTraining(batch_size=16, validate_every=1)
    fit = train({"real": shapes(count, 0)}, [Stage("real", 1, 1e-3, REAL)], training, net=network("cnn"))
    assert fit.best_step == 1


def test_statistics_are_means_over_parts_of_64_where_a_part_of_one_image_has_variance():
    """What results were computed with so far: `cnn_small` never sees fewer than four positions."""
    images = shapes(65, 0).take(np.arange(65))
    net, expected = network(), network().eval()
    recompute_batch_norm(net, images, "none", "fp32")
    for layer in batch_norms(expected):
        layer.momentum = None
        layer.train()
    with torch.no_grad():
        for part in images.split([64, 1]):
            expected(to_float(part.to(memory_format=torch.channels_last)))
    assert all(torch.equal(a, b) for a, b in zip(net.buffers(), expected.buffers(), strict=True))


def test_one_image_without_variance_changes_no_statistics():
    net = network("cnn")
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    recompute_batch_norm(net, shapes(1, 0).take(np.arange(1)), "none", "fp32")
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_batch_norm_of_a_classifier_without_real_images_does_not_see_them(monkeypatch):
    """A classifier trained on synthetic images only stays so."""
    given_images = []
    monkeypatch.setattr(module, "recompute_batch_norm", lambda net, images, *_: given_images.append(images))
    sources = {"real": constant(9, [0, 1]), "synthetic": shapes(20, 0)}
    train(sources, [Stage("only", 2, 1e-3, {"synthetic": 1.0})])
    assert given_images == [None]
    train(sources, [Stage("pretrain", 2, 1e-3, {"synthetic": 1.0}), Stage("fine", 2, 1e-3, REAL)])
    assert all((images == 9).all() for images in given_images[1:])


def test_probabilities():
    net, data = network(), shapes(300, 0)
    probability = predict(net, data)
    assert probability.shape == (300, 2) and probability.dtype == np.float64
    np.testing.assert_allclose(probability.sum(1), 1)
    part = predict(net, PatchArrays(data.pixels, data.rows[[7, 299]], data.labels[[7, 299]]))
    np.testing.assert_allclose(part, probability[[7, 299]], atol=1e-5)
    assert predict(net, PatchArrays(data.pixels, data.rows[:0], data.labels[:0])).shape == (0, 2)


# -- one stage's trainer -------------------------------------------------------------------------------------------


def stage_trainer(seed_of_weights, optimizer="adamw", average=True, **options):
    how = ClassifierTraining(batch_size=8, optimizer=optimizer, learning_rate=1e-2)
    net = network(seed=seed_of_weights)
    net.to(memory_format=torch.channels_last)
    stage = Stage("real", 9, 1e-2, REAL)
    draws = BalancedDraws({"real": shapes(40, 0)}, stage)
    averaged = deepcopy(net) if average else None
    return StageTrainer(net, averaged, draws, stage, how, seed=3, device="cpu", precision="fp32", before=4, **options)


@pytest.mark.parametrize(("optimizer", "average"), [("adamw", True), ("sgd", True), ("adamw", False)])
def test_a_stage_interrupted_after_any_step_goes_on_bit_for_bit(optimizer, average):
    whole, states = stage_trainer(1, optimizer, average), []
    for _ in range(9):
        whole.advance(1)
        states.append(whole.state())
    at_once = stage_trainer(1, optimizer, average)
    at_once.advance(9)
    for done in (1, 5, 8):
        later = stage_trainer(2, optimizer, average)
        later.load_state(states[done - 1])
        assert later.local == done and later.images == (4 + done) * 8
        later.advance(9 - done)
        for other in (at_once.state(), later.state()):
            assert other.keys() == states[-1].keys()
            assert all(torch.equal(other[name], tensor) for name, tensor in states[-1].items())
        for ours, theirs in ((later.averaged, at_once.averaged), (later.network, at_once.network)):
            assert not average or all(map(torch.equal, ours.state_dict().values(), theirs.state_dict().values()))
    assert any(name.startswith("optimizer.0.") for name in states[-1])
    assert any(name.startswith("average.") for name in states[-1]) == average


def test_a_state_of_another_network_is_refused():
    trainer = stage_trainer(1)
    trainer.advance(1)
    state = trainer.state() | {"optimizer.999.exp_avg": torch.zeros(3)}
    with pytest.raises(ValueError, match=r"the optimizer's state has '999\.exp_avg', and there are \d+ parameters"):
        stage_trainer(1).load_state(state)


def test_the_hook_gets_every_step_and_progress_is_in_images():
    heard, seen = [], []
    training = ClassifierTraining(batch_size=16, validate_every=3)
    stages = [Stage("first", 4, 1e-3, REAL), Stage("second", 3, 1e-3, REAL)]
    fit = fit_classifier(
        network(), {"real": shapes(40, 0)}, stages, shapes(40, 99), training, seed=0,
        on_progress=lambda done, total: seen.append((done, total)), after_step=heard.append,
    )  # fmt: skip
    assert [(done.step, done.images) for done in heard] == [(step, 16 * step) for step in range(1, 8)]
    assert seen == [(48, 112), (64, 112), (96, 112), (112, 112)]
    losses = [float(done.logs["loss"][0]) for done in heard]
    assert fit.history["loss"] == pytest.approx([np.mean(losses[:3]), losses[3], np.mean(losses[4:6]), losses[6]])
