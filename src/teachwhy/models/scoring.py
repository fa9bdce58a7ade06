"""Log-probabilities of continuations with local weights: what texts share is run once, in one masked forward pass.

A row is one prefix and its continuations as a tree: tokens that continuations begin with alike stand once, and the last
token of each stands nowhere, since nothing is read after it. A token sees its ancestors and itself; its position is its
depth. What all prefixes of a call begin with (the system prompt, mostly) is run once and kept as a key-value cache.
Shapes: n_rows x n_tokens, padded on the right.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch

MAX_TOKENS = 1024
"""Padded tokens in one forward pass: what bounds the memory. Larger batches were slower on a CPU."""


class Tree(NamedTuple):
    """One row. Node i has token `ids[i]` and the parent `parents[i]`, an earlier node, or -1 for the root."""

    ids: list[int]
    parents: list[int]
    sources: list[list[tuple[int, int]]]
    """For each continuation, for each of its tokens: the node whose output predicts it, and the token."""


def score_ids(model: Any, prefixes: Sequence[Sequence[int]], continuations: Sequence[Sequence[Sequence[int]]]) -> list[list[list[float]]]:
    """Log-probability (nats, fp32) of every token of every continuation, in the order given.

    Rows are scored in batches of like length. Raises ValueError for an empty prefix or continuation.
    """
    import torch

    if any(not prefix for prefix in prefixes) or any(not group or not all(group) for group in continuations):
        raise ValueError("a prefix or a continuation has no tokens")
    n_shared = count_shared(prefixes)
    trees = [grow_tree(prefix[n_shared:], group) for prefix, group in zip(prefixes, continuations, strict=True)]
    order = sorted(range(len(trees)), key=lambda row: -len(trees[row].ids))
    found: dict[int, list[list[float]]] = {}
    with torch.inference_mode():
        shared = _run_shared(model, prefixes[0][:n_shared]) if n_shared else None
        while order:
            size = max(1, MAX_TOKENS // len(trees[order[0]].ids))
            batch, order = order[:size], order[size:]
            found.update(zip(batch, _score_batch(model, [trees[row] for row in batch], n_shared, shared), strict=True))
    return [found[row] for row in range(len(trees))]


def count_shared(prefixes: Sequence[Sequence[int]]) -> int:
    """Tokens with which all prefixes begin; the last token of a prefix is never among them. 0 for a single prefix."""
    if len(prefixes) < 2:
        return 0
    columns = zip(*(prefix[:-1] for prefix in prefixes), strict=False)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


def grow_tree(prefix: Sequence[int], continuations: Sequence[Sequence[int]]) -> Tree:
    """The tree of one prefix (not empty) and its continuations."""
    tree = Tree(list(prefix), list(range(-1, len(prefix) - 1)), [])
    children: dict[tuple[int, int], int] = {}
    for continuation in continuations:
        node = len(prefix) - 1
        tree.sources.append([])
        for place, token in enumerate(continuation):
            tree.sources[-1].append((node, token))
            if place == len(continuation) - 1:
                break
            if (node, token) not in children:
                children[node, token] = len(tree.ids)
                tree.ids.append(token)
                tree.parents.append(node)
            node = children[node, token]
    return tree


def _run_shared(model: Any, ids: Sequence[int]) -> Any:
    import torch

    device = next(model.parameters()).device
    return model.get_decoder()(input_ids=torch.tensor([list(ids)], device=device), use_cache=True).past_key_values


def _score_batch(model: Any, trees: list[Tree], n_shared: int, shared: Any) -> list[list[list[float]]]:
    import torch

    device = next(model.parameters()).device
    ids, positions, sees = (tensor.to(device) for tensor in lay_out(trees, n_shared))
    cache = None
    if shared is not None:
        cache = deepcopy(shared)
        cache.batch_repeat_interleave(len(trees))
    output = model.get_decoder()(
        input_ids=ids,
        position_ids=positions,
        attention_mask=additive_mask(sees, model.dtype),
        past_key_values=cache,
        use_cache=cache is not None,
    )
    spots = sorted({(row, node) for row, tree in enumerate(trees) for part in tree.sources for node, _ in part})
    rows, nodes = torch.tensor(spots, device=device).T
    logprobs = torch.log_softmax(model.get_output_embeddings()(output.last_hidden_state[rows, nodes]).float(), dim=-1)
    number = {spot: index for index, spot in enumerate(spots)}
    wanted = [(number[row, node], token) for row, tree in enumerate(trees) for part in tree.sources for node, token in part]
    indices, tokens = torch.tensor(wanted, device=device).T
    flat = iter(logprobs[indices, tokens].tolist())
    return [[[next(flat) for _ in part] for part in tree.sources] for tree in trees]


def lay_out(trees: Sequence[Tree], n_shared: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token ids and positions (n_rows x n_tokens), and who sees whom (n_rows x n_tokens x (n_shared + n_tokens), True: sees)."""
    import torch

    n_tokens = max(len(tree.ids) for tree in trees)
    ids = torch.zeros(len(trees), n_tokens, dtype=torch.long)
    sees = torch.eye(n_tokens, dtype=torch.bool).repeat(len(trees), 1, 1)  # padding sees itself: a row without any key would give NaN
    for row, tree in enumerate(trees):
        ids[row, : len(tree.ids)] = torch.tensor(tree.ids)
        for node, parent in enumerate(tree.parents):
            if parent >= 0:
                sees[row, node] |= sees[row, parent]
    positions = n_shared + sees.sum(-1) - 1
    return ids, positions, torch.cat([torch.ones(len(trees), n_tokens, n_shared, dtype=torch.bool), sees], dim=-1)


def additive_mask(sees: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """True: sees -> 0, False -> the lowest number; n_rows x 1 x n_queries x n_keys, which every attention takes."""
    import torch

    return torch.zeros(sees.shape, dtype=dtype, device=sees.device).masked_fill(~sees, torch.finfo(dtype).min)[:, None]
