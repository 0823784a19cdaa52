"""The whole chain as steps: prepare, train and translate each task in dependency order, score, submit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from pbvs.archives.layouts import find_images, inputs_folder
from pbvs.core import pixels
from pbvs.core.device import device_of_process, make_fabric
from pbvs.core.errors import DataError, UsageError
from pbvs.core.files import files_fingerprint, fingerprint
from pbvs.core.versions import PREPARE, SCORE, SUBMIT
from pbvs.dataset.index import PreparedData
from pbvs.graph.spec import TaskSpec
from pbvs.graph.task_set import TaskSet
from pbvs.perceptual.metric_weights import WeightsKind, disclaimer
from pbvs.pipeline import translate, translation_record
from pbvs.pipeline.expected import PREDICTIONS, expected_images
from pbvs.pipeline.node_training import NodeTraining, check_metric_weights, prepare_rules, working_size_px
from pbvs.pipeline.pair_table import pair_table
from pbvs.pipeline.runs import Runs
from pbvs.pipeline.steps import Step
from pbvs.pipeline.train import train_node
from pbvs.pipeline.translation_record import mean_seconds_per_image
from pbvs.pipeline.translator import Translator
from pbvs.prepare.plan import LocationKey
from pbvs.prepare.prepare import prepare
from pbvs.prepare.prepared_folder import INDEX_NAME
from pbvs.prepare.records import content_hash, load_records
from pbvs.score.folders import score_folders
from pbvs.score.results import write_score
from pbvs.score.rules import ScoreConfig
from pbvs.score.scorer import Scorer
from pbvs.submission import ReadmeFields, build
from pbvs.submission.ledger_rows import note_build, note_score

SCORE_JSON, SCORE_CSV, ZIP = "score.json", "score.csv", "submission.zip"

# (step, done, total, further values): how every step reports its progress.
ChainProgress = Callable[[str, int, int, Mapping[str, float]], None]


@dataclass(frozen=True)
class ChainSettings:
    """Everything that a run of the chain is asked for.

    Attributes:
        task_set: the tasks of one solution.
        tasks: names, in any order; what they depend on is trained too.
        data: root of the archives; None when nothing in the tasks is trained.
        test: root of the test inputs; None leaves out everything after training.
        targets: root of test targets; None leaves out the score.
        runs, out: folders for training, and for predictions, score and zip.
        metric_weights: kind of the metrics' weights.
        score_config: how the score is computed.
        accelerator, precision: Fabric's names for where and in which numbers the networks run.
        extra_data: what the readme says of it.
        data_workers: processes that load training images.
        progress: called by every step.
        warn: called with lines that the user should see.
    """

    task_set: TaskSet
    tasks: tuple[str, ...]
    data: Path | None
    test: Path | None
    targets: Path | None
    runs: Path
    out: Path
    metric_weights: WeightsKind
    score_config: ScoreConfig
    accelerator: str
    precision: str
    extra_data: bool
    data_workers: int
    progress: ChainProgress = field(repr=False, default=lambda step, done, total, values: None)
    warn: Callable[[str], None] = field(repr=False, default=lambda line: None)

    @property
    def score_json(self) -> Path:
        """Where the score is written."""
        return self.out / SCORE_JSON

    def record(self, step: str) -> Path:
        """Where a step keeps its provenance."""
        return self.out / "steps" / f"{step}.json"

    def results(self) -> list[Path]:
        """What a person wants to look at after a run."""
        return [self.out / ZIP, self.out / PREDICTIONS, self.score_json, self.out / SCORE_CSV, self.runs]


def chain(settings: ChainSettings) -> list[Step]:
    """The steps of a run, in an order that keeps every dependency.

    Raises:
        UsageError, TaskError: an unknown task, a wrong task file, no data for what must be trained.
        DataError: a task has no test inputs.
        WeightsError: official weights of the metrics are asked for and missing.
    """
    return _Chain(settings).steps()


class _Chain:
    def __init__(self, settings: ChainSettings):
        self.s = settings
        self.task_set = settings.task_set
        self.all_tasks = self.task_set.in_order(settings.tasks)
        self.trainings = {task: self._trainings(task) for task in self.all_tasks}
        self.device = device_of_process(settings.accelerator)

    def steps(self) -> list[Step]:
        trainings = [training for several in self.trainings.values() for training in several]
        needed = set().union(*(training.metric_weights_needed for training in trainings))
        if self.s.targets is not None and self.s.test is not None:
            needed |= {"vgg16", "inception"}
        check_metric_weights(needed, self.s.metric_weights)
        by_folder: dict[Path, list[NodeTraining]] = {}
        for training in trainings:
            by_folder.setdefault(training.prepared, []).append(training)
        steps = [self._prepare(folder, several) for folder, several in by_folder.items()]
        by_folder = {}
        for training in trainings:
            if training.validation is not None:
                by_folder.setdefault(training.validation, []).append(training)
        for folder, several in by_folder.items():
            steps.append(self._prepare(folder, several, for_validation=True))
        steps += [self._train(task) for task in self.all_tasks if self.trainings[task]]
        if self.s.test is None:
            return steps
        wanted = [task for task in self.all_tasks if task in self.s.tasks]
        for task in wanted:
            steps.append(translate_step(self.s, task, find_inputs(self.s.test, task)))
        if self.s.targets is not None:
            steps.append(self._score(wanted, self.s.targets))
        return [*steps, self._submit(wanted)]

    def _trainings(self, task: str) -> list[NodeTraining]:
        graph, folder = self.task_set.graph(task), self.s.runs / "prepared"
        spec = graph.spec
        trainings = []
        for node in graph.trained:
            size_px = working_size_px(spec, node)
            training = NodeTraining(
                self.task_set,
                task,
                node,
                folder / _prepared_name(spec, size_px),
                Runs(self.s.runs),
                self.s.metric_weights,
                self.s.precision,
            )
            # `best` is chosen at the task's own size, which the captures to train on may not have.
            if training.validates_at_task_size and spec.family == "stack" and size_px != spec.size_px:
                name = f"{_prepared_name(spec, spec.size_px)}-heldout-{spec.data.heldout_fraction:g}"
                training = replace(training, validation=folder / name)
            trainings.append(training)
        return trainings

    def _prepare(self, folder: Path, trainings: list[NodeTraining], *, for_validation: bool = False) -> Step:
        root = self.s.data
        if root is None:
            raise UsageError("training needs data", next_step="name the root of the archives with --data")
        specs = [training.spec for training in trainings]
        modalities = sorted({m for spec in specs for m in (spec.source, spec.target)})
        rules, family = prepare_rules(specs), specs[0].family
        size_px = specs[0].size_px if for_validation else trainings[0].size_px
        name = f"prepare.{folder.name}"

        def heldout() -> set[LocationKey]:
            """The locations that any of the trainings holds out."""
            tables = [pair_table(t.spec, PreparedData.open(t.prepared)) for t in trainings]
            return {(city, at) for table in tables for _, city, at in table.locations("heldout")}

        def work() -> str:
            keys = heldout() if for_validation else set()
            done = prepare(
                root,
                folder,
                modalities=modalities,
                families=[family],
                size_px=size_px if family == "stack" else None,
                rules=rules,
                progress=lambda done, total: self.s.progress(name, done, total, {}),
                keep_location=keys.__contains__ if for_validation else None,
            )
            problems = f", {len(done.problems)} problems (problems.csv)" if done.problems else ""
            return f"{done.n_images} captures, {done.n_made} written now{problems}; {folder}"

        def provenance() -> dict[str, str]:
            # Hashing the archives' images is spared where prepare has done it.
            records = load_records(folder)
            entries = [entry for entry in find_images(root).entries if entry.family == family]
            hashes = [
                [e.path.as_posix(), content_hash(root / e.path, records.get(e.path.as_posix())).sha256]
                for e in entries
            ]
            settings = [modalities, rules.described(), size_px if family == "stack" else None]
            kept = {"held-out locations": fingerprint(sorted(heldout()))} if for_validation else {}
            return {
                "archives": fingerprint(hashes),
                "settings": fingerprint(settings),
                "prepare": f"version {PREPARE}",
                **kept,
            }

        needs = tuple(sorted({f"prepare.{t.prepared.name}" for t in trainings})) if for_validation else ()
        outputs = [folder / INDEX_NAME]
        return Step(name, folder / "step.json", provenance, lambda: outputs, work, needs, reads_first=True)

    def _train(self, task: str) -> Step:
        trainings = self.trainings[task]
        needs = {f"prepare.{training.prepared.name}" for training in trainings}
        needs |= {f"prepare.{training.validation.name}" for training in trainings if training.validation}
        needed_tasks = self.task_set.needs(self.task_set.spec(task))
        before = [f"{other}.train" for other in needed_tasks if self.trainings.get(other)]

        def work() -> str:
            summaries = []
            for training in trainings:
                fabric = make_fabric(self.s.accelerator, precision=self.s.precision)

                def report(done: int, total: int, losses: Mapping[str, float]) -> None:
                    self.s.progress(f"{task}.train", done, total, losses)

                result = train_node(
                    training, fabric, report, data_workers=self.s.data_workers, warn=self.s.warn
                )
                summaries.append(result.summary)
            return "; ".join(summaries)

        def provenance() -> dict[str, str]:
            parts = [(training.node.name, training.provenance()) for training in trainings]
            return {
                key if len(parts) == 1 else f"{node}: {key}": value
                for node, part in parts
                for key, value in part.items()
            }

        def outputs() -> list[Path]:
            return [path for training in trainings for path in training.outputs()]

        record = self.s.runs / task / "step.json"
        return Step(f"{task}.train", record, provenance, outputs, work, tuple(sorted(needs) + before))

    def _score(self, tasks: list[str], targets: Path) -> Step:
        scored = [task for task in tasks if (targets / task).is_dir()]
        if not scored:
            raise DataError(
                f"no folder of targets for any of {', '.join(tasks)}",
                where=targets,
                next_step="targets lie in a folder per task, or leave out --targets",
            )
        predictions = self.s.out / PREDICTIONS

        def work() -> str:
            report = score_folders(
                Scorer.with_disk_cache(self.s.metric_weights, device=self.device),
                predictions,
                targets,
                scored,
                self.s.score_config,
                progress=lambda done, total: self.s.progress("score", done, total, {}),
            )
            write_score(report, self.s.score_json, self.s.out / SCORE_CSV)
            note_score(report.to_json(), {task: predictions / task for task in scored}, targets)
            said = disclaimer(self.s.metric_weights)
            return f"overall {report.overall:.4f}{f' ({said})' if said else ''}; {self.s.score_json}"

        def provenance() -> dict[str, str]:
            return {
                **{f"predictions of {task}": _fingerprint_images(predictions / task) for task in scored},
                **{f"targets of {task}": _fingerprint_images(targets / task) for task in scored},
                "rules": fingerprint([asdict(self.s.score_config), self.s.metric_weights]),
                "score": f"version {SCORE}",
            }

        outputs = [self.s.score_json, self.s.out / SCORE_CSV]
        needs = tuple(f"{task}.translate" for task in scored)
        return Step("score", self.s.record("score"), provenance, lambda: outputs, work, needs)

    def _submit(self, tasks: list[str]) -> Step:
        predictions, out = self.s.out / PREDICTIONS, self.s.out / ZIP
        expected = expected_images(self.task_set.folder, self.task_set.overrides)
        graphs = [f"{task}: {' > '.join(self.task_set.graph(task).order)}" for task in self.s.tasks]
        trained_so = "; trained with stand-in weights" if self.s.metric_weights == "standin" else ""
        is_trained = any(self.trainings.values())
        description = f"pbvs, {'; '.join(sorted(graphs))}{trained_so if is_trained else ''}"

        def work() -> str:
            seconds = mean_seconds_per_image([predictions / task for task in tasks])
            is_cpu = self.device.type == "cpu"
            readme = ReadmeFields(seconds, cpu=is_cpu, extra_data=self.s.extra_data, description=description)
            built = build(
                predictions,
                out,
                readme,
                expected,
                inputs=self.s.test,
                overwrite=True,
                progress=lambda done, total: self.s.progress("submit", done, total, {}),
            )
            records = {task: translation_record.provenance(predictions / task) for task in built.images}
            note_build(built, predictions, records)
            return f"{sum(built.images.values())} images, {built.n_bytes / 1e6:.1f} MB, checked; {out}"

        def provenance() -> dict[str, str]:
            return {
                **{f"predictions of {task}": _fingerprint_images(predictions / task) for task in expected},
                "readme": fingerprint([self.s.extra_data, description]),
                "submit": f"version {SUBMIT}",
            }

        needs = tuple(f"{task}.translate" for task in tasks)
        return Step("submit", self.s.record("submit"), provenance, lambda: [out], work, needs)


def translate_step(s: ChainSettings, task: str, inputs: Path) -> Step:
    """The step that translates a folder by a task, into the folder of its name among the predictions."""
    out, name = s.out / PREDICTIONS / task, f"{task}.translate"
    task_set = s.task_set
    through = (task, *task_set.embedded(task_set.spec(task)))
    needs = tuple(f"{t}.train" for t in through if task_set.graph(t).trained)

    def translator() -> Translator:
        return Translator(task_set, task, Runs(s.runs), device_of_process(s.accelerator))

    def work() -> str:
        done = translate.translate_folder(
            translator(),
            inputs,
            out,
            overwrite=True,
            progress=lambda done, total: s.progress(name, done, total, {}),
        )
        weights = f" ({done.weights})" if done.weights else ""
        return f"{done.images} images, {done.seconds_per_image:.2f} s each{weights}; {out}"

    def provenance() -> dict[str, str]:
        return {
            **translator().provenance(),
            "test inputs": files_fingerprint(translate.input_images(inputs)),
        }

    def outputs() -> list[Path]:
        return [out / f"{path.stem}.png" for path in translate.input_images(inputs)]

    return Step(name, s.record(name), provenance, outputs, work, needs)


def _prepared_name(spec: TaskSpec, size_px: tuple[int, int]) -> str:
    """A folder for each way of preparing, so that tasks which agree share one."""
    size = f"-{size_px[0]}x{size_px[1]}" if spec.family == "stack" else ""
    low, high = spec.data.uint16_percent
    rule = "" if spec.data.uint16 == "full" else f"-{spec.data.uint16}-{low:g}-{high:g}"
    registered = "-registered" if spec.family == "stack" and spec.data.register_sar else ""
    return f"{spec.family}{size}{rule}{registered}"


def _fingerprint_images(folder: Path) -> str:
    return files_fingerprint(pixels.list_images(folder)) if folder.is_dir() else "none"


def find_inputs(test: Path, task: str) -> Path:
    """The folder of a task's test inputs below `test`, see `pbvs.archives.layouts.inputs_folder`.

    Raises:
        UsageError: `test` does not exist.
        DataError: none of these is there.
    """
    if not test.is_dir():
        raise UsageError("the folder of test inputs does not exist", where=test)
    if folder := inputs_folder(test, task):
        return folder
    there = ", ".join(sorted(p.name for p in test.iterdir())[:8]) or "nothing"
    raise DataError(
        f"no test inputs for {task}: there is {there}",
        where=test,
        next_step=f"name a folder that holds {task}/, or leave {task} out",
    )
