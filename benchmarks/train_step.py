"""The training step of a Llama-shaped decoder against Hugging Face's Llama, and Lightning against a bare loop.

    pip install -e '.[peers]'
    python benchmarks/train_step.py [--rounds 12] [--precision fp32 bf16] [--threads 2] [--device cuda]

Six layers, 384 wide, 6 heads, 256 tokens, batch 8, AdamW: the same sizes, parameters and batches for all.
Rounds are interleaved, so that a busy machine slows everybody alike; medians and ratios of medians are printed.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

import blocks  # noqa: F401  (registers every block)
from blocks.contracts import Layout
from registry import factory
from training.machine import keep_freed_memory

LAYERS, WIDTH, HEADS, FF, LENGTH, ROWS, VOCAB = 6, 384, 6, 1024, 256, 8, 256
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def ours() -> nn.Module:
    """A Llama: rotary, RMS norm before each sublayer, SwiGLU, no biases, untied."""
    layer = {
        "name": "layer/sequential",
        "mixer": {"name": "attention/mha", "n_heads": HEADS},
        "mask": "mask/causal",
        "position": "position/rope",
        "ffn": {"name": "ffn/swiglu", "d_ff": FF},
        "residual": {"name": "residual/pre_norm", "norm": "norm/rms"},
    }
    decoder = {"name": "stack/plain", "layers": [layer] * LAYERS, "norm": "norm/rms"}
    spec = {"name": "model/decoder_only", "d_model": WIDTH, "max_length": LENGTH, "tie": False, "decoder": decoder}
    return factory(spec)(VOCAB)  # type: ignore[no-any-return]


def llama() -> nn.Module:
    """Hugging Face's Llama at the same sizes, with its fastest attention."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        intermediate_size=FF,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        max_position_embeddings=LENGTH,
        tie_word_embeddings=False,
        use_cache=False,
        attn_implementation="sdpa",
    )
    return LlamaForCausalLM(config)  # type: ignore[no-any-return]


def our_loss(model: Any, tokens: Tensor, targets: Tensor) -> Tensor:
    layout = Layout.full(*tokens.shape, device=tokens.device)
    x, _ = model.features(tokens, layout)
    return model.head.loss(x, layout, targets)  # type: ignore[no-any-return]


def llama_loss(model: Any, tokens: Tensor, targets: Tensor) -> Tensor:
    return model(input_ids=tokens, labels=targets, shift_labels=targets).loss  # type: ignore[no-any-return]


def batches(device: str) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    while True:
        rows = torch.randint(0, VOCAB, (ROWS, LENGTH + 1), generator=generator).to(device)
        yield rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


def contender(model: nn.Module, loss: Callable[..., Tensor], dtype: torch.dtype, device: str) -> Callable[[], None]:
    """One training step, as anybody would write it."""
    model = model.to(device=device, dtype=dtype).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True)
    data = batches(device)

    def step() -> None:
        tokens, targets = next(data)
        optimizer.zero_grad(set_to_none=True)
        loss(model, tokens, targets).backward()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return step


def interleave(contenders: dict[str, Callable[[], None]], rounds: int, steps: int) -> dict[str, list[float]]:
    """Seconds a step of each, round by round."""
    for step in contenders.values():
        step()
        step()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        order = list(contenders) if number % 2 == 0 else list(reversed(contenders))
        for name in order:
            start = time.perf_counter()
            for _ in range(steps):
                contenders[name]()
            seconds[name].append((time.perf_counter() - start) / steps)
    return seconds


def against_llama(precision: str, rounds: int, steps: int, device: str) -> None:
    torch.manual_seed(0)
    dtype = DTYPES[precision]
    mine, theirs = ours(), llama()
    sizes = [sum(p.numel() for p in m.parameters()) for m in (mine, theirs)]
    assert sizes[0] == sizes[1], f"the models must have as many parameters, but have {sizes}"
    seconds = interleave(
        {
            "blockwright": contender(mine, our_loss, dtype, device),
            "transformers Llama": contender(theirs, llama_loss, dtype, device),
        },
        rounds,
        steps,
    )
    report(f"training step, {precision}, {sizes[0] / 1e6:.1f} M parameters, {device}", seconds, "transformers Llama")


def against_bare_loop(precision: str, rounds: int, steps: int, device: str) -> None:
    """Our task under Lightning's Trainer, and the same model, data and optimizer without it."""
    from benchmarks.lightning_loop import lightning_contender

    torch.manual_seed(0)
    seconds = interleave(
        {
            "under Lightning": lightning_contender(ours(), batches("cpu"), DTYPES[precision], device, LENGTH),
            "bare loop": contender(ours(), our_loss, DTYPES[precision], device),
        },
        rounds,
        steps,
    )
    report(f"Lightning's share, {precision}, {device}", seconds, "bare loop")


def report(title: str, seconds: dict[str, list[float]], peer: str) -> None:
    print(f"\n{title}")
    base = statistics.median(seconds[peer])
    for name, times in seconds.items():
        middle = statistics.median(times)
        rates = sorted(ROWS * LENGTH / t for t in times)
        spread = f"{rates[0]:,.0f} to {rates[-1]:,.0f}"
        print(f"  {name:20} {ROWS * LENGTH / middle:8,.0f} tokens/s  ({spread})  {base / middle:5.2f} x {peer}")
    first, *_ = seconds
    paired = [p / m for m, p in zip(seconds[first], seconds[peer], strict=True)]
    print(f"  round by round: {statistics.median(paired):.3f} (median), {min(paired):.3f} to {max(paired):.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--steps", type=int, default=2, help="steps a round")
    parser.add_argument("--precision", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--threads", type=int, default=0, help="0: torch's own choice")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", choices=["llama", "lightning"], help="one of the two comparisons")
    args = parser.parse_args()
    keep_freed_memory()  # as train.py does
    warnings.filterwarnings("ignore", module="lightning")
    if args.threads:
        torch.set_num_threads(args.threads)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {args.device}")
    for precision in args.precision:
        if args.only != "lightning":
            against_llama(precision, args.rounds, args.steps, args.device)
        if args.only != "llama":
            against_bare_loop(precision, args.rounds, args.steps, args.device)


if __name__ == "__main__":
    main()
