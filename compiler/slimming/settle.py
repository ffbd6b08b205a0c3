"""Find a slim module whose forward does what was meant.

A forward may compute with sizes that it has as literals. So the slim module is captured again and compared with the
graph that was meant; where they differ, or where forward fails, the channels concerned stay, and it is tried again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn
from torch.fx import GraphModule, Node

from ...passes.capture import user_frame
from ...passes.channels.rules import OperatorRule
from ...passes.errors import CaptureError, VerificationError
from ...training.masks import MaskSet
from ..masked_model import keep_graph
from .build import build
from .compare import first_difference, operators, tidy
from .cut import CutChannels
from .cuts import Cuts
from .restrict import Restriction
from .sites import ModuleTensors

_MOST_ATTEMPTS = 100  # every attempt keeps more than the one before; the bound only ends what is hopeless

Capture = Callable[[nn.Module], GraphModule]


@dataclass(frozen=True)
class Settled:
    """A slim module that does what was meant; `fixed` says, per operator, what its forward fixes."""

    module: nn.Module
    cuts: Cuts
    fixed: Mapping[str, str]


def settle(
    model: nn.Module,
    masks: MaskSet,
    graph: GraphModule,
    capture: Capture,
    rules: Mapping[str, OperatorRule] | None,
    *,
    measure: bool,
) -> Settled:
    """Cut the masked `graph` of `model`, build the module, compare, and keep what its forward cannot do without."""
    tensors = ModuleTensors(model)
    original = operators(tidy(graph))
    fixed: dict[str, str] = {}
    for _ in range(_MOST_ATTEMPTS):
        meant, cut = keep_graph(graph), CutChannels(Restriction(tensors, fixed), rules, measure=measure)
        if not cut(meant).modified:
            return Settled(build(model, masks, Cuts({}, {}, {})), Cuts({}, {}, {}), fixed)
        cuts = cut.cuts()
        small = build(model, masks, cuts)
        problem = _problem(original, meant, small, capture)
        if problem is None:
            return Settled(small, cuts, fixed)
        fixed |= _to_keep(problem, original, cut, fixed)
    raise VerificationError(f"{type(model).__name__} still fixes sizes after {_MOST_ATTEMPTS} attempts")


@dataclass(frozen=True)
class _Problem:
    """What goes wrong in the slim module, and at which operators of the captured graph it may be."""

    what: str
    suspects: tuple[Node, ...]


def _problem(original: list[Node], meant: GraphModule, small: nn.Module, capture: Capture) -> _Problem | None:
    try:
        with _quiet_log():
            found = tidy(capture(small))
    except CaptureError as error:
        frame = user_frame(error.__cause__ or error)
        place = f'File "{frame.filename}", line {frame.lineno}, in' if frame is not None else "nowhere"
        here = tuple(n for n in original if place in n.meta.get("stack_trace", ""))
        return _Problem(str(error.__cause__ or error).strip().split("\n")[0], here)
    difference = first_difference(meant, found)
    if difference is None:
        return None
    number, what = difference
    node = original[number]
    return _Problem(f"{what}{line_of(node)}", (node,))


@contextmanager
def _quiet_log() -> Iterator[None]:
    """No log of torch's about shapes that do not fit: here they are an expected answer."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def line_of(node: Node) -> str:
    """` at file:line`, of the user's innermost line that made a node."""
    places = [
        line.strip() for line in node.meta.get("stack_trace", "").splitlines() if line.strip().startswith("File ")
    ]
    own = [place for place in places if "/torch/" not in place]
    if not own:
        return ""
    _, file, rest = own[-1].split('"', 2)
    return f" at {file}:{rest.split('line ')[1].split(',')[0]}"


def _to_keep(problem: _Problem, original: list[Node], cut: CutChannels, fixed: Mapping[str, str]) -> dict[str, str]:
    """Operators whose channels have to stay: those at the place of the problem, else all that have sizes to adapt."""
    changed = cut.changed_nodes() - fixed.keys()
    resized = [n for n in original if n.name in changed and _has_sizes(n, cut)]
    here = [n for n in problem.suspects if n.name in changed]
    chosen = [n for n in here if n in resized] or here or resized
    if not chosen:
        raise VerificationError(
            f"the slim module does not do what the model does: {problem.what}; its forward depends on sizes in a way "
            'that smaller parameters cannot follow. Use sparsefx.compile(..., target="torch").graph_module, which '
            "rewrites them"
        )
    return {n.name: f"forward fixes sizes{line_of(n)}: {problem.what}" for n in chosen}


def _has_sizes(node: Node, cut: CutChannels) -> bool:
    """Whether the operator has literals that count channels."""
    rule = cut.analysis.trace.rule_of(node)
    return rule is not None and rule.rewrite is not None
