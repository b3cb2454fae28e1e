"""Laws of the small parts: norm, feed-forward, residual rule, mask, embedding, head."""

from __future__ import annotations

import torch
from torch import nn

from blocks.contracts import IGNORE, Embedding, Ffn, Head, Layout, Mask, Norm, Residual
from blocks.laws.trying import (
    EXACT,
    B,
    D,
    T,
    V,
    agree,
    beside,
    draw,
    dtype_and_device,
    full,
    hold,
    tree,
    unreached,
    with_padding,
)


@torch.no_grad()
def norms_each_token_alone(norm: Norm) -> None:
    x = draw(norm, B, T, D)
    y = norm(x)
    hold(y.shape == x.shape and y.dtype == x.dtype, "a norm must keep shape and dtype, but does not.")
    agree(norm(x[:, 3:4]), y[:, 3:4], "a token alone and among others")
    wild = torch.cat([torch.zeros_like(x[:1]), 1e6 * x[:1], 1e-6 * x[:1]])
    hold(norm(wild).isfinite().all(), "a norm of zeros, large and small numbers must be finite, but is not.")


def uses_every_parameter_of_features(module: nn.Module) -> None:
    if not any(p.requires_grad for p in module.parameters()):
        return
    x = draw(module, B, T, D)
    y = module(x)
    (y * draw(module, *y.shape, seed=1)).sum().backward()
    idle = [name for name, p in module.named_parameters() if p.requires_grad and unreached(p)]
    module.zero_grad(set_to_none=True)
    hold(not idle, f"every parameter must get a gradient, but these get none: {', '.join(idle)}.")


@torch.no_grad()
def stays_within_its_document(ffn: Ffn) -> None:
    """Padding changes no real token, documents stay apart, and calls of any size agree."""
    x, layout = draw(ffn, B, T, D), full(ffn)
    whole = ffn(x, layout)[0]
    hold(whole.shape == x.shape and whole.dtype == x.dtype, "a feed-forward must keep shape and dtype, but does not.")
    noise = 9.0 * draw(ffn, B, 4, D, seed=1)
    y = ffn(torch.cat([noise[:, :2], x, noise[:, 2:]], dim=1), with_padding(layout, 2, 2))[0]
    agree(y[:, 2 : 2 + T], whole, "padding on both sides")
    packed = ffn(torch.cat([x[:, :4], x], dim=1), beside(layout.slice(0, 4), layout))[0]
    agree(packed[:, 4:], whole, "a document behind another")
    other = x.clone()
    other[:, 6:] = draw(ffn, B, T - 6, D, seed=1)
    off = (ffn(other, layout)[0][:, :6] - whole[:, :6]).abs().max().item()
    hold(off <= EXACT, f"later tokens must not change earlier ones, but change them by {off:.2e}.")
    state, outputs = ffn.empty_state(B), []
    for start, stop in ((0, 5), (5, 6), (6, T)):
        y, state = ffn(x[:, start:stop], layout.slice(start, stop), state)
        outputs.append(y)
    agree(torch.cat(outputs, dim=1), whole, "calls of 5, 1 and the rest")


def reports_finite_losses(ffn: Ffn) -> None:
    layout = with_padding(full(ffn, B, T - 2), 1, 1).fresh()
    ffn(draw(ffn, B, T, D), layout)
    assert layout.scratch is not None
    for name, losses in layout.scratch.losses.items():
        for loss in losses:
            hold(
                loss.ndim == 0 and loss.isfinite(), f"the auxiliary loss {name!r} must be a finite scalar, but is not."
            )


def ties_to_the_stream(residual: Residual) -> None:
    """A sublayer reads (B, T, D), and what it writes reaches the stream and the gradient."""
    shape = (B, T, D) if residual.streams == 1 else (B, T, residual.streams, D)
    x, y = draw(residual, *shape).requires_grad_(), draw(residual, B, T, D, seed=1).requires_grad_()
    seen = residual.read(x)
    hold(seen.shape == (B, T, D), f"the input of a sublayer must be {(B, T, D)}, but is {tuple(seen.shape)}.")
    out = residual.write(x, y)
    hold(out.shape == x.shape and out.dtype == x.dtype, "the stream must keep its shape and dtype, but does not.")
    (out.square().sum() + (seen * draw(residual, B, T, D, seed=2)).sum()).backward()
    for name, p in residual.named_parameters():
        hold(p.grad is not None and p.grad.any(), f"every parameter must get a gradient, but {name} gets none.")
    residual.zero_grad(set_to_none=True)
    hold(x.grad is not None and x.grad.any(), "the stream must pass its gradient on, but does not.")


@torch.no_grad()
def hides_what_it_says(mask: Mask) -> None:
    """``causal`` and ``window`` are true of ``sees``, documents stay apart, and the rule broadcasts."""
    device = torch.get_default_device()
    layout = beside(*(Layout.full(2, n, device)._replace(heads=tree(2, n, device)) for n in (40, 7)))
    layout = with_padding(layout, 2, 1)
    allowed = mask(layout, layout)
    n = layout.position.shape[1]
    hold(allowed.shape == (2, n, n) and allowed.dtype == torch.bool, f"a mask must be bool {(2, n, n)}, but is not.")
    back = layout.position[:, :, None] - layout.position[:, None, :]
    same = (layout.document[:, :, None] == layout.document[:, None, :]) & layout.real[:, None, :]
    hold(not (allowed & ~same).any(), "a mask must hide other documents and padding, but shows some.")
    hold(not mask.causal or not (allowed & (back < 0)).any(), "a causal mask must hide the future, but shows some.")
    if mask.window is not None:
        far = (allowed & (back.abs() >= mask.window)).any()
        hold(not far, f"a window of {mask.window} must hide what is farther, but shows some.")
    own = allowed.diagonal(dim1=1, dim2=2)[layout.real]
    hold(own.all(), "a token must see itself, but some do not.")
    part = mask(layout.slice(5, 9), layout.slice(3, 30))
    hold(torch.equal(part, allowed[:, 5:9, 3:30]), "a part of a mask must be that part of the whole, but is not.")


@torch.no_grad()
def embeds_and_scores(embedding: Embedding) -> None:
    device = dtype_and_device(embedding)["device"]
    tokens = torch.arange(V, device=device)[None]
    layout = Layout.full(1, V, device)
    x = embedding(tokens, layout)
    hold(x.shape == (1, V, D), f"an embedding must give {(1, V, D)}, but gives {tuple(x.shape)}.")
    agree(embedding(tokens[:, 3:5], layout.slice(3, 5)), x[:, 3:5], "two tokens alone")
    scores = embedding.unembed(x)
    hold(scores.shape == (1, V, V), f"unembed must give {(1, V, V)}, but gives {tuple(scores.shape)}.")


def scores_and_loses_alike(head: Head) -> None:
    """``loss`` is the cross-entropy of ``forward``, gradients too, however it is computed."""
    layout = with_padding(full(head, B, T - 3), 1, 2)
    x = draw(head, B, T, D).requires_grad_()
    logits = head(x, layout)
    hold(
        logits.shape[0] == B and logits.ndim in (2, 3),
        f"logits must be (B, T, V) or (B, C), but are {tuple(logits.shape)}.",
    )
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(0, logits.shape[-1], logits.shape[:-1], generator=generator).to(x.device)
    targets[0] = IGNORE
    expected = nn.functional.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=IGNORE)
    loss = head.loss(x, layout, targets)
    agree(loss, expected, "the head's loss and the cross-entropy of its logits")
    parameters = [p for p in head.parameters() if p.requires_grad]
    wanted = torch.autograd.grad(expected, [x, *parameters], allow_unused=True)
    got = torch.autograd.grad(loss, [x, *parameters], allow_unused=True)
    for g, w in zip(got, wanted, strict=True):
        hold((g is None) == (w is None), "the loss and the logits must use the same parameters, but do not.")
        if g is not None and w is not None:
            agree(g, w, "gradients of the loss and of the logits' cross-entropy")
