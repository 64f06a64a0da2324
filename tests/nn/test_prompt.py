from collections.abc import Callable

import pytest
import torch
from golden_case import GoldenCase

from pyg_peft.nn import PointPriorPrompt, PromptTokens
from pyg_peft.testing import randomize_


def test_repr():
    assert repr(PromptTokens(10, 8)) == "PromptTokens(10, 8)"
    assert repr(PointPriorPrompt(8)).splitlines()[1] == "  8, num_prompts=10"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_prompts": 0}, "Expected 'num_prompts' to be >= 1 (got 0)"),
        ({"channels": 0}, "Expected 'channels' to be >= 1 (got 0)"),
        ({"std": -1.0}, "Expected 'std' to be >= 0 (got -1.0)"),
    ],
)
def test_constructor_errors(arguments: dict[str, float], message: str):
    with pytest.raises(ValueError) as error:
        PromptTokens(**{"num_prompts": 2, "channels": 4, **arguments})  # type: ignore[arg-type]
    assert str(error.value) == message


def test_tokens_are_the_same_for_every_cloud():
    prompt = PromptTokens(3, 4)
    tokens = prompt(2)
    assert torch.equal(tokens[0], prompt.weight) and torch.equal(tokens[1], prompt.weight)
    assert prompt(0).shape == (0, 3, 4)
    with pytest.raises(ValueError, match="Expected 'batch_size' to be >= 0"):
        prompt(-1)


def test_initial_width():
    torch.manual_seed(0)
    assert abs(float(PromptTokens(100, 100).weight.detach().std()) - 0.02) < 1e-3


def test_prior_by_hand():
    prompt = PointPriorPrompt(2, num_prompts=1, bottleneck_channels=1)
    with torch.no_grad():
        prompt.tokens.weight.copy_(torch.tensor([[1.0, 2.0]]))
    prior = torch.tensor([[[10.0, 20.0]], [[30.0, 40.0]]])
    # The bottleneck starts as an identity, so a prior is simply added.
    assert prompt(2, prior).tolist() == [[[11.0, 22.0]], [[31.0, 42.0]]]
    assert torch.equal(prompt(2), prompt.tokens(2))


@pytest.mark.parametrize("shape", [(1, 3, 4), (2, 1, 4), (2, 3, 1), (3, 4)])
def test_prior_never_broadcasts(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"Expected 'prior' to be of shape \[2, 3, 4\]"):
        PointPriorPrompt(4, 3, 2)(2, torch.zeros(shape))


def test_clouds_do_not_see_each_other(generator: torch.Generator):
    prompt = randomize_(PointPriorPrompt(4, 3, 2).double(), generator)
    prior = torch.randn(2, 3, 4, dtype=torch.float64, generator=generator)
    torch.testing.assert_close(prompt(2, prior)[1:], prompt(1, prior[1:]))


def test_gradients(generator: torch.Generator):
    prompt = randomize_(PointPriorPrompt(4, 3, 2).double(), generator)
    prior = torch.randn(2, 3, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    assert torch.autograd.gradcheck(lambda value: prompt(2, value), (prior,))
    prompt(2, prior).square().sum().backward()
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in prompt.parameters())


def test_state():
    keys = ["tokens.weight", "bottleneck.down.weight", "bottleneck.down.bias"]
    keys += ["bottleneck.up.weight", "bottleneck.up.bias"]
    assert list(PointPriorPrompt(4, 3, 2).state_dict()) == keys


def test_golden(golden: Callable[[str], GoldenCase]):
    case = golden("pointpeft_mae_bankattention")
    prompt = PointPriorPrompt(384, 10, 8).double()
    names = {"ln1": "bottleneck.down", "ln2": "bottleneck.up"}
    state = {"tokens.weight": case.weights["blocks.blocks.0.prompt_embeddings"]}
    for key, value in case.weights.items():
        if "cp_adapter" in key:
            layer, kind = key.split(".")[-2:]
            state[f"{names[layer]}.{kind}"] = value
    prompt.load_state_dict(state)
    prior = case.ref["cache_prompt"].double()
    moved = prompt.bottleneck(prior)
    for found, name in ((moved, "cp_adapter_out"), (prompt(3, prior), "enhanced_prompts")):
        torch.testing.assert_close(found, case.ref[name].double(), rtol=0, atol=2e-6)
    counted = sum(p.numel() for p in prompt.parameters())
    assert counted == sum(value.numel() for value in case.weights.values()) == 10376
