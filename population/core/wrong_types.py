"""What to write instead: error messages for what a mutator returns by mistake."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from population.base.refusals import is_array, shortly
from population.base.types import (
    ActiveWorker,
    Branch,
    Checkpoint,
    Failure,
    Ref,
    Report,
    Retire,
)

_DECISIONS = "{worker_id: Branch(parent, meta_params, reason)}"


def wrong_answer(call: str, found: Any) -> str:
    """Return the error message for something that is no state and mapping.

    Args:
        call: The name of the call, such as "MyMutator.update".
        found: What it returned.
    """
    return (
        f"{call} must return its next state and a mapping of worker ids to a Branch or "
        f"a Retire each, got {_shown(found)}. {_instead_of_answer(found)}"
    )


def wrong_worker(mutator: str, key: Any) -> str:
    """Return the error message for a key of the decisions that is no worker id."""
    hint = "Write the ids as in view.live: ints from 0 on."
    if isinstance(key, (float, np.floating, str)) or is_array(key):
        hint = "Write int(...) around it."
    elif isinstance(key, (Ref, Checkpoint, ActiveWorker, Report)):
        hint = "Write the checkpoint's worker_id."
    return (
        f"{mutator} must decide by worker_id, which must be an int, got "
        f"{_shown(key)}. {hint}"
    )


def wrong_decision(mutator: str, worker_id: int, found: Any) -> str:
    """Return the error message for a decision that is no Branch and no Retire."""
    if found is None:
        hint = "Leave a worker that goes on unchanged out of the mapping."
    elif isinstance(found, type):
        hint = f"Call it: {found.__name__}(...)."
    elif isinstance(found, Checkpoint):
        hint = "Write Branch(checkpoint, meta_params, reason)."
    elif isinstance(found, str):
        hint = "Write Retire(reason) if the slot is finished."
    elif isinstance(found, Mapping):
        hint = (
            "To change the hyperparameters and keep the weights write "
            "Branch(view.graph.resume_point(view.newest(worker_id)), meta_params)."
        )
    else:
        hint = "Write Branch(parent, meta_params, reason), or Retire(reason)."
    return (
        f"{mutator} must decide a Branch or a Retire for worker {worker_id}, got "
        f"{_shown(found)}. {hint}"
    )


def wrong_parent(mutator: str, found: Any) -> str:
    """Return the error message for a `Branch.parent` that is no checkpoint."""
    if isinstance(found, Ref):
        hint = "view.graph.checkpoint(ref) has the one of a Ref."
    elif isinstance(found, str):
        hint = (
            "view.graph[generation_id][step] has the one of a generation and a step, "
            "and view.newest(worker_id) the newest of a slot."
        )
    elif isinstance(found, (Report, Failure)):
        hint = "Write its checkpoint: report.checkpoint."
    elif isinstance(found, (int, np.integer, ActiveWorker)):
        hint = "view.newest(worker_id) has the newest one of a slot."
    elif isinstance(found, Mapping):
        hint = "The order is Branch(parent, meta_params, reason)."
    elif isinstance(found, tuple):
        hint = (
            "view.graph.checkpoint(Ref(generation_id, step)) has the one of that name."
        )
    else:
        hint = "view.newest(worker_id) has one, and None stands for fresh weights."
    return f"{mutator} must branch from a checkpoint, got {_shown(found)}. {hint}"


def missing_parent(mutator: str, parent: Checkpoint, own: str) -> str:
    """Return the error message for a parent that is not in the graph.

    Args:
        mutator: The name of the class.
        parent: The checkpoint.
        own: The id of a generation of this run.
    """
    hint = "Take it from view.graph, and do not change its fields."
    if parent.generation_id.partition("-")[0] != own.partition("-")[0]:
        hint = (
            "It is of another run: to train on with its weights, begin a run with "
            "Start(meta_params, params, step), or population.fork the other one."
        )
    return (
        f"{mutator} must branch from a checkpoint of the graph, got "
        f"{parent.ref}, which is not there. {hint}"
    )


def missing_ref(mutator: str, ref: Ref) -> str:
    """Return the error message for a Ref in the state that names no checkpoint."""
    return (
        f"{mutator} must return a state whose Refs name checkpoints of this run, got "
        f"{ref}, which is not there. Take it from a checkpoint: checkpoint.ref."
    )


def wrong_hyperparameters(mutator: str, worker_id: int, found: Any, had: Any) -> str:
    """Return the error message for meta_params that are None or a checkpoint, or "".

    Args:
        mutator: The name of the class.
        worker_id: The slot that would get them.
        found: What it would get.
        had: What it has; if that is None, so may be what it gets.
    """
    if isinstance(found, (Checkpoint, ActiveWorker)):
        hint = "Write its hyperparameters: checkpoint.meta_params."
    elif found is None and had is not None:
        hint = (
            "Does mutate_fn change its argument and return nothing? For the same ones "
            "as before write Branch(parent, parent.meta_params)."
        )
    else:
        return ""
    return (
        f"{mutator} must decide the meta_params with which worker {worker_id} goes on, "
        f"got {_shown(found)}. {hint}"
    )


def lost_first(mutator: str, worker_id: int) -> str:
    """Return the error message for a `first` that returns None."""
    return (
        f"{mutator}.first must return the meta_params with which worker {worker_id} "
        "begins, got None. Does a way through it end without a return? Write return "
        "meta_params."
    )


def wrong_wait(mutator: str, worker_id: int, found: Any) -> str:
    """Return the error message for a `wait_at` that is no step."""
    hint = "For a slot that never waits return None."
    if isinstance(found, (float, np.floating)) and math.isfinite(found):
        hint = "Write int(...)."
    return (
        f"{mutator}.wait_at must return a step, an int, or None, got {_shown(found)} "
        f"for worker {worker_id}. {hint}"
    )


def _instead_of_answer(found: Any) -> str:
    """Return what to write in place of what `update` returned."""
    if found is None:
        return "Does a way through it end without a return? Write return state, {}."
    if isinstance(found, Branch | Retire):
        return "Write return state, {report.worker_id: decision}."
    if type(found) is not tuple or len(found) != 2:
        return "Write return state, decisions; for no decision return state, {}."
    state, decisions = found
    if decisions is None:
        return "For no decision write return state, {}."
    if isinstance(decisions, Branch | Retire):
        return "Write the worker's id with it: {report.worker_id: decision}."
    if isinstance(state, Mapping) and all(
        isinstance(value, Branch | Retire) for value in state.values()
    ):
        return "Write the state first: return state, decisions."
    return f"Write the decisions as a dict: {_DECISIONS}."


def _shown(value: Any) -> str:
    """Return the type of a value, and its text if that is short."""
    kind = type(value).__name__
    if value is None or isinstance(value, type):
        return "None" if value is None else f"the class {value.__name__}"
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, (str, int, float)) or type(value) in (tuple, list, set):
        return f"{kind} {shortly(value)}"
    return kind
