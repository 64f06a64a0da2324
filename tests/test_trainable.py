"""Which parameters: by path, segment by segment, never by a part of a name."""

import pytest
import torch
from torch import nn

from pyg_peft.errors import PlacementError
from pyg_peft.trainable import (
    ParameterCount,
    count_parameters,
    freeze,
    match_modules,
    trainable_parameters,
)


class Net(nn.Module):
    """Names that a search by substring confuses: head, cls_head, overhead."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.ModuleDict({"attn": nn.Linear(2, 2), "mlp": nn.Linear(2, 2, bias=False)})
            for _ in range(11)
        )
        self.norm = nn.BatchNorm1d(2)
        self.overhead = nn.Linear(2, 2)
        self.cls_head = nn.Linear(2, 3)
        self.head = nn.ModuleDict({"fc": nn.Linear(2, 4)})


@pytest.fixture
def net() -> Net:
    return Net()


def test_freeze_stops_gradients_and_statistics(net: Net):
    assert freeze(net) is net
    assert not any(p.requires_grad for p in net.parameters())
    assert not any(module.training for module in net.modules())


def test_trainable_parameters_come_once_under_their_first_name():
    shared = nn.Linear(2, 2)
    net = nn.ModuleDict({"a": shared, "b": shared, "c": freeze(nn.Linear(2, 2))})
    named = trainable_parameters(net)
    assert [name for name, _ in named] == ["a.weight", "a.bias"]
    assert named[0][1] is shared.weight


def test_the_head_is_a_path(net: Net):
    freeze(net)
    for part in (net.head, net.cls_head, net.overhead):
        part.requires_grad_(True)
    frozen = 11 * (6 + 4) + 4
    assert count_parameters(net) == ParameterCount(trainable=12 + 9 + 6, head=12, frozen=frozen)
    assert count_parameters(net, head=["cls_head"]).head == 9
    assert count_parameters(net, head=["head.fc", "overhead"]).head == 12 + 6
    assert count_parameters(net, head=["ead", "blocks.1"]).head == 0
    assert count_parameters(net, head=[]).without_head == 27


def test_a_shared_parameter_counts_once():
    shared = nn.Linear(2, 2)
    assert count_parameters(nn.ModuleDict({"body": shared, "head": shared})).trainable == 6


def test_a_count_reads_well():
    text = str(ParameterCount(trainable=773_017, head=267_535, frozen=22_091_136))
    assert text == (
        "trainable: 773,017 (head 267,535, without head 505,482) | frozen: 22,091,136"
        " | without head: 2.29 % of the frozen parameters"
    )
    assert "0 (head 0" in str(ParameterCount(0, 0, 0))


@pytest.mark.parametrize(
    ("targets", "paths"),
    [
        (["norm"], ["norm"]),
        (["head"], ["head"]),
        (["blocks.1.attn"], ["blocks.1.attn"]),
        (["blocks.1*.attn"], ["blocks.1.attn", "blocks.10.attn"]),
        (["blocks.[01].mlp"], ["blocks.0.mlp", "blocks.1.mlp"]),
        (["head.**"], ["head", "head.fc"]),
        (["**.fc"], ["head.fc"]),
        (["**.head"], ["head"]),
        (["*head"], ["overhead", "cls_head", "head"]),
        ([r"re:blocks\.(0|10)\.a.*"], ["blocks.0.attn", "blocks.10.attn"]),
        ([nn.BatchNorm1d], ["norm"]),
        (["norm", "head", "norm", nn.BatchNorm1d], ["norm", "head"]),
        (["head", "norm"], ["norm", "head"]),
    ],
)
def test_matches(net: Net, targets: list[str], paths: list[str]):
    found = match_modules(net, targets)
    assert list(found) == paths
    assert all(net.get_submodule(path) is module for path, module in found.items())


def test_one_star_is_one_segment(net: Net):
    assert len(match_modules(net, ["blocks.*"])) == 11
    assert len(match_modules(net, ["blocks.*.*"])) == 22
    assert len(match_modules(net, ["blocks.**"])) == 1 + 11 + 22
    assert len(match_modules(net, ["**"])) == len(list(net.modules()))


@pytest.mark.parametrize("target", ["Norm", "ead", "re:ead", "re:.*attn.", "bloc*.1.attn.*"])
def test_a_part_of_a_path_is_no_match(net: Net, target: str):
    with pytest.raises(PlacementError):
        match_modules(net, [target])


def test_nothing_found_lists_what_is_near(net: Net):
    with pytest.raises(PlacementError, match=r"got 'blocks\.3\.attm'; nearest.*blocks\.3\.attn"):
        match_modules(net, ["norm", "blocks.3.attm"])
    with pytest.raises(PlacementError, match=r"got Conv1d; the model holds BatchNorm1d, Linear"):
        match_modules(net, [nn.Conv1d])
    with pytest.raises(PlacementError, match=r"Expected 'modules_to_save' to match at least"):
        match_modules(nn.Linear(2, 2), ["head"], argument="modules_to_save")
    with pytest.raises(PlacementError, match=r"nearest paths: blocks, "):
        match_modules(net, ["zzz"])


def test_slots_are_no_part_of_the_model(net: Net):
    net.norm.add_module("peft", nn.ModuleDict({"attn": nn.Linear(2, 2)}))
    assert len(match_modules(net, [nn.Linear])) == 22 + 3
    assert list(match_modules(net, ["norm.**"])) == ["norm"]
    assert "norm.peft" in match_modules(net, ["norm.**"], ignore="other")
    net.add_module("peftless", nn.Linear(2, 2))
    assert list(match_modules(net, ["peft*"])) == ["peftless"]


def test_a_module_under_two_paths_is_found_under_the_first():
    shared = nn.Linear(2, 2)
    assert list(match_modules(nn.ModuleDict({"a": shared, "b": shared}), [nn.Linear])) == ["a"]


def test_a_bad_regular_expression_is_an_error(net: Net):
    message = r"'head' to hold a regular expression after 're:' .got 're:\(': missing \)"
    with pytest.raises(ValueError, match=message):
        match_modules(net, ["norm", "re:("], argument="head")


def test_a_target_of_another_type_is_an_error(net: Net):
    with pytest.raises(TypeError, match=r"'target_modules' to hold paths, .*\(got 1\)"):
        match_modules(net, [1])  # type: ignore[list-item]


def test_frozen_buffers_do_not_move(net: Net):
    freeze(net)
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    net.norm(torch.randn(5, 2))
    assert all(torch.equal(buffer, before[name]) for name, buffer in net.named_buffers())


def test_a_glob_of_many_stars_takes_no_longer_than_one_of_few():
    net: nn.Module = nn.Linear(1, 1)
    for _ in range(24):
        net = nn.ModuleDict({"a": net})
    deepest = ".".join("a" * 24)
    assert list(match_modules(net, [".".join(["**", "a"] * 24)])) == [deepest]
    with pytest.raises(PlacementError):
        match_modules(net, [".".join(["**"] * 40) + ".b"])
