"""Chromoformer in NumPy as the paper draws it, whole and slow, for one gene at a time.

Every position of every region is a token, asks and is asked; weights go by their published names.
Tests compare attention weights with it, which the published package does not return.
"""

import numpy as np


def attend(query, key, value, heads, allowed=True, drawn=0.0):
    """`softmax(q k / sqrt(E) + drawn) v` by head: weights `[H Q K]` and vectors `[Q H*E]`."""
    q, k, v = (x.reshape(len(x), heads, -1).swapaxes(0, 1) for x in (query, key, value))
    score = np.where(allowed, q @ k.swapaxes(1, 2) / np.sqrt(q.shape[2]) + drawn, -1e9)
    weight = np.exp(score - score.max(-1, keepdims=True))
    weight /= weight.sum(-1, keepdims=True)
    return weight, (weight @ v).swapaxes(0, 1).reshape(len(query), -1)


def layer(state, name, x, vector):
    """What follows attention: project, add, normalise; two dense layers, add, normalise."""

    def dense(part, y):
        return y @ state[f"{name}.{part}.weight"].T + state[f"{name}.{part}.bias"]

    def norm(part, y):
        y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-5)
        return y * state[f"{name}.{part}.weight"] + state[f"{name}.{part}.bias"]

    x = norm("self_att.ln", x + dense("self_att.ff", vector))
    return norm("ff.ln", x + dense("ff.l2", np.maximum(dense("ff.l1", x), 0)))


def network(state, config, genes, g):
    """Outputs `[O]`, and of the first resolution the weights of the three stages."""
    there = genes["contacts"][g]
    read, weights = [], []
    for i, b in enumerate(config.resolutions):
        length = config.positions[i]
        angle = np.arange(length)[:, None] / 10_000 ** (
            np.arange(0, config.embedding, 2) / config.embedding
        )
        code = np.stack([np.sin(angle), np.cos(angle)], -1).reshape(length, -1)
        own = genes["promoter_valid"][i][g]
        x = genes["promoter"][i][g].T @ state[f"embed.{b}.lin_proj.weight"].T + code
        for j in range(config.embed_layers):
            name = f"embed.{b}.transformer.layers.{j}"
            inputs = np.split(x @ state[f"{name}.self_att.att.weight"].T, 3, -1)
            looked, vector = attend(*inputs, config.embed_heads, own[:, None] & own)
            x = layer(state, name, x, vector)
        tokens, looks = [x[length // 2]], []
        for n in range(there):
            name = f"pairwise_interaction.{b}"
            seen = own[:, None] & genes["region_valid"][i][g, n]
            context = genes["region"][i][g, n].T @ state[f"{name}.lin_proj_pcre.weight"].T + code
            stream = x @ state[f"{name}.lin_proj_p.weight"].T
            for j in range(config.pairwise_layers):
                own_name = f"{name}.transformer.layers.{j}"
                query = stream @ state[f"{own_name}.self_att.p_att.weight"].T
                inputs = np.split(context @ state[f"{own_name}.self_att.c_att.weight"].T, 2, -1)
                look, vector = attend(query, *inputs, config.pairwise_heads, seen)
                stream = layer(state, own_name, stream, vector)
                looks.append(look[:, length // 2])
            tokens.append(stream[length // 2])
        y, shares = np.stack(tokens), []
        frequency = np.zeros((there + 1, there + 1))
        frequency[0, 1:] = genes["score"][g, :there]
        for j in range(config.regulation_layers):
            name = f"regulation.{b}.transformer.layers.{j}"
            *inputs, gate = np.split(y @ state[f"{name}.self_att.att.weight"].T, 4, -1)
            drawn = state[f"{name}.self_att.gamma_f"][:, None, None] * frequency
            share, vector = attend(*inputs, config.regulation_heads, drawn=drawn)
            y = layer(state, name, y, vector / (1 + np.exp(-gate)))
            shares.append(share)
        read.append(tokens[0] + y[0])
        weights.append((looked[:, length // 2], looks, shares))
    hidden = np.concatenate(read) @ state["fc_head.0.weight"].T + state["fc_head.0.bias"]
    outputs = np.maximum(hidden, 0) @ state["fc_head.2.weight"].T + state["fc_head.2.bias"]
    return outputs, weights[0]
