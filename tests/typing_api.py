"""The user's view of the library, for the type checker alone; never run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import numpy.typing as npt

import population
from population import (
    ActiveWorker,
    Branch,
    Checkpoint,
    Mutator,
    PopulationController,
    PopulationView,
    Ref,
    Report,
    Schedule,
    Start,
    Stop,
)
from population.base.errors import ClaimError
from population.base.types import InMemory
from population.core.retention import Keep
from population.engines import processes
from population.mutators import (
    REGISTRY,
    BranchingSingleMachine,
    FixedSchedule,
    MultiFrequencyPBT,
    PopulationBasedTraining,
    TwoSpeedPBT,
    WinnerTakeAllGenetic,
)
from population.mutators.exploit import (
    BinaryTournament,
    Standings,
    Threshold,
    TopFraction,
    Truncation,
    WelchTTest,
    Winner,
)
from population.params import FileParams, MemoryParams, OrbaxParams
from population.space import (
    Categorical,
    Gaussian,
    Integer,
    LogUniform,
    OneMinusLogUniform,
    Ordinal,
    Perturb,
    Uniform,
    contains,
    grid,
    sample,
    stratified,
)
from population.testing import (
    MutatorReport,
    Problem,
    check_loop,
    check_mutator,
    simulate,
)


class TrainState(NamedTuple):
    """A user's training state."""

    weights: jax.Array
    step: int


@dataclasses.dataclass(frozen=True)
class Count:
    """The state of a mutator."""

    reports: int
    best: Ref | None = None


class EveryOther(Mutator[Count]):
    """A user's policy, with a state."""

    def init(self, view: PopulationView) -> Count:
        """Begin to count."""
        return Count(len(view.workers))

    def update(
        self, state: Count, report: Report, view: PopulationView
    ) -> tuple[Count, Mapping[int, Branch]]:
        """Branch at every other report."""
        newest: Checkpoint = view.newest(report.worker_id)
        best = view.graph.best()
        factor: float = float(view.rng.uniform(0.5, 2.0))
        donor: int = int(view.scores.argmin())
        score: float = view.score(report.checkpoint)
        following = Count(state.reports + 1, None if best is None else best.ref)
        if state.reports % 2 or score > factor or donor == report.worker_id:
            return following, {}
        return following, {report.worker_id: Branch(newest, newest.meta_params, "why")}

    def wait_at(self, state: Count, worker_id: int, view: PopulationView) -> int | None:
        """Wait at the next ten steps."""
        checkpoint = view.barrier(worker_id, 10)
        return None if checkpoint is None else checkpoint.step + state.reports


def mutate(meta_params: dict[str, float], rng: np.random.Generator) -> Any:
    """A mutation with a generator."""
    return {"learning_rate": meta_params["learning_rate"] * float(rng.uniform(0.8, 1))}


def explore(meta_params: dict[str, float], direction: str, cycle: int) -> Any:
    """A mutation for a single machine."""
    return meta_params | {"cycle": cycle, "down": direction == "neg"}


def constructed() -> list[PopulationController]:
    """A controller in all its forms."""
    metas = [{"learning_rate": 0.1}, {"learning_rate": 0.2}]
    winner = WinnerTakeAllGenetic(mutate, 100)
    kept = WinnerTakeAllGenetic(
        mutate, seconds_per_exploit=60.0, average_over_samples=False, keep_winner=True
    )
    return [
        PopulationController(metas, winner),
        PopulationController(metas, kept, "folder", mode="max", seed=3),
        PopulationController(
            [Start({"learning_rate": 0.1}, "weights", 10)],
            BranchingSingleMachine(explore, 10, 20),
            stop=Stop(steps=10, reports=5, seconds=1.5, value=0.1, patience=3),
            params=MemoryParams(),
        ),
        PopulationController(
            (0.1, 0.2), FixedSchedule({0: 0.1}), params=FileParams("folder")
        ),
        PopulationController([0.1], FixedSchedule(lambda step: 1 / (step + 1))),
        PopulationController([0.1], FixedSchedule(Schedule({0: 0.1}))),
        PopulationController(metas, EveryOther(), clock=lambda: 0.0),
    ]


def fresh(meta_params: dict[str, float]) -> TrainState:
    """A fresh training state."""
    return TrainState(jax.numpy.ones(2) * meta_params["learning_rate"], 0)


def by_the_worker(controller: PopulationController) -> float:
    """The first loop of the README."""
    with controller.worker() as worker:
        while worker.running:
            if worker.poll():
                state: TrainState = worker.restore(fresh)
            noise: jax.Array = jax.random.normal(worker.key, (2,))
            state = state._replace(weights=state.weights + noise)
            worker.step += 1
            if worker.step % 100 == 0:
                worker.report(state.weights.sum(), state, metrics={"loss": 0.1})
        lineage: list[Checkpoint] = worker.lineage
        target: str | None = worker.save_to
        source: str | None = worker.load_from
        device: jax.Device | None = worker.device
    del lineage, target, source, device
    return worker.overhead_s


def by_the_two_calls(controller: PopulationController) -> None:
    """The two calls on which the handle is built."""
    work: ActiveWorker | None = controller.maybe_get_worker_data(0, None, 0, None, None)
    if work is not None:
        controller.set_eval(0, work.generation_id, work.step + 1, "path", 0.5)
        controller.set_eval(
            worker_id=0,
            generation_id=work.generation_id,
            step=work.step + 1,
            params={"w": np.ones(2)},
            value=np.float32(0.5),
            metrics={"accuracy": 0.9},
        )
        wait_at: int | None = work.wait_at
        del wait_at
    others: dict[int, ActiveWorker] = controller.set_evals([(0, "id", 1, None, 0.5)])
    del others


def by_one_loop(controller: PopulationController) -> None:
    """A loop that trains the whole population, and keeps the weights itself."""
    try:
        given: Mapping[int, ActiveWorker] = controller.claim_all()
    except ClaimError as error:
        raise SystemExit(str(error)) from error
    controller.set_evals(
        [
            (worker_id, work.generation_id, work.step + 1, InMemory(), 0.5)
            for worker_id, work in given.items()
        ]
    )
    best = controller.best()
    if best is not None and isinstance(best.params, InMemory):
        session: str = best.params.session
        del session


def afterwards(controller: PopulationController) -> Schedule | None:
    """The questions that a run can answer."""
    best: Checkpoint | None = controller.best()
    if best is None or best.value is None:
        return None
    improved: float = best.value - 1.0
    steps: list[int] = [checkpoint.step for checkpoint in controller.lineage(best)]
    again: Checkpoint = controller.graph[best.generation_id][best.step]
    names: list[str] = list(REGISTRY)
    kept: set[Ref] = controller.reachable()
    workers: list[ActiveWorker] = controller.workers
    finished: bool = controller.finished
    rows: list[dict[str, Any]] = [c._asdict() for c in controller.history()]
    del improved, steps, again, names, kept, workers, finished, rows
    return controller.schedule(best)


class Luck:
    """A user's selection rule."""

    def donor(
        self, me: int, standings: Standings, rng: np.random.Generator
    ) -> int | None:
        """Sometimes another member."""
        best: npt.NDArray[Any] = standings.best(0.5)
        return int(best[0]) if rng.random() < 0.1 and best[0] != me else None


def from_a_space() -> PopulationController:
    """Population based training over a space."""
    space = {
        "lr": LogUniform(1e-5, 1e-1, start=(1e-4, 1e-2)),
        "betas": (OneMinusLogUniform(0.5, 0.99), OneMinusLogUniform(0.9, 0.9999)),
        "layers": [Integer(1, 8), Integer(1, 64, logarithmic=True)],
        "batch": Ordinal([16, 32, 64], start=[32]),
        "activation": Categorical(["relu", "gelu"]),
        "dropout": Uniform(0, 0.5),
    }
    rng = np.random.default_rng(0)
    first: list[Any] = [sample(space, rng), *grid(space, 3), *grid(space, points=2)]
    fits: bool = contains(space, first[0])
    rules = (Truncation(0.2), BinaryTournament(), WelchTTest(window=10, p=0.05))
    more = (TopFraction(1 / 3), Threshold(std=0.5, percent=5), Winner(), Luck(), None)
    policies: list[Mutator[Any]] = [
        PopulationBasedTraining(
            Perturb(space, factors=(0.8, 1.0, 1.25), resample_probability=0.1),
            100,
            exploit=rule,
            synchronous=True,
            burn_in=50,
        )
        for rule in (*rules, *more)
    ]
    policies.append(MultiFrequencyPBT(Gaussian(space, sigma=0.1), 50, (1, 4)))
    policies.append(TwoSpeedPBT(Perturb(space, share=0.5), 50, horizon=1000))
    policies.append(TwoSpeedPBT(Gaussian(space, share=0.5), 50, slow=4, window=3))
    evenly: list[Any] = stratified(space, 8, rng)
    del fits, evenly
    return PopulationController.from_space(space, 8, policies[0], initial="grid")


def checked() -> PopulationController:
    """Check a mutator's promises, and simulate a run of it."""
    report: MutatorReport = check_mutator(
        lambda mutate_fn: PopulationBasedTraining(mutate_fn, 3), allow="same draw"
    )
    print([(found.kind, found.message) for found in report], report.tried.copies)
    policy = PopulationBasedTraining(None, 20)
    return simulate(
        policy, problem=Problem(), size=4, speeds=[1, 2, 1, 1], deaths={1: 9}
    )


def told(event: population.Event) -> None:
    """The argument of `on_event`."""
    kind: str = event.kind
    worker_id: int = event.worker_id
    step = 0 if event.checkpoint is None else event.checkpoint.step
    del kind, worker_id, step


def fault_tolerant(train: Callable[[population.Worker], None]) -> None:
    """Processes, timeouts, retention, replay and fork."""
    controller = PopulationController(
        [{"learning_rate": 0.1}] * 4,
        PopulationBasedTraining(None, 20),
        "runs/typed",
        keep=Keep(every=100, last=2, bytes=10**9),
        worker_timeout=60,
        durability="power",
        on_event=told,
        params=OrbaxParams("runs/typed/orbax"),
    )
    summary = processes.run(train, controller, 4, gpus_per_worker=0.5)
    died: int = summary.died
    counts: list[int] = controller.diverged()
    with controller.worker() as worker:
        worker.busy(600)
        worker.reject("a damaged file")
    found = population.replay("runs/typed", PopulationBasedTraining(None, 20))
    first = found.first_difference
    decided = None if first is None else first.recorded[0]
    where = decided.parent if isinstance(decided, population.Branch) else None
    other: PopulationController = population.fork(
        controller, "runs/forked", mutator=PopulationBasedTraining(None, 9), at=where
    )
    report = check_loop(lambda meta: 1.0, lambda state: state, {"learning_rate": 0.1})
    messages: list[str] = [finding.message for finding in report]
    del died, counts, other, messages


def read_a_run() -> Callable[[Any], Any]:
    """Columns, the best, its schedule for optax, and the status."""
    run = population.read("runs/typed")
    steps: npt.NDArray[np.int64] = run.checkpoints()["step"]
    print(steps.max(), run.workers().rows, [*run.branches()], run.saves()["bytes"])
    best: Checkpoint | None = run.best(window=5)
    if best is None or run.status.finished:
        raise ValueError(run.status.reason)
    weights: Any = run.load(best, {"w": np.zeros(3)})
    found: Schedule = Schedule.from_json(run.schedule(best).to_json())
    print(weights, [checkpoint.step for checkpoint in run])
    return found.to_optax("learning_rate")


def explored_beyond(
    meta_params: dict[str, float],
    rng: np.random.Generator,
    context: population.mutators.MutationContext,
) -> dict[str, float]:
    """A mutation that asks for the donor, the view, and numbers from 0 to 1."""
    graph: population.CheckpointGraph = context.view.graph
    losses: npt.NDArray[np.float64] = context.view.metric("loss")
    if context.donor is not None and np.isnan(losses).any():
        print(graph.resume_point(context.donor).step, context.step, context.score)
    domain = population.space.LogUniform(1e-3, 1.0)
    unit: float = domain.to_unit(meta_params["lr"])
    rate: float = domain.from_unit(min(1.0, unit + 0.1 * rng.random()))
    return {"lr": rate}


EXPLORES = PopulationBasedTraining(explored_beyond, 20)
