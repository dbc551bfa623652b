"""The best message-passing network of its time on QM9: edge network, gated updates, set2set."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

ATOM_FEATURES, BOND_FEATURES = 11, 4  # of PyG's QM9, and of ours with features=True
_SPREAD = 10.0  # what the network learns deviates by about one, as in the paper; energies by this more
_NEAR, _FAR, _SLOPE = 1.0, 7.0, 0.5  # Å and 1/Å: where the first hidden units of a distance end, at the start
_QUIET = 0.1  # of usual weights of messages: a sum over all atoms comes in at each


class ENNS2S(nn.Module):
    r"""Messages between all atoms of a molecule by matrices that depend on bond and distance.

    .. math::
        \mathbf{m}_v = \sum_{w \ne v} A(\mathbf{e}_{vw}) \mathbf{h}_w, \qquad
        \mathbf{h}_v \leftarrow \mathrm{GRU}(\mathbf{h}_v, \mathbf{m}_v), \qquad
        \hat y = R(\mathrm{set2set}(\{\mathbf{h}_v^{(T)}, \mathbf{x}_v\}))

    :math:`A` is a network whose last layer gives a matrix. It is linear in its last hidden units :math:`k`,
    so that :math:`\sum_w A(\mathbf{e}_w) \mathbf{h}_w = \sum_k W_k \sum_w a_k(\mathbf{e}_w) \mathbf{h}_w`
    needs no matrix for each pair of atoms. Edges have no direction: the network sees each pair once. The
    first states are linear in the few features :math:`\mathbf{x}_v`, and so are the first messages.

    Args:
        hidden_channels: Length of :math:`\mathbf{h}`.
        edge_channels: Last hidden units of the edge network.
        edge_hidden_channels: Hidden units before them.
        num_passes: Number of passes :math:`T`, with the same weights.
        readout_steps: Steps of set2set.

    Source:
        Gilmer, Schoenholz, Riley, Vinyals, Dahl, ICML 2017 (arXiv:1704.01212), sections 5 and 5.2, edges of
        raw distance and bond type ("virtual" edges elsewhere). Its 3 to 8 passes, 1 to 12 steps and widths
        were searched for each target; ours are what learns most in an hour (benchmarks/LOG.md).
    """

    def __init__(
        self,
        hidden_channels: int = 48,
        edge_channels: int = 16,
        edge_hidden_channels: int = 48,
        num_passes: int = 3,
        readout_steps: int = 3,
    ):
        super().__init__()
        self.num_passes = num_passes
        self.embedding = nn.Linear(ATOM_FEATURES + 1, hidden_channels, bias=False)
        self.edge_network = nn.Sequential(
            *(nn.Linear(BOND_FEATURES + 2, edge_hidden_channels), nn.ReLU()),
            *(nn.Linear(edge_hidden_channels, edge_channels), nn.ReLU()),
        )
        self.to_message = nn.Linear(hidden_channels * (edge_channels + 1), hidden_channels)  # W_k
        self.update = nn.GRUCell(hidden_channels, hidden_channels)
        self.readout = Set2Set(hidden_channels + ATOM_FEATURES + 1, readout_steps)
        self.dense1 = nn.Linear(2 * (hidden_channels + ATOM_FEATURES + 1), hidden_channels)
        self.dense2 = nn.Linear(hidden_channels, 1)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Begin with zero energies, and with hidden units that tell near atoms apart, not far ones."""
        nn.init.zeros_(self.dense2.weight)
        nn.init.zeros_(self.dense2.bias)
        first = cast(nn.Linear, self.edge_network[0])
        first.weight[:, -1] = -_SLOPE  # the distance is the last input
        first.bias.copy_(_SLOPE * torch.linspace(_NEAR, _FAR, len(first.bias)))
        self.to_message.weight *= _QUIET

    def forward(
        self,
        z: Tensor,
        pos: Tensor,
        batch: Tensor,
        x: Tensor,
        edge_index: Tensor,
        edge_attr: Tensor,
        num_molecules: int,
    ) -> Tensor:
        """Predict one number for each molecule, ``(molecules,)``.

        Args:
            z: Not looked at: ``x`` has it.
            pos: In Å.
            batch: Number of the molecule of each atom, in ascending order.
            x: Features of the atoms, ``(atoms, 11)``.
            edge_index: Bonds, ``(2, bonds)``, in one direction or both.
            edge_attr: Their type, ``(bonds, 4)``.
            num_molecules: Number of molecules.
        """
        squares = Squares(batch, num_molecules)
        dtype = self.dense1.weight.dtype
        features = squares.by_molecule(functional.pad(x.to(dtype), (0, 1), value=1.0))  # and one, for biases
        edges = self._edges(squares, pos.to(dtype), edge_index, edge_attr.to(dtype))
        pairs = squares.by_pair(self.edge_network(edges)).mT  # (molecules, v k, w): v and w may change places
        kernel = self.to_message.weight
        first = kernel.view(-1, self.embedding.out_features) @ self.embedding.weight  # acts on features
        messages = self._messages(pairs, features, first.view(len(kernel), -1))
        h = self.update(messages, self.embedding(features).flatten(0, 1))
        for _ in range(self.num_passes - 1):
            h = self.update(self._messages(pairs, h.view(*squares.mask.shape, -1), kernel), h)
        states = torch.cat([h.view(*squares.mask.shape, -1), features], dim=-1)
        pooled = self.readout(states, squares.mask)
        return _SPREAD * self.dense2(torch.relu(self.dense1(pooled))).squeeze(-1)

    def _edges(self, squares: Squares, pos: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        """Describe each pair by the type of its bond, if it has one, and the distance."""
        bonds = pos.new_zeros(len(squares.v), BOND_FEATURES)
        bonds[squares.pair(*edge_index)] = edge_attr
        distance = (pos.index_select(0, squares.v) - pos.index_select(0, squares.w)).square().sum(-1).sqrt()
        return torch.cat([bonds, 1 - bonds.sum(-1, keepdim=True), distance[:, None]], dim=-1)

    def _messages(self, pairs: Tensor, states: Tensor, kernel: Tensor) -> Tensor:
        """Add up what the atoms of each molecule say to each: ``(molecules size, channels)``."""
        sums = (pairs @ states).view(states.shape[:2].numel(), -1)  # (molecules v, k channels)
        return functional.linear(sums, kernel, self.to_message.bias)


class Squares:
    """Molecules of different sizes in tensors of one, the largest's: rows of atoms, squares of pairs.

    Args:
        batch: Number of the molecule of each atom, in ascending order.
        num_molecules: Number of molecules.

    Attributes:
        mask: Which rows are atoms, ``(molecules, size)``.
        v: One atom of each pair, ``(pairs,)``.
        w: The other, which comes later.
    """

    def __init__(self, batch: Tensor, num_molecules: int):
        counts = batch.bincount(minlength=num_molecules)
        row = torch.arange(int(counts.max()), device=batch.device)
        self.batch = batch
        self.mask = row < counts[:, None]
        self.place = self.mask.flatten().nonzero().squeeze(-1)  # row of each atom, molecules in succession
        upper = self.mask[:, :, None] & self.mask[:, None, :] & (row[:, None] < row)
        molecule, v, w = upper.nonzero(as_tuple=True)
        first = counts.cumsum(0) - counts
        self.v, self.w = (first.index_select(0, molecule) + atom for atom in (v, w))
        numbers = torch.arange(len(v), device=batch.device)
        self._number = torch.full(upper.shape, len(v), device=batch.device)  # the last one stands for none
        self._number[molecule, v, w] = numbers
        self._number[molecule, w, v] = numbers

    def pair(self, v: Tensor, w: Tensor) -> Tensor:
        """Give the numbers of pairs of atoms of a molecule."""
        size = self.mask.size(1)
        return self._number[self.batch[v], self.place[v] % size, self.place[w] % size]

    def by_molecule(self, values: Tensor) -> Tensor:
        """Put the values of atoms in rows, ``(molecules, size, channels)``, zero where there is none."""
        rows = values.new_zeros(self.mask.numel(), values.size(1)).index_copy(0, self.place, values)
        return rows.view(*self.mask.shape, -1)

    def by_pair(self, values: Tensor) -> Tensor:
        """Put the values of pairs, and a one, in squares, ``(molecules, size, size channels)``."""
        values = functional.pad(functional.pad(values, (0, 1), value=1.0), (0, 0, 0, 1))
        return values.index_select(0, self._number.flatten()).view(*self.mask.shape, -1)


class Set2Set(nn.Module):
    r"""A reader of sets, which asks each atom and remembers the answers.

    .. math::
        \mathbf{q}_t = \mathrm{LSTM}(\mathbf{q}_{t-1}, \mathbf{r}_{t-1}), \qquad
        \mathbf{r}_t = \sum_v \mathrm{softmax}_v(\mathbf{x}_v \cdot \mathbf{q}_t)\, \mathbf{x}_v

    PyG's, with rows of one length instead of scattered atoms: a third of the time.

    Args:
        channels: Length of :math:`\mathbf{x}`.
        steps: How often it asks.

    Source:
        Vinyals, Bengio, Kudlur, ICLR 2016 (arXiv:1511.06391), section 4.
    """

    def __init__(self, channels: int, steps: int):
        super().__init__()
        self.steps = steps
        self.lstm = nn.LSTMCell(2 * channels, channels)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return the last question and answer, ``(sets, 2 channels)``.

        Args:
            x: ``(sets, size, channels)``.
            mask: Which of them count, ``(sets, size)``.
        """
        absent = x.new_zeros(mask.shape).masked_fill(~mask, -torch.inf)
        told, memory = x.new_zeros(len(x), 2 * x.size(2)), None
        for _ in range(self.steps):
            memory = self.lstm(told, memory)
            question = memory[0]
            weights = torch.softmax((x @ question[:, :, None]).squeeze(-1) + absent, dim=-1)
            told = torch.cat([question, (weights[:, None] @ x).squeeze(1)], dim=-1)
        return told
