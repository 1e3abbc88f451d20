"""`kdrun export`: write a finished network for other programs and check the file."""

import json
import shlex
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from kdrun.config.schema import ExportConfig
from kdrun.deploy import agreement, formats, model_card
from kdrun.deploy import tables as deploy_tables
from kdrun.deploy.agreement import Agreement
from kdrun.deploy.export_source import Source, calibration_split, open_source, raw_batches
from kdrun.deploy.export_timing import RUNTIME, measure_latency
from kdrun.deploy.formats import Runner
from kdrun.deploy.post_training import calibrated
from kdrun.deploy.quantise import quantise
from kdrun.deploy.unsigned_weights import use_unsigned_weights
from kdrun.distillation.networks import dataset_to_dict
from kdrun.distillation.session import Session
from kdrun.errors import ConfigError
from kdrun.files import make_folder, read_json, sha256_of, writing_temporary
from kdrun.ownership import alone, published_own, require_own, write_own
from kdrun.removal import remove
from kdrun.runs.environment import environment

FACTS_FILE, CARD_FILE = "export.json", "MODEL_CARD.md"
ELSEWHERE = "name another folder: out=DIR"
TOLERANCE_POINTS = 2.0
CALIBRATION_IMAGES = 512
INT8 = "int8"  # calibrated by ONNX Runtime's own tool
CALIBRATION_BATCH = 64


def run_export(config: ExportConfig, session: Session, argv: Sequence[str]) -> dict[str, Any]:
    """Write, check and describe the exported file; returns its entry of `export.json`.

    Raises ExportError if the file does not reproduce the network, and leaves nothing behind.
    """
    source = open_source(config, session)
    _check_quantize(config, source)
    folder = _folder(config, source, session)
    kind = f".{config.quantize}" if config.quantize else ""
    path = folder / f"{source.stem}{kind}.{config.format}"
    new = not folder.exists()
    _check_out(folder, path, source)
    session.reporter.heading(f"kdrun export: {source.card.name} as {path.name}")
    with tempfile.TemporaryDirectory() as work:
        try:
            result = _write(config, source, path, Path(work), session)
        except BaseException:
            if new:  # nothing was exported
                remove(folder, folder_too=True)
            raise
        facts = {
            "format": config.format,
            "quantize": config.quantize,
            "bytes": path.stat().st_size,
            "sha256": sha256_of(path),
            "dataset": dataset_to_dict(source.dataset),
            "check": result.as_dict(),
            "command": shlex.join(["kdrun", *argv]),
        }
        session.reporter.show(deploy_tables.agreement_table(source.card.name, path.name, result))
        session.reporter.say(f"  {deploy_tables.agreement_words(result)}")
        _describe(folder, path.name, facts, None, source)  # the timing may be interrupted
        if config.latency:
            timing = measure_latency(source, path, config, Path(work), session)
            session.reporter.show(deploy_tables.latency_table(timing))
            facts |= _latency_of_file(config, timing)
            _describe(folder, path.name, facts, timing, source)
    session.reporter.say(f"  file: {path}")
    session.reporter.say(f"  model card: {folder / CARD_FILE}")
    return facts


def _latency_of_file(config: ExportConfig, timing: dict[str, Any]) -> dict[str, Any]:
    """`latency` of the exported file itself: the last row, if ONNX Runtime was timed."""
    last = timing["rows"][-1]
    if config.format != formats.ONNX or last["program"] != RUNTIME:
        return {}
    return {"latency": last["latency"]}


def _check_quantize(config: ExportConfig, source: Source) -> None:
    """Raise ConfigError for a choice that contradicts an int8-aware student."""
    kind = source.card.quantize
    if kind is None:
        return
    if config.format == formats.ONNX and config.quantize != kind:
        raise ConfigError(
            f"{config.run} was trained with student.quantize={kind}: add quantize={kind}; its "
            "weights have no full-precision ONNX file with the same answers."
        )
    if config.tolerance is not None:
        raise ConfigError(
            f"tolerance is for calibrating a full-precision student; the file of {config.run} "
            f"must agree with its network on {agreement.REQUIRED_AGREEMENT:g} % of the test "
            "images: leave tolerance out."
        )
    if config.calibration_images is not None:
        raise ConfigError(
            "calibration_images is for calibrating a full-precision student; the file of "
            f"{config.run} has the ranges of its training: leave calibration_images out."
        )


def _folder(config: ExportConfig, source: Source, session: Session) -> Path:
    """The output folder; never the folder of weights outside kdrun's own folders."""
    if config.out:
        return Path(config.out).expanduser()
    if source.is_bare:
        return session.output_root / "export" / source.dataset.name / source.card.name
    return source.folder / "export"


def _check_out(folder: Path, path: Path, source: Source) -> None:
    """Raise ConfigError for a folder that cannot be made or would overwrite the source."""
    if path.exists() and path.samefile(source.weights):
        raise ConfigError(f"out={folder} would overwrite {source.weights}: name another folder.")
    names = [path.name, FACTS_FILE, CARD_FILE]
    names += [path.with_suffix(".json").name] if path.suffix == f".{formats.SAFETENSORS}" else []
    require_own(folder, names, ELSEWHERE)
    make_folder(folder)


def _write(
    config: ExportConfig, source: Source, path: Path, work: Path, session: Session
) -> Agreement:
    """Write the file under another name, check it, and give it its name."""
    dtype = source.dataset.pixel_type

    def check(run: Runner) -> Agreement:
        batches = raw_batches(source.test, config.batch_size)
        return agreement.compare(
            source.original, agreement.answers(run, batches), source.test.targets
        )

    with _published(path, config.format) as (file, card_file):
        trained = source.card.quantize is not None  # its file has the ranges of the training
        if config.format == formats.SAFETENSORS:
            formats.write_safetensors(source.network, source.card, dtype, file, card_file)
            result = check(formats.safetensors_runner(file, card_file))
        elif config.format == formats.PT2:
            formats.write_pt2(source.network, source.card, dtype, file)
            result = check(formats.pt2_runner(file))
        else:
            apart = config.quantize is not None and not trained
            full = work / f"{source.stem}.onnx" if apart else file
            with writing_temporary(work) if apart else nullcontext():
                formats.write_onnx(source.network, source.card, dtype, full, config.opset)
            result = check(formats.onnx_runner(full, session.threads))
            if trained and not agreement.gives_same_answers(result):
                session.reporter.say(
                    f"  weights as uint8: as int8, {result.agreement:.2f} % of the answers agreed, "
                    "because ONNX Runtime's sums saturate on this CPU"
                )
                use_unsigned_weights(file)
                result = check(formats.onnx_runner(file, session.threads))
        if trained:
            agreement.require_same_answers(result, path.name)
            return result
        agreement.require_equal(result, path.name)
        if config.quantize:
            count = config.calibration_images or CALIBRATION_IMAGES
            calibration = calibration_split(source.dataset, count, source.card.info)
            if config.quantize == INT8:
                quantise(full, file, raw_batches(calibration, config.batch_size))
            else:
                network = calibrated(
                    source.network, config.quantize, raw_batches(calibration, CALIBRATION_BATCH)
                )
                formats.write_onnx(network, network.card, dtype, file, config.opset)
            result = check(formats.onnx_runner(file, session.threads))
            tolerance = TOLERANCE_POINTS if config.tolerance is None else config.tolerance
            agreement.require_accurate(result, tolerance, path.name)
    return result


@contextmanager
def _published(path: Path, format: str) -> Iterator[tuple[Path, Path]]:
    """Hidden names for the file and, of safetensors, its card; real ones when all is well."""
    with published_own(path, ELSEWHERE) as file:
        if format != formats.SAFETENSORS:
            yield file, file
            return
        with published_own(path.with_suffix(".json"), ELSEWHERE) as card_file:
            yield file, card_file


def _describe(
    folder: Path,
    name: str,
    facts: dict[str, Any],
    timing: dict[str, Any] | None,
    source: Source,
) -> None:
    """Add the file to `export.json` and rewrite the model card from it."""
    with alone(folder):
        path = folder / FACTS_FILE
        try:
            known = read_json(path)
            files = dict(known["files"]) if known["weights_sha256"] == source.card.sha256 else {}
            before = known.get("timing") if files else None
        except (OSError, ValueError, KeyError, TypeError):
            files, before = {}, None
        files = {file: entry for file, entry in files.items() if (folder / file).is_file()}
        values = {
            "schema": 1,
            "name": source.card.name,
            "weights": str(source.weights),
            "weights_sha256": source.card.sha256,
            "dataset": source.training_data.to_dict(),
            "metadata": formats.metadata(source.card, source.dataset.pixel_type),
            "files": {**files, name: facts},
            "timing": _with_earlier(timing, before),
            "environment": environment(),
        }
        content = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        write_own(path, content.encode(), ELSEWHERE)
        text = model_card.markdown(values, source.card, source.training_data, source.result)
        write_own(folder / CARD_FILE, text.encode(), ELSEWHERE)


def _with_earlier(
    timing: dict[str, Any] | None, before: dict[str, Any] | None
) -> dict[str, Any] | None:
    """The new rows, then those of other files, timed earlier under the same conditions."""
    if timing is None or before is None:
        return timing or before
    if any(timing[key] != before[key] for key in ("processor", "threads")):
        return timing
    new = [(row["network"], row["program"]) for row in timing["rows"]]
    kept = [row for row in before["rows"] if (row["network"], row["program"]) not in new]
    return {**timing, "rows": [*timing["rows"], *kept]}
