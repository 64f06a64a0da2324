"""Models as a user of PyG writes them: PointNet++, Point Transformer, DGCNN, and their decoders."""

import ctypes
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import (
    MLP,
    DynamicEdgeConv,
    Linear,
    PointNetConv,
    PointTransformerConv,
    fps,
    global_max_pool,
    global_mean_pool,
    knn,
    knn_graph,
    knn_interpolate,
    radius,
)
from torch_geometric.utils import scatter

CLASSES = 4
PARTS = 3


class SetAbstraction(nn.Module):
    """Sample, group, and convolve from all points to the sampled ones."""

    def __init__(self, ratio: float, r: float, channels: list[int]) -> None:
        super().__init__()
        self.ratio, self.r = ratio, r
        self.conv = PointNetConv(MLP(channels), add_self_loops=False)

    def forward(self, x: Tensor | None, pos: Tensor, batch: Tensor) -> tuple[Any, Tensor, Tensor]:
        index = fps(pos, batch, ratio=self.ratio)
        row, col = radius(pos, pos[index], self.r, batch, batch[index], max_num_neighbors=64)
        edge_index = torch.stack([col, row], dim=0)
        x_dst = None if x is None else x[index]
        x = self.conv((x, x_dst), (pos, pos[index]), edge_index)
        return x, pos[index], batch[index]


class GlobalSetAbstraction(nn.Module):
    """One row per cloud."""

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        self.nn = MLP(channels)

    def forward(self, x: Tensor, pos: Tensor, batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.nn(torch.cat([x, pos], dim=1))
        x = global_max_pool(x, batch)
        pos = pos.new_zeros((x.size(0), 3))
        return x, pos, torch.arange(x.size(0), device=batch.device)


class FeaturePropagation(nn.Module):
    """Back to more points, with what they had on the way down."""

    def __init__(self, k: int, channels: list[int]) -> None:
        super().__init__()
        self.k = k
        self.nn = MLP(channels)

    def forward(
        self,
        x: Tensor,
        pos: Tensor,
        batch: Tensor,
        x_skip: Tensor | None,
        pos_skip: Tensor,
        batch_skip: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        x = knn_interpolate(x, pos, pos_skip, batch, batch_skip, k=self.k)
        x = x if x_skip is None else torch.cat([x, x_skip], dim=1)
        return self.nn(x), pos_skip, batch_skip


class PointNet2Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.sa1_module = SetAbstraction(0.5, 0.8, [3, 16, 16])
        self.sa2_module = SetAbstraction(0.5, 1.6, [16 + 3, 16, 24])
        self.sa3_module = GlobalSetAbstraction([24 + 3, 24, 32])
        self.mlp = MLP([32, 16, CLASSES], dropout=0.5, norm=None)

    def forward(self, data: Data) -> Tensor:
        sa0_out = (data.x, data.pos, data.batch)
        sa1_out = self.sa1_module(*sa0_out)
        sa2_out = self.sa2_module(*sa1_out)
        x, _, _ = self.sa3_module(*sa2_out)
        return self.mlp(x).log_softmax(dim=-1)


class PointNet2Segmenter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.sa1_module = SetAbstraction(0.5, 0.8, [3 + 3, 16, 16])
        self.sa2_module = SetAbstraction(0.5, 1.6, [16 + 3, 16, 24])
        self.sa3_module = GlobalSetAbstraction([24 + 3, 24, 32])
        self.fp3_module = FeaturePropagation(1, [32 + 24, 24])
        self.fp2_module = FeaturePropagation(3, [24 + 16, 16])
        self.fp1_module = FeaturePropagation(3, [16 + 3, 16, 16])
        self.mlp = MLP([16, 16, PARTS], dropout=0.5, norm=None)
        self.lin1 = Linear(16, 16)
        self.lin2 = Linear(16, PARTS)

    def forward(self, data: Data) -> Tensor:
        sa0_out = (data.x, data.pos, data.batch)
        sa1_out = self.sa1_module(*sa0_out)
        sa2_out = self.sa2_module(*sa1_out)
        sa3_out = self.sa3_module(*sa2_out)
        fp3_out = self.fp3_module(*sa3_out, *sa2_out)
        fp2_out = self.fp2_module(*fp3_out, *sa1_out)
        x, _, _ = self.fp1_module(*fp2_out, *sa0_out)
        return self.mlp(x).log_softmax(dim=-1)


class TransformerBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.lin_in = Linear(channels, channels)
        self.lin_out = Linear(channels, channels)
        # Shared with the convolution: two paths lead to each.
        self.pos_nn = MLP([3, 16, channels], norm=None, plain_last=False)
        self.attn_nn = MLP([channels, 16, channels], norm=None, plain_last=False)
        self.transformer = PointTransformerConv(
            channels, channels, pos_nn=self.pos_nn, attn_nn=self.attn_nn
        )

    def forward(self, x: Tensor, pos: Tensor, edge_index: Tensor) -> Tensor:
        x = self.lin_in(x).relu()
        x = self.transformer(x, pos, edge_index)
        return self.lin_out(x).relu()


class TransitionDown(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, ratio: float = 0.5, k: int = 4) -> None:
        super().__init__()
        self.k, self.ratio = k, ratio
        self.mlp = MLP([in_channels, out_channels], plain_last=False)

    def forward(
        self, x: Tensor, pos: Tensor, batch: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        clusters = fps(pos, ratio=self.ratio, batch=batch)
        sub_batch = None if batch is None else batch[clusters]
        edges = knn(pos, pos[clusters], k=self.k, batch_x=batch, batch_y=sub_batch)
        x = self.mlp(x)
        out = scatter(x[edges[1]], edges[0], dim=0, dim_size=clusters.size(0), reduce="max")
        return out, pos[clusters], sub_batch


class TransitionUp(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.mlp_sub = MLP([in_channels, out_channels], plain_last=False)
        self.mlp = MLP([out_channels, out_channels], plain_last=False)

    def forward(
        self,
        x: Tensor,
        x_sub: Tensor,
        pos: Tensor,
        pos_sub: Tensor,
        batch: Tensor | None = None,
        batch_sub: Tensor | None = None,
    ) -> Tensor:
        x_sub = self.mlp_sub(x_sub)
        raised = knn_interpolate(x_sub, pos_sub, pos, k=3, batch_x=batch_sub, batch_y=batch)
        return self.mlp(x) + raised


class PointTransformerClassifier(nn.Module):
    def __init__(self, widths: tuple[int, ...] = (16, 24), k: int = 4) -> None:
        super().__init__()
        self.k = k
        self.mlp_input = MLP([1, widths[0]], plain_last=False)
        self.transformer_input = TransformerBlock(widths[0])
        self.transformers_down = nn.ModuleList()
        self.transition_down = nn.ModuleList()
        for narrow, wide in pairwise(widths):
            self.transition_down.append(TransitionDown(narrow, wide))
            self.transformers_down.append(TransformerBlock(wide))
        self.mlp_output = MLP([widths[-1], 16, CLASSES], norm=None)

    def forward(self, x: Any, pos: Tensor, batch: Tensor | None = None) -> Tensor:
        x = self.mlp_input(pos.new_ones(pos.size(0), 1) if x is None else x)
        edge_index = knn_graph(pos, k=self.k, batch=batch)
        x = self.transformer_input(x, pos, edge_index)
        for down, block in zip(self.transition_down, self.transformers_down, strict=True):
            x, pos, batch = down(x, pos, batch=batch)
            edge_index = knn_graph(pos, k=self.k, batch=batch)
            x = block(x, pos, edge_index)
        return F.log_softmax(self.mlp_output(global_mean_pool(x, batch)), dim=-1)


class PointTransformerSegmenter(nn.Module):
    def __init__(self, widths: tuple[int, ...] = (16, 24), k: int = 4) -> None:
        super().__init__()
        self.k = k
        self.mlp_input = MLP([1, widths[0]], plain_last=False)
        self.transformer_input = TransformerBlock(widths[0])
        self.transformers_down = nn.ModuleList()
        self.transition_down = nn.ModuleList()
        self.transformers_up = nn.ModuleList()
        self.transition_up = nn.ModuleList()
        for narrow, wide in pairwise(widths):
            self.transition_down.append(TransitionDown(narrow, wide))
            self.transformers_down.append(TransformerBlock(wide))
            self.transition_up.append(TransitionUp(wide, narrow))
            self.transformers_up.append(TransformerBlock(narrow))
        self.mlp_summit = MLP([widths[-1], widths[-1]], norm=None, plain_last=False)
        self.transformer_summit = TransformerBlock(widths[-1])
        self.mlp_output = MLP([widths[0], 16, PARTS], norm=None)

    def forward(self, x: Tensor | None, pos: Tensor, batch: Tensor | None = None) -> Tensor:
        x = self.mlp_input(pos.new_ones(pos.size(0), 1) if x is None else x)
        edge_index = knn_graph(pos, k=self.k, batch=batch)
        x = self.transformer_input(x, pos, edge_index)
        levels = [(x, pos, batch, edge_index)]
        for down, block in zip(self.transition_down, self.transformers_down, strict=True):
            x, pos, batch = down(x, pos, batch=batch)
            edge_index = knn_graph(pos, k=self.k, batch=batch)
            x = block(x, pos, edge_index)
            levels.append((x, pos, batch, edge_index))
        x = self.transformer_summit(self.mlp_summit(x), pos, edge_index)
        for level in range(len(self.transition_up) - 1, -1, -1):
            skip, skip_pos, skip_batch, edge_index = levels[level]
            x = self.transition_up[level](
                x=skip, x_sub=x, pos=skip_pos, pos_sub=pos, batch_sub=batch, batch=skip_batch
            )
            x, pos, batch = (
                self.transformers_up[level](x, skip_pos, edge_index),
                skip_pos,
                skip_batch,
            )
        return F.log_softmax(self.mlp_output(x), dim=-1)


class DGCNNClassifier(nn.Module):
    def __init__(self, k: int = 4) -> None:
        super().__init__()
        self.conv1 = DynamicEdgeConv(MLP([2 * 3, 16, 16]), k, "max")
        self.conv2 = DynamicEdgeConv(MLP([2 * 16, 24]), k, "max")
        self.lin1 = Linear(24 + 16, 32)
        self.mlp = MLP([32, 16, CLASSES], dropout=0.5, norm=None)

    def forward(self, data: Data) -> Tensor:
        pos, batch = data.pos, data.batch
        x1 = self.conv1(pos, batch)
        x2 = self.conv2(x1, batch)
        out = self.lin1(torch.cat([x1, x2], dim=1))
        return F.log_softmax(self.mlp(global_max_pool(out, batch)), dim=1)


class DGCNNSegmenter(nn.Module):
    def __init__(self, k: int = 4) -> None:
        super().__init__()
        self.conv1 = DynamicEdgeConv(MLP([2 * 6, 16, 16]), k, "max")
        self.conv2 = DynamicEdgeConv(MLP([2 * 16, 16]), k, "max")
        self.mlp = MLP([16 + 16, 32, PARTS], dropout=0.5, norm=None)

    def forward(self, data: Data) -> Tensor:
        features: Any = data.x
        pos: Any = data.pos
        x0, batch = torch.cat([features, pos], dim=-1), data.batch
        x1 = self.conv1(x0, batch)
        x2 = self.conv2(x1, batch)
        return F.log_softmax(self.mlp(torch.cat([x1, x2], dim=1)), dim=1)


# Model, how it is called, whether a row of its output is a point, layers to adapt, and its head.
MODELS: dict[str, tuple[type[nn.Module], bool, bool, tuple[Any, ...], str]] = {
    "pointnet2 cls": (PointNet2Classifier, True, False, ("sa[12]_module.conv",), "mlp"),
    "pointnet2 cls modules": (PointNet2Classifier, True, False, ("sa[12]_module",), "mlp"),
    "pointnet2 seg": (PointNet2Segmenter, True, True, ("sa[12]_module", "fp?_module"), "mlp"),
    "transformer cls": (
        PointTransformerClassifier,
        False,
        False,
        ("transformers_down.*",),
        "mlp_output",
    ),
    "transformer cls convs": (
        PointTransformerClassifier,
        False,
        False,
        (PointTransformerConv,),
        "mlp_output",
    ),
    "transformer seg": (
        PointTransformerSegmenter,
        False,
        True,
        ("transformers_*.*", "transition_down.*", "transition_up.*"),
        "mlp_output",
    ),
    "dgcnn cls": (DGCNNClassifier, True, False, ("conv*",), "mlp"),
    "dgcnn seg": (DGCNNSegmenter, True, True, (DynamicEdgeConv,), "mlp"),
}


def seed_fps() -> None:
    """Give the next random starts of ``fps``: torch's, and C's for ``torch_cluster``."""
    torch.manual_seed(0)
    ctypes.CDLL(None).srand(0)


def call_model(name: str, model: nn.Module, pos: Tensor, batch: Tensor) -> Tensor:
    """Call a model as its example script does, with the same random start of ``fps`` each time."""
    seed_fps()
    _, takes_data, _, _, _ = MODELS[name]
    if not takes_data:
        return model(None, pos, batch)
    x = pos.flip(1) if name.endswith("seg") else None
    return model(Batch(x=x, pos=pos, batch=batch))
