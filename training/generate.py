"""Lets a trained model go on from prompts.

python -m training.generate runs/<name> --prompt 'def main(' --prompt 'import ' --temperature 0.8
echo 'def main(' | python -m training.generate runs/<name>
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import blockwright

if __name__ == "__main__":
    blockwright.start()  # before the packages of ours are imported, which may be another project's

import numpy as np
import torch
from torch import Tensor

from blocks.contracts import AttentionPosition, Layout, Memory, Model, State
from registry import factory
from registry.errors import BlockwrightError, CheckpointError, ConfigError
from training.batch import governed
from training.checkpoint import check_fits
from training.checkpoint import load as load_checkpoint
from training.contracts import Example, Objective, Tokenizer, TreeMaker, shape_of
from training.results import Record, read_record

Choose = Callable[[Tensor], Tensor]
"""Logits (B, V) to the tokens that are taken (B,)."""

DEFAULT_LENGTH = 200


def generate(
    model: Model,
    prompts: Sequence[Example],
    *,
    max_new_tokens: int,
    stops: Sequence[Sequence[int]],
    choose: Choose | None = None,
    samples: int = 1,
    banned: Sequence[int] = (),
    trees: TreeMaker | None = None,
) -> list[list[np.ndarray]]:
    """Go on from several prompts of any lengths in one batch: the prompts at once, then token by token.

    Args:
        model: A model with a decoder.
        prompts: What the decoder begins with (at least one token each), and sources for an encoder.
        max_new_tokens: The most tokens of an answer.
        stops: For each prompt the ids that end its answer.
        choose: How a token is picked. None: the likeliest.
        samples: Answers a prompt; the prompt is read once for all of them.
        banned: Ids that are never taken.
        trees: Makes the trees of the sources, for an encoder whose positions follow them.

    Returns:
        For each prompt its answers: new tokens alone, without the one that ended them.
    """
    choose = choose or greedy
    device = next(model.parameters()).device
    with speaking(model), torch.inference_mode():
        tokens, layout = padded([p.tokens for p in prompts], "left", device)
        memory = read_sources(model, prompts, device, trees)
        state: State | None = model.empty_state(len(prompts), tokens.shape[1] + max_new_tokens)
        x, state = model.features(tokens, layout, state, memory)
        x, layout = x[:, -1:], layout.slice(tokens.shape[1] - 1, tokens.shape[1])  # every prompt ends there

        if samples > 1:
            rows = torch.arange(len(prompts), device=device).repeat_interleave(samples)
            assert state is not None
            x, state = x[rows], state.select(rows)
            layout = Layout(layout.position[rows], layout.document[rows])
            if memory is not None:
                seen = memory.layout
                memory = Memory(memory.x[rows], Layout(seen.position[rows], seen.document[rows], seen.dense))

        ends = stop_table(stops, samples, device)
        done = torch.zeros(len(x), dtype=torch.bool, device=device)
        said: list[Tensor] = []
        while True:
            logits = model.head(x, layout)[:, -1].float()
            if banned:
                logits[:, list(banned)] = -torch.inf
            token = choose(logits)
            said.append(token)
            done |= (token[:, None] == ends).any(1)
            if len(said) == max_new_tokens or bool(done.all()):
                break
            layout = layout.next()
            x, state = model.features(token[:, None], layout, state, memory)

    rows_said = torch.stack(said, dim=1).cpu().numpy()
    answers = [until(row, stops[i // samples]) for i, row in enumerate(rows_said)]
    return [answers[i : i + samples] for i in range(0, len(answers), samples)]


def answers(
    model: Model,
    objective: Objective,
    texts: Sequence[str],
    *,
    max_new_tokens: int | None = None,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    samples: int = 1,
    seed: int = 0,
) -> list[list[str]]:
    """What a model has to say to some texts; see the command's options.

    Raises:
        ConfigError: The model can not go on from a prompt, a prompt is too long, or a choice is out of bounds.
    """
    tokenizer = objective.tokenizer
    prompts = [ask(objective, text) for text in texts]
    device = next(model.parameters()).device
    said = generate(
        model,
        prompts,
        max_new_tokens=room(prompts, objective.max_length, max_new_tokens),
        stops=[stops_of(p, tokenizer) for p in prompts],
        choose=sampler(temperature, top_k, top_p, seed, device),
        samples=samples,
        banned=(tokenizer.pad, tokenizer.bos, tokenizer.mask),
        trees=objective.trees,
    )
    return [[tokenizer.decode(ids) for ids in row] for row in said]


def ask(objective: Objective, text: str) -> Example:
    """The prompt for ``text``. An empty one begins where a document does: behind the end of another.

    Raises:
        ConfigError: The objective trains no model that could go on, or the tokenizer can not say ``text``.
    """
    try:
        text.encode()
        prompt = objective.prompt(text)
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"a prompt must be text, but character {error.start} of it is half of one, {text[error.start]!r}."
        ) from error
    except ValueError as refusal:
        raise ConfigError(str(refusal)) from refusal
    return prompt if len(prompt.tokens) else prompt._replace(tokens=np.array([objective.tokenizer.eos]))


def ending(objective: Objective, text: str) -> str:
    """The end of running text that leaves half of the model's rows for an answer; a pair's source as it is."""
    if objective.gives == "pairs":
        return text
    while len(text) > 1 and max(_lengths([ask(objective, text)])) > objective.max_length // 2:
        text = text[-(len(text) // 2) :]
    return text


def room(prompts: Sequence[Example], max_length: int, asked: int | None) -> int:
    """How many tokens may follow; if nobody asked, as many as fit, up to a few lines.

    Raises:
        ConfigError: A prompt, or a prompt with what was asked for, is longer than the model's rows.
    """
    longest, source = _lengths(prompts)
    if max(longest + 1, source) > max_length:
        raise ConfigError(
            f"a prompt must leave room in the {max_length} tokens of model.max_length, "
            f"but got one of {max(longest, source)}."
        )
    if asked is not None and not 1 <= asked <= max_length - longest:
        raise ConfigError(
            f"max_new_tokens must be from 1 to {max_length - longest}, which is what the longest prompt leaves of "
            f"model.max_length={max_length}, but got {asked}."
        )
    return asked or min(DEFAULT_LENGTH, max_length - longest)


def _lengths(prompts: Sequence[Example]) -> tuple[int, int]:
    """The longest beginning of an answer, and the longest source."""
    return max(len(p.tokens) for p in prompts), max((len(p.source) for p in prompts if p.source is not None), default=0)


def stops_of(prompt: Example, tokenizer: Tokenizer) -> list[int]:
    """The ids that end the answer: eos, and in the row of a hole's content the next hole."""
    return [tokenizer.eos, *(tokenizer.sentinels if int(prompt.tokens[-1]) in tokenizer.sentinels else ())]


def greedy(logits: Tensor) -> Tensor:
    """The likeliest token. (B, V) -> (B,)"""
    return logits.argmax(-1)


def sampler(temperature: float, top_k: int | None, top_p: float | None, seed: int, device: torch.device) -> Choose:
    """Draws tokens; from the ``top_k`` likeliest, from the likeliest that together reach ``top_p``, or from all.

    Raises:
        ConfigError: ``temperature`` is negative or infinite, ``top_k`` is not positive, ``top_p`` is not in (0, 1], or
            ``seed`` has more than 64 bits.
    """
    if not 0 <= temperature < float("inf"):
        raise ConfigError(f"temperature must be a finite number and not negative, but got {temperature}.")
    if top_k is not None and top_k < 1:
        raise ConfigError(f"top_k must be at least 1, but got {top_k}.")
    if top_p is not None and not 0 < top_p <= 1:
        raise ConfigError(f"top_p must be above 0 and at most 1, but got {top_p}.")
    if not -(2**63) <= seed < 2**64:
        raise ConfigError(f"seed must be a number of 64 bits, but got {seed}.")
    if temperature == 0:
        return greedy
    generator = torch.Generator(device).manual_seed(seed)

    def draw(logits: Tensor) -> Tensor:
        below = logits - logits.amax(-1, keepdim=True)
        divisor = min(temperature, torch.finfo(logits.dtype).max)  # -inf has no quotient by infinity
        logits = (below / divisor).masked_fill(below == 0, 0.0)  # whatever a quotient comes to, of 0 it is 0
        if top_k is not None and top_k < logits.shape[-1]:
            least = logits.topk(top_k).values[:, -1:]
            logits = logits.masked_fill(logits < least, -torch.inf)
        if top_p is not None:
            ordered, order = logits.sort(-1, descending=True)
            shares = ordered.softmax(-1)
            enough = shares.cumsum(-1) - shares >= top_p  # those before it reach top_p already
            enough[:, 0] = False  # nothing stands before the likeliest
            logits = logits.masked_fill(enough.scatter(-1, order, enough), -torch.inf)
        return torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]

    return draw


def padded(rows: Sequence[np.ndarray], side: Any, device: torch.device) -> tuple[Tensor, Layout]:
    """Rows of any lengths as one batch, filled up on one side. (B, T)"""
    lengths = torch.tensor([len(row) for row in rows])
    length = int(lengths.max())
    tokens = torch.zeros(len(rows), length, dtype=torch.long)
    for row, ids in zip(tokens, rows, strict=True):
        start = length - len(ids) if side == "left" else 0
        row[start : start + len(ids)] = torch.from_numpy(np.asarray(ids, dtype=np.int64))
    whole = bool((lengths == length).all())
    layout = Layout.full(len(rows), length) if whole else Layout.padded(lengths, length, side)
    return tokens.to(device), Layout(layout.position.to(device), layout.document.to(device), layout.dense)


def read_sources(
    model: Any, prompts: Sequence[Example], device: torch.device, trees: TreeMaker | None = None
) -> Memory | None:
    """What the encoder makes of the prompts' sources, if they have any."""
    sources = [p.source for p in prompts if p.source is not None]
    if not sources:
        return None
    tokens, layout = padded(sources, "right", device)
    memory: Memory = model.encode(tokens, layout if trees is None else governed(tokens, layout, trees))
    return memory


def stop_table(stops: Sequence[Sequence[int]], samples: int, device: torch.device) -> Tensor:
    """The ids that end each row, -1 where there are fewer. (B, most)"""
    most = max((len(s) for s in stops), default=0)
    table = [[*s, *[-1] * (most - len(s))] for s in stops for _ in range(samples)]
    return torch.tensor(table, dtype=torch.long, device=device).view(len(table), most)


def until(row: np.ndarray, stops: Sequence[int]) -> np.ndarray:
    """``row`` up to the first of ``stops``."""
    ends = np.flatnonzero(np.isin(row, list(stops)))
    return row[: ends[0]] if len(ends) else row


@contextmanager
def speaking(model: torch.nn.Module) -> Iterator[None]:
    """Without dropout, for as long as it lasts."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


# A run from its folder ---------------------------------------------------------------------------------------------


def load_run(place: str | Path, which: str = "best") -> tuple[Model, Objective, Record]:
    """The model of a finished run with the weights of its best (or "last") checkpoint, and what it was asked.

    Args:
        place: The run's folder, or one of its checkpoints.
        which: "best", "last", or the path of a checkpoint.

    Raises:
        CheckpointError: There is no such run or checkpoint, or they do not fit together.
    """
    from registry import plugins

    place = Path(place)
    if place.suffix == ".ckpt":
        place, which = place.parent.parent, str(place)
    record = read_record(place)
    plugins.load(record.plugins)
    for line in plugins.changed(record.plugin_sources, plugins.sources(record.plugins)):
        print(line, file=sys.stderr)
    checkpoint = load_checkpoint(checkpoint_of(place, which))
    kept = checkpoint.get("blockwright", {})
    spec = record.spec
    try:
        tokenizer = factory(spec["tokenizer"], ("tokenizer",), "tokenizer")()
        asks = (tokenizer, spec["model"]["max_length"], shape_of(spec["model"]), kept["gives"])
        objective = factory(spec["objective"], ("objective",), "objective")(*asks)
        tokenizer.load_state(kept["tokenizer"])
        model = factory(spec["model"], ("model",), "model")(kept["vocab_size"])
        if any(isinstance(m, AttentionPosition) and m.needs_trees for m in model.modules()):
            told = (tokenizer, objective, spec["model"]["max_length"], spec["seed"])
            factory(spec["data"], ("data",), "data")(*told)  # it hands the objective the trees of a prompt
    except KeyError as missing:
        raise CheckpointError(
            f"{place} must be a run that can be built again, but {missing} is not recorded."
        ) from None
    check_fits(checkpoint, model, spec["model"], place)
    weights = {k.removeprefix("model."): v for k, v in checkpoint["state_dict"].items() if k.startswith("model.")}
    model.load_state_dict(weights)
    return model.eval(), objective, record


def checkpoint_of(folder: Path, which: str) -> Path:
    """The path of a checkpoint; the last one stands in where a run ended before a best was known."""
    if which not in ("best", "last"):
        return Path(which)
    best, last = (folder / "checkpoints" / f"{name}.ckpt" for name in ("best", "last"))
    return last if which == "last" or not best.exists() else best


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    args = parse(argv)
    try:
        texts = [_decoded(os.fsencode(text), "--prompt") for text in args.prompt or ()] or _stdin()
        if not texts:
            raise ConfigError("prompts: there must be at least one; give --prompt, or lines on standard input.")
        if args.samples < 1:
            raise ConfigError(f"samples must be at least 1, but got {args.samples}.")
        if args.samples > 1 and args.temperature == 0:
            raise ConfigError(
                f"samples must be 1 where temperature is 0, because each would be the same, but got {args.samples}. "
                "Give --temperature, as in --temperature 0.8."
            )
        device = place(args.device)
        model, objective, _ = load_run(args.run, args.checkpoint)
        said = answers(
            model.to(device),
            objective,
            texts,
            max_new_tokens=args.max_new_tokens,
            temperature=args.temperature,
            top_k=args.top_k,
            top_p=args.top_p,
            samples=args.samples,
            seed=args.seed,
        )
    except BlockwrightError as error:
        print(*(f"error: {line}" for line in str(error).splitlines()), sep="\n", file=sys.stderr)
        return error.status
    show(texts, said, follows=objective.gives == "text")
    return 0


def show(texts: Sequence[str], said: Sequence[Sequence[str]], follows: bool) -> None:
    """Print answers, each behind its prompt where it ``follows`` it."""
    from training.console import console, printable

    several = sum(map(len, said)) > 1
    for i, (text, row) in enumerate(zip(texts, said, strict=True), 1):
        for j, answer in enumerate(row, 1):
            if several:
                console.print(f"-- prompt {i}" + (f", sample {j}" if len(row) > 1 else ""), "dim")
            answer = printable(answer) if console.terminal else answer
            console.print(console.style(text, "bold") + answer if follows else answer)


def place(name: str) -> torch.device:
    """The device to run on.

    Raises:
        ConfigError: There is no such kind of device. MachineError: This machine does not have it.
    """
    from registry.errors import MachineError

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # one without memory ("meta") gives no number
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise MachineError(f"--device must be one that this machine has, but got {name!r}.") from error
    return device


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training.generate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="the folder of a run, or one of its checkpoints")
    prompt = "may be given several times; else the lines of standard input, as they are before their line feeds"
    parser.add_argument("--prompt", action="append", help=prompt)
    parser.add_argument("--max-new-tokens", type=int, help=f"else {DEFAULT_LENGTH}, or what fits into max_length")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 takes the likeliest token (default)")
    parser.add_argument("--top-k", type=int, help="draw from the k likeliest tokens")
    parser.add_argument("--top-p", type=float, help="draw from the likeliest tokens that together reach p")
    parser.add_argument("--samples", type=int, default=1, help="answers for each prompt")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    parser.add_argument("--checkpoint", default="best", help="best (default), last, or a path")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")
    return parser.parse_args(argv)


def _stdin() -> list[str]:
    """The lines of standard input as they are, without the line feed at their ends; none from a terminal."""
    if sys.stdin is None or sys.stdin.isatty():
        return []
    *lines, rest = _decoded(sys.stdin.buffer.read(), "standard input").split("\n")
    return [*lines, rest] if rest else lines


def _decoded(data: bytes, where: str) -> str:
    """The text of prompts.

    Raises:
        ConfigError: It is not UTF-8.
    """
    from training.data.encoding import SAMPLE, complaint, is_wide

    try:
        if not is_wide(data[:SAMPLE]):
            return data.decode()
        at = data.index(0)
    except UnicodeDecodeError as error:
        at = error.start
    raise ConfigError(complaint("a prompt", where, at, data[:SAMPLE], data[at : at + SAMPLE]))


if __name__ == "__main__":
    from registry.program import run

    run(main)
