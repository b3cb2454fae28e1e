"""What each parameter is for: declared where it is made, and read by init schemes, residual gains and weight decay.

    self.to_out = declare(nn.Linear(d_model, d_model), weight="writer")
    self.skip = nn.Parameter(torch.ones(d_model))
    declare(self, skip="gain")

The parameters of torch's own modules have a role by the type of the module: see ``role_of``. A bare ``nn.Parameter``
has the role that its block declares, or none. What a parameter is called and which shape it has mean nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple, TypeVar, get_args

from torch import nn

Role = Literal["writer", "value", "matrix", "table", "gain", "bias", "dynamics"]
"""What a parameter is for.

writer: the matrix whose product a sublayer writes into the stream.
value: a matrix that makes the values which a mixer carries from token to token.
matrix: any other matrix or kernel that features are multiplied by; zero is its neutral point.
table: rows that are looked up: a vector for each token or position, a number for each distance.
gain: a factor on features, logits or a whole sublayer.
bias: an offset.
dynamics: rates, decays, frequencies, and the weights of mixtures around an identity; zero is not a neutral point.
"""

ROLES: tuple[Role, ...] = get_args(Role)

DECAYED: frozenset[Role] = frozenset({"writer", "value", "matrix"})
"""Roles that weight decay shrinks. Tables are left out, those of tokens and those of positions alike: a row that no
token of a batch looked up has no gradient, and decay alone would shrink the vectors of rare tokens. nanoGPT shrinks
the table of tokens; minGPT and OLMo 2 (https://arxiv.org/abs/2501.00656) do not."""

_MATRICES = (nn.Linear, nn.Bilinear, nn.modules.conv._ConvNd, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)
_TABLES = (nn.Embedding, nn.EmbeddingBag)
_NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)
_BY_TYPE: tuple[tuple[tuple[type, ...], Role], ...] = ((_MATRICES, "matrix"), (_TABLES, "table"), (_NORMS, "gain"))

_TORCHS = re.compile(
    r"weight|bias|[qkv]_proj_weight|in_proj_(weight|bias)|bias_[kv]|(weight|bias)_(ih|hh|hr)(_l\d+(_reverse)?)?"
)
"""What torch calls the parameters of these modules; another name is one that a subclass added."""

M = TypeVar("M", bound=nn.Module)


def declare(module: M, **roles: Role) -> M:
    """Give parameters that ``module`` itself holds their roles, by attribute; the module is returned.

    A parameter that the module leaves out (None) may be declared all the same.

    Raises:
        ValueError: The module has no such parameter, or there is no such role.
    """
    for name, role in roles.items():
        if role not in ROLES:
            raise ValueError(f"the role of {name} must be one of {', '.join(ROLES)}, but got {role!r}.")
        if not isinstance(getattr(module, name, ""), nn.Parameter | None):
            raise ValueError(
                f"a role must belong to a parameter that {type(module).__name__} holds, but got {name!r}. "
                "Make the parameter first, and declare those of a part on the part."
            )
    module.__dict__["_roles"] = {**module.__dict__.get("_roles", {}), **roles}
    return module


def role_of(module: nn.Module, name: str) -> Role | None:
    """The role of the parameter ``name`` that ``module`` itself holds. None: none was declared.

    Undeclared parameters of torch's modules: weights of linear, convolutional, recurrent and attention modules are
    matrices, those of embeddings tables, those of norms gains; biases are biases.
    """
    declared: dict[str, Role] = module.__dict__.get("_roles", {})
    if name in declared:
        return declared[name]
    for types, role in _BY_TYPE:
        if isinstance(module, types) and _TORCHS.fullmatch(name):
            return "bias" if "bias" in name else role
    return None


class Held(NamedTuple):
    """A parameter, the module that holds it under ``attribute``, and its role. name: by attributes from the top."""

    name: str
    parameter: nn.Parameter
    module: nn.Module
    attribute: str
    role: Role | None


def roles_of(module: nn.Module) -> Iterator[Held]:
    """Every parameter of ``module`` and its parts, once.

    One that several modules share is a table if any of them declares it as a table.
    """
    held: dict[int, Held] = {}
    for path, part in module.named_modules():
        for attribute, parameter in part.named_parameters(recurse=False):
            found = held.get(id(parameter))
            role = role_of(part, attribute)
            if found is None:
                name = f"{path}.{attribute}" if path else attribute
                held[id(parameter)] = Held(name, parameter, part, attribute, role)
            elif role == "table":
                held[id(parameter)] = found._replace(role=role)
    yield from held.values()
