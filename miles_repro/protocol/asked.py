"""From the options of a command line to the protocol that they ask for."""

from __future__ import annotations

from argparse import Namespace

from miles_repro import places
from miles_repro.errors import UserError
from miles_repro.protocol.decide import Rule
from miles_repro.protocol.menu import UNIMODAL, expand, menu
from miles_repro.protocol.stages import Protocol, Request, check_request

PAPER_ABLATIONS = ("luma",)
"""The data set of the paper's Tables IV to VI."""


def protocol_for(args: Namespace) -> Protocol:
    """Raises UserError for what the configuration does not have."""
    overrides = [*args.overrides]
    for name in ("runs_dir", "data_dir"):
        if path := str(getattr(args, name) or ""):
            if "${" in path:
                raise UserError(f"{path}: ${{..}} in a folder's name stands for something else")
            overrides.append(f"runtime.{name}={places.quoted(path)}")
    budget, strategies, datasets = args.budget, words(args.strategies), words(args.datasets)
    ablations = datasets if args.ablations else ()
    if args.paper_size:
        budget, strategies = "paper", ("paper",)
        overrides.append("budget.seeds=1")
        ablations = tuple(name for name in ablations if name in PAPER_ABLATIONS)
    if args.until_decided:
        if args.reference == UNIMODAL or args.reference not in menu(overrides):
            raise UserError(f"--reference {args.reference}: give one strategy of train.py --help")
        strategies += (args.reference,)
    request = Request(
        budget=budget,
        datasets=datasets,
        fusions=words(args.fusions),
        strategies=expand(strategies, overrides),
        ablations=ablations,
        twice=not args.paper_size,
        overrides=tuple(overrides),
    )
    check_request(request)
    return Protocol(request)


def rule_for(args: Namespace, protocol: Protocol) -> Rule | None:
    """The rule of --until-decided, None without it. Raises UserError for one that cannot be."""
    if not args.until_decided:
        return None
    seeds = protocol.options(protocol.request.datasets[0])["budget"]["seeds"]
    return Rule(seeds, args.eps, args.max_seeds, args.reference)


def words(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text.split(",")))
