"""The stack: sizes, parameter counts, where dropout is, what a wrong cell is told."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bench.api import Activations
from bench.config import Trial
from bench.model import LanguageModel, build, detach
from bench.noise import WindowNoise
from bench.plugins import find, load_class

CPU = torch.device("cpu")


def cell_class(name: str) -> type[nn.Module]:
    loaded: type[nn.Module] = load_class(find()["cell"][name])
    return loaded


def small(**changes: object) -> LanguageModel:
    values = {"nhid": 6, "nlayers": 3, "dropout": 0.5, "dropouti": 0.4, "dropouth": 0.3}
    trial = Trial(**(values | changes))  # type: ignore[arg-type]
    return build(trial, cell_class("lstm"), 11).double()


@pytest.mark.parametrize(
    ("cell", "nhid", "count"),
    [
        ("lstm", 650, 13_280_400),
        ("gru", 650, 11_587_800),
        ("rnn_tanh", 650, 8_202_600),
        ("lstm", 1500, 51_034_000),
    ],
)
def test_parameter_counts_of_tied_models_on_penn_treebank(cell: str, nhid: int, count: int) -> None:
    with torch.device("meta"):
        assert build(Trial(nhid=nhid), cell_class(cell), 10_000).num_params == count


def test_the_last_layer_has_emsize_units_when_tied() -> None:
    assert small(emsize=4).sizes == [6, 6, 4]
    assert small(emsize=4).decoder_weight is None
    untied = small(emsize=4, tied=False)
    assert untied.sizes == [6, 6, 6]
    assert untied.decoder_weight is not None
    assert untied.decoder_weight.shape == (11, 6)


def test_initial_values() -> None:
    model = small(nhid=200, nlayers=1)
    assert float(model.embedding.detach().abs().max()) <= 0.1
    assert float(model.embedding.detach().std()) == pytest.approx(0.2 / 12**0.5, rel=0.05)
    assert torch.count_nonzero(model.decoder_bias) == 0
    weight = dict(model.named_parameters())["cells.0.rnn.weight_hh_l0"].detach()
    assert float(weight.abs().max()) <= 200**-0.5


def test_initial_weights_do_not_depend_on_torchs_global_generator() -> None:
    torch.manual_seed(1)
    one = small().state_dict()
    torch.manual_seed(2)
    two = small().state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_another_repetition_has_other_initial_weights() -> None:
    assert not torch.equal(small().embedding, small(rep=1).embedding)


def test_layers_start_alike_across_cells_and_apart_within_a_stack() -> None:
    model = small()
    one, two = (cell.rnn.weight_hh_l0 for cell in model.cells[:2])  # type: ignore[union-attr]
    assert not torch.equal(one, two)  # type: ignore[arg-type]
    other = build(Trial(nhid=6, nlayers=3), cell_class("gru"), 11).double()
    assert torch.equal(model.embedding, other.embedding)


def test_dropout_is_where_the_names_say() -> None:
    tokens = torch.arange(44).remainder(11).view(4, 11)
    model = small().train()
    noise = WindowNoise(1, "train", 0, CPU, torch.float64)
    _, _, acts = model(tokens, tokens, model.initial_state(11), noise)
    dropped = [acts.embedded, *acts.dropped]
    for tensor, p in zip(dropped, (0.4, 0.3, 0.3, 0.5), strict=True):
        zeros = float((tensor == 0).double().mean())
        assert zeros == pytest.approx(p, abs=0.12)
    kept = acts.dropped[-1] != 0
    torch.testing.assert_close(acts.dropped[-1][kept], 2 * acts.raw[-1][kept])
    steps_differ = (acts.dropped[-1][0] == 0) != (acts.dropped[-1][1] == 0)
    assert steps_differ.any(), "ordinary dropout draws a fresh mask at every step"


def test_nll_is_the_cross_entropy_and_padding_counts_nothing() -> None:
    model = small(nlayers=1).eval()
    tokens = torch.tensor([[1, 2], [3, 4]])
    targets = torch.tensor([[3, 4], [5, -1]])
    nll, _, _ = model(tokens, targets, model.initial_state(2), None)
    logits, _ = model.logits(tokens, model.initial_state(2))
    by_hand = -logits.log_softmax(-1)[1, 0, 5]
    torch.testing.assert_close(nll[1, 0], by_hand)
    assert float(nll[1, 1].detach()) == 0


def test_detach_cuts_the_graph() -> None:
    model = small()
    tokens = torch.ones(2, 3, dtype=torch.long)
    _, state, _ = model(tokens, tokens, model.initial_state(3), None)
    assert all(t.requires_grad for layer in state for t in layer)
    assert not any(t.requires_grad for layer in detach(state) for t in layer)


class Rogue(nn.Module):
    def __init__(self, size_in: int, size_out: int, answer: object) -> None:
        super().__init__()
        self.answer = answer

    def initial_state(self, batch_size: int) -> tuple[torch.Tensor, ...]:
        return (torch.zeros(batch_size, 6),)

    def forward(self, x: torch.Tensor, state: object, noise: object) -> object:
        return self.answer


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "tuple of 2, not NoneType"),
        (
            (torch.zeros(2, 3, 5), (torch.zeros(3, 6),)),
            r"raw \[2, 3, 5\]; \[T,B,H\] is \[2, 3, 6\]",
        ),
        ((torch.zeros(2, 3, 6), torch.zeros(3, 6)), "no tuple of tensors"),
        ((torch.zeros(2, 3, 6), (), torch.zeros(2, 3, 6)), "tuple of 2, not a tuple of 3"),
    ],
)
def test_a_cell_that_returns_the_wrong_thing_is_told(answer: object, message: str) -> None:
    model = build(Trial(nhid=6, nlayers=1), lambda i, h: Rogue(i, h, answer), 11)
    tokens = torch.ones(2, 3, dtype=torch.long)
    with pytest.raises(ValueError, match=message):
        model(tokens, tokens, model.initial_state(3), None)


# --- locked and dropoute --------------------------------------------------------------------------


def run(model: LanguageModel, tokens: torch.Tensor, step: int = 0) -> Activations:
    noise = WindowNoise(1, "train", step, CPU, torch.float64)
    _, _, acts = model(tokens, tokens, model.initial_state(tokens.shape[1]), noise)
    assert isinstance(acts, Activations)
    return acts


def test_locked_masks_are_one_for_all_steps_and_another_for_each_column_and_window() -> None:
    tokens = torch.arange(44).remainder(11).view(4, 11)
    model = small(locked=True).train()
    acts, later = run(model, tokens), run(model, tokens, step=1)
    pairs = zip([acts.embedded, *acts.dropped], [later.embedded, *later.dropped], strict=True)
    for p, (tensor, other) in zip((0.4, 0.3, 0.3, 0.5), pairs, strict=True):
        zeros = tensor == 0
        assert zeros.any() and torch.equal(zeros, zeros[:1].expand_as(zeros))
        assert (zeros[0] != zeros[0, :1]).any(), "columns have masks of their own"
        assert not torch.equal(zeros, other == 0), "each window has masks of its own"
        assert float(zeros.double().mean()) == pytest.approx(p, abs=0.25)
    kept = acts.dropped[-1] != 0
    torch.testing.assert_close(acts.dropped[-1][kept], 2 * acts.raw[-1][kept])


def test_locked_masks_of_layers_differ() -> None:
    acts = run(small(locked=True).train(), torch.ones(2, 11, dtype=torch.long))
    assert not torch.equal(acts.dropped[0] == 0, acts.dropped[1] == 0)


def test_dropoute_drops_whole_words_wherever_they_stand() -> None:
    tokens = torch.randint(0, 11, (30, 8), generator=torch.Generator().manual_seed(1))
    model = small(dropoute=0.4, dropouti=0).train()
    acts, later = run(model, tokens), run(model, tokens, step=1)
    gone = (acts.embedded == 0).all(-1)
    assert torch.equal(gone, (acts.embedded == 0).any(-1)), "whole words"
    words = {int(word) for word in tokens[gone]}
    assert words and not words & {int(word) for word in tokens[~gone]}, "everywhere or nowhere"
    assert not torch.equal(gone, (later.embedded == 0).all(-1)), "another draw in each window"
    plain = model.embedding[tokens]
    torch.testing.assert_close(acts.embedded[~gone], plain[~gone] / 0.6)


def test_dropoute_preserves_the_expectation_and_is_off_without_noise() -> None:
    tokens = torch.arange(11).view(1, 11)
    model = small(dropoute=0.3, dropouti=0).train()
    with torch.no_grad():
        mean = torch.stack([run(model, tokens, step).embedded for step in range(3000)]).mean(0)
        _, _, acts = model.eval()(tokens, tokens, model.initial_state(11), None)
    assert torch.equal(acts.embedded, model.embedding[tokens])
    torch.testing.assert_close(mean, acts.embedded, atol=0.006, rtol=0)


def test_dropoute_leaves_the_decoder_its_words() -> None:
    # All but every word dropped: were the decoder's rows dropped too, their logits would be 0.
    model = small(dropoute=0.999, dropouti=0, nlayers=1).train()
    tokens = torch.arange(11).view(1, 11)
    noise = WindowNoise(1, "train", 0, CPU, torch.float64)
    logits, _, acts = model.predict(tokens, model.initial_state(11), noise)
    assert torch.count_nonzero(acts.embedded) == 0
    by_hand = acts.dropped[-1] @ model.embedding.T + model.decoder_bias
    torch.testing.assert_close(logits, by_hand)
    assert (logits != 0).any()


def test_a_dropped_word_gets_no_gradient_from_the_input() -> None:
    model = small(dropoute=0.5, dropouti=0, tied=False).train()
    tokens = torch.arange(11).view(1, 11)
    noise = WindowNoise(1, "train", 0, CPU, torch.float64)
    nll, _, acts = model(tokens, tokens, model.initial_state(11), noise)
    nll.sum().backward()
    gone = (acts.embedded[0] == 0).all(-1)
    gradient = model.embedding.grad
    assert gradient is not None and gone.any() and not gone.all()
    assert torch.count_nonzero(gradient[gone]) == 0 and (gradient[~gone] != 0).any(-1).all()


@pytest.mark.parametrize(
    ("nhid", "count"),
    # The counts of Zaremba et al. 2014, 20M and 66M, with torch's two biases per layer.
    [(650, 19_780_400), (1500, 66_034_000)],
)
def test_zarembas_untied_models(nhid: int, count: int) -> None:
    with torch.device("meta"):
        model = build(Trial(nhid=nhid, tied=False), cell_class("lstm"), 10_000)
    assert model.num_params == count
