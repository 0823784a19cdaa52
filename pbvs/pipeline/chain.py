"""The whole chain as steps: prepare, train and translate each task in dependency order, score, submit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pbvs.archives.layouts import find_images, inputs_folder
from pbvs.core import pixels
from pbvs.core.device import device_of_process
from pbvs.core.errors import DataError, UsageError
from pbvs.core.fabric import make_fabric
from pbvs.core.files import files_fingerprint, fingerprint
from pbvs.graph.spec import TaskSpec
from pbvs.graph.task_set import TaskSet
from pbvs.perceptual.metric_weights import WeightsKind, disclaimer
from pbvs.pipeline import translate, translation_record
from pbvs.pipeline.expected import PREDICTIONS, expected_images
from pbvs.pipeline.runs import Runs
from pbvs.pipeline.steps import Step, code_version
from pbvs.pipeline.train import NodeTraining, check_metric_weights, prepare_rules, train_node, working_size_px
from pbvs.pipeline.translation_record import mean_seconds_per_image
from pbvs.pipeline.translator import Translator
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

# (step, done, total, further words): the way every step tells how far it is.
ChainProgress = Callable[[str, int, int, Mapping[str, float]], None]


@dataclass(frozen=True)
class ChainSettings:
    """Everything that a run of the chain is asked for.

    Attributes:
        tasks: names, in any order; what they depend on is trained too.
        data: root of the archives; None when there is nothing to train in the tasks.
        test: root of the test inputs; None leaves out everything after training.
        targets: root of test targets; None leaves out the score.
        runs, out: folders for training and for what is made of the test inputs.
        metric_weights: kind of the judges' weights.
        ranking: how the score is made.
        accelerator, precision: Fabric's words for where and in which numbers the networks run.
        extra_data: what the readme says of it.
        data_workers: processes that load training images.
    """

    book: TaskSet
    tasks: tuple[str, ...]
    data: Path | None
    test: Path | None
    targets: Path | None
    runs: Path
    out: Path
    metric_weights: WeightsKind
    ranking: ScoreConfig
    accelerator: str
    precision: str
    extra_data: bool
    data_workers: int
    progress: ChainProgress = field(repr=False, default=lambda step, done, total, words: None)

    @property
    def score_json(self) -> Path:
        """Where the score is written."""
        return self.out / SCORE_JSON

    def record(self, step: str) -> Path:
        """Where a step notes what it was made of."""
        return self.out / "steps" / f"{step}.json"

    def made(self) -> list[Path]:
        """What a person wants to look at after a run."""
        return [self.out / ZIP, self.out / PREDICTIONS, self.score_json, self.out / SCORE_CSV, self.runs]


def chain(settings: ChainSettings) -> list[Step]:
    """The steps of a run, in an order that keeps every dependency.

    Raises:
        UsageError, TaskError: an unknown task, a wrong task file, no data for what must be trained.
        DataError: a task has no test inputs.
        WeightsError: official judges' weights are asked for and missing.
    """
    return _Chain(settings).steps()


class _Chain:
    def __init__(self, settings: ChainSettings):
        self.s = settings
        self.book = settings.book
        self.all_tasks = self.book.in_order(settings.tasks)
        self.trained = [t for t in self.all_tasks if self.book.graph(t).trainable]
        self.runs = Runs(settings.runs)
        self.device = device_of_process(settings.accelerator)

    def steps(self) -> list[Step]:
        self._check_judges()
        steps = [*self._prepares(), *(self._train(task) for task in self.trained)]
        if self.s.test is None:
            return steps
        wanted = [task for task in self.all_tasks if task in self.s.tasks]
        steps += [self._translate(task) for task in wanted]
        if self.s.targets is not None:
            steps.append(self._score(wanted))
        return [*steps, self._submit(wanted)]

    def _check_judges(self) -> None:
        """Before any work: official weights that will be needed must be there."""
        names: set[str] = set()
        for task in self.trained:
            for training in self._trainings(task):
                names |= training.metric_weights_needed
        if self.s.targets is not None and self.s.test is not None:
            names |= {"vgg16", "inception"}
        check_metric_weights(names, self.s.metric_weights)

    # ---- data

    def _prepares(self) -> list[Step]:
        by_folder: dict[Path, list[NodeTraining]] = {}
        for task in self.trained:
            for training in self._trainings(task):
                by_folder.setdefault(training.prepared, []).append(training)
        return [self._prepare(folder, trainings) for folder, trainings in by_folder.items()]

    def _trainings(self, task: str) -> list[NodeTraining]:
        graph = self.book.graph(task)
        folder = self.s.runs / "prepared"
        return [
            NodeTraining(
                graph.spec,
                node,
                folder / _prepared_name(graph.spec, working_size_px(graph.spec, node)),
                self.runs,
                self.s.metric_weights,
                self.s.precision,
            )
            for node in graph.trainable
        ]

    def _prepare(self, folder: Path, trainings: list[NodeTraining]) -> Step:
        root = self.s.data
        if root is None:
            raise UsageError("training needs data", next_step="name the root of the archives with --data")
        specs = [training.spec for training in trainings]
        modalities = sorted({m for spec in specs for m in (spec.source, spec.target)})
        rules = prepare_rules(specs)
        size_px = trainings[0].size_px if specs[0].family == "stack" else None
        name = f"prepare.{folder.name}"

        def work() -> str:
            done = prepare(
                root,
                folder,
                modalities=modalities,
                families=[specs[0].family],
                size_px=size_px,
                rules=rules,
                progress=lambda done, total: self.s.progress(name, done, total, {}),
            )
            problems = f", {len(done.problems)} problems (problems.csv)" if done.problems else ""
            return f"{done.n_images} captures, {done.n_made} made now{problems}; {folder}"

        def provenance() -> dict[str, str]:
            settings = [modalities, rules.described(), size_px]
            return {
                "archives": _archives_fingerprint(root, folder, specs[0].family),
                "settings": fingerprint(settings),
                "code": code_version("pixels.py", "data"),
            }

        def outputs() -> list[Path]:
            return [folder / INDEX_NAME]

        return Step(name, folder / "step.json", provenance, outputs, work, reads_first=True)

    # ---- models

    def _train(self, task: str) -> Step:
        trainings = self._trainings(task)
        before = [
            f"{other}.train" for other in self.book.needs(self.book.spec(task)) if other in self.trained
        ]
        needs = {f"prepare.{training.prepared.name}" for training in trainings}

        def work() -> str:
            told = []
            for training in trainings:
                fabric = make_fabric(self.s.accelerator, precision=self.s.precision)

                def report(done: int, total: int, terms: Mapping[str, float]) -> None:
                    self.s.progress(f"{task}.train", done, total, terms)

                told.append(train_node(training, fabric, report, data_workers=self.s.data_workers).told)
            return "; ".join(told)

        def provenance() -> dict[str, str]:
            parts = [(training.node.name, training.provenance()) for training in trainings]
            return {
                key if len(parts) == 1 else f"{node}: {key}": value
                for node, made in parts
                for key, value in made.items()
            }

        def outputs() -> list[Path]:
            return [path for training in trainings for path in training.outputs()]

        record = self.s.runs / task / "step.json"
        return Step(f"{task}.train", record, provenance, outputs, work, tuple(sorted(needs) + before))

    # ---- what is made of the test inputs

    def _translate(self, task: str) -> Step:
        assert self.s.test is not None
        return translate_step(self.s, task, find_inputs(self.s.test, task))

    def _score(self, tasks: list[str]) -> Step:
        targets = self.s.targets
        assert targets is not None
        scored = [task for task in tasks if (targets / task).is_dir()]
        if not scored:
            raise DataError(
                f"no folder of targets for any of {', '.join(tasks)}",
                where=targets,
                next_step="targets lie in a folder a task, or leave out --targets",
            )

        def work() -> str:
            report = score_folders(
                Scorer.remembering(self.s.metric_weights, device=self.device),
                self.s.out / PREDICTIONS,
                targets,
                scored,
                self.s.ranking,
                progress=lambda done, total: self.s.progress("score", done, total, {}),
            )
            write_score(report, self.s.out / SCORE_JSON, self.s.out / SCORE_CSV)
            note_score(report.to_json(), {task: self.s.out / PREDICTIONS / task for task in scored}, targets)
            mark = f" ({disclaimer(self.s.metric_weights)})" if disclaimer(self.s.metric_weights) else ""
            return f"overall {report.overall:.4f}{mark}; {self.s.out / SCORE_JSON}"

        def provenance() -> dict[str, str]:
            return {
                **{f"predictions of {t}": _images(self.s.out / PREDICTIONS / t) for t in scored},
                **{f"targets of {t}": _images(targets / t) for t in scored},
                "rules": fingerprint([asdict(self.s.ranking), self.s.metric_weights]),
                "code": code_version("pixels.py", "score"),
            }

        def outputs() -> list[Path]:
            return [self.s.out / SCORE_JSON, self.s.out / SCORE_CSV]

        needs = tuple(f"{task}.translate" for task in scored)
        return Step("score", self.s.record("score"), provenance, outputs, work, needs)

    def _submit(self, tasks: list[str]) -> Step:
        predictions, out = self.s.out / PREDICTIONS, self.s.out / ZIP
        expected = expected_images(self.book.folder, self.book.overrides)

        def work() -> str:
            built = build(
                predictions,
                out,
                self._readme(tasks),
                expected,
                inputs=self.s.test,
                overwrite=True,
                progress=lambda done, total: self.s.progress("submit", done, total, {}),
            )
            records = {task: translation_record.provenance(predictions / task) for task in built.images}
            note_build(built, predictions, records)
            n_images = sum(built.images.values())
            return f"{n_images} images, {built.n_bytes / 1e6:.1f} MB, checked; {out}"

        def provenance() -> dict[str, str]:
            return {
                **{f"predictions of {task}": _images(predictions / task) for task in expected},
                "readme": fingerprint([self.s.extra_data, self._description()]),
                "code": code_version("pixels.py", "submission"),
            }

        needs = tuple(f"{task}.translate" for task in tasks)
        return Step("submit", self.s.record("submit"), provenance, lambda: [out], work, needs)

    def _readme(self, tasks: list[str]) -> ReadmeFields:
        mean = mean_seconds_per_image([self.s.out / PREDICTIONS / task for task in tasks])
        cpu = self.device.type == "cpu"
        return ReadmeFields(mean, cpu=cpu, extra_data=self.s.extra_data, description=self._description())

    def _description(self) -> str:
        words = [f"{t}: {' > '.join(self.book.graph(t).order)}" for t in self.s.tasks]
        mark = (
            "; trained with stand-in weights" if self.s.metric_weights == "standin" and self.trained else ""
        )
        return f"pbvs, {'; '.join(sorted(words))}{mark}"


def translate_step(s: ChainSettings, task: str, inputs: Path) -> Step:
    """The step that translates a folder by a task, into the folder of its name among the predictions."""
    out, name = s.out / PREDICTIONS / task, f"{task}.translate"
    book = s.book
    needs = [f"{t}.train" for t in (task, *book.embedded(book.spec(task))) if book.graph(t).trainable]

    def translator() -> Translator:
        return Translator(book, task, Runs(s.runs), device_of_process(s.accelerator))

    def work() -> str:
        done = translate.translate_folder(
            translator(),
            inputs,
            out,
            overwrite=True,
            progress=lambda done, total: s.progress(name, done, total, {}),
        )
        return f"{done.images} images, {done.seconds_per_image:.2f} s each; {out}"

    def provenance() -> dict[str, str]:
        return {
            **translator().provenance(),
            "test inputs": files_fingerprint(translate.input_images(inputs)),
            "code": code_version(
                "pixels.py",
                "modules",
                "models",
                *(f"tasks/{f}.py" for f in ("graph", "translate", "translator")),
            ),
        }

    def outputs() -> list[Path]:
        return [out / f"{path.stem}.png" for path in translate.input_images(inputs)]

    return Step(name, s.record(name), provenance, outputs, work, tuple(needs))


def _prepared_name(spec: TaskSpec, size_px: tuple[int, int]) -> str:
    """A folder for each way of preparing, so that tasks which agree share one."""
    size = f"-{size_px[0]}x{size_px[1]}" if spec.family == "stack" else ""
    low, high = spec.data.uint16_percent
    rule = "" if spec.data.uint16 == "full" else f"-{spec.data.uint16}-{low:g}-{high:g}"
    registered = "-registered" if spec.family == "stack" and spec.data.register_sar else ""
    return f"{spec.family}{size}{rule}{registered}"


def _archives_fingerprint(root: Path, folder: Path, family: str) -> str:
    """Contents of a family's images; the hashes that prepare has taken spare reading them again."""
    records = load_records(folder)
    entries = [entry for entry in find_images(root).entries if entry.family == family]
    hashes = [
        [e.path.as_posix(), content_hash(root / e.path, records.get(e.path.as_posix())).sha256]
        for e in entries
    ]
    return fingerprint(hashes)


def _images(folder: Path) -> str:
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
