"""Commands that make no sense: overrides, words after verbs, folders of configs."""

import contextlib
import io
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra import compose

from kdrun.cli import parser, planning
from kdrun.cli.command_spec import CommandSpec
from kdrun.cli.composer import Composer, typed_config
from kdrun.cli.verbs import config_names, names
from kdrun.config.composition import hydra_ready
from kdrun.config.shipped import shipped_configs
from kdrun.errors import KdrunError
from tests.reliability import spoil
from tests.reliability.case import Case, Failed

HYDRA_VERBS = ("distill", "train-teacher", "evaluate", "export", "benchmark")
VALUES = (
    "0", "1", "-1", "4", "0.1", "1e-3", "1e400", "nan", "inf", "null", "true", "[]", "[1,2]", "{}",
    "{a: 1}", "[kd,sp]", "kd", "sp", "resnet8", "cnn_tiny", "digits", "synthetic", "''", '""',
    "1,2", "a,b", "range(1,4)", "choice(1,2)", "interval(0,1)", "glob(*)", "shuffle(1,2,3)",
    "tag(log,interval(0.1,1))", "sort(3,1)", "int(3.5)", "${T}", "${nowhere}", "${oc.env:HOME}",
    "18446744073709551616", "-18446744073709551616", "1e308", "-inf", "range(1,1000000000)",
    "'\u2028'", "' '", "[kd,kd]", "'=1+1'", "[4,-1]", "[0]", "[nan]", "2.5", "x" * 300, "../x",
    "???", "a=b", "a b", "\\,", "[", "{", "'", "é", "9" * 5000, "[[[[[[1]]]]]]", "auto", "cpu",
)  # fmt: skip


@cache
def _keys(verb: str) -> tuple[str, ...]:
    """Everything that can be set for a verb: keys, groups, and settings within them."""
    spec = CommandSpec.of(verb)
    tops = [*spec.primary.keys, *spec.primary.groups, *spec.group_options]
    with hydra_ready():
        tree = Composer(spec).tree([])
    deep = _leaves(tree)
    extra = ["hydra/launcher", "hydra.sweep.dir", "hydra.job.name", "hydra.mode", "sweep.fail_fast"]
    return (*tops, *deep, *extra)


def _leaves(node: Any, prefix: str = "") -> list[str]:
    if not isinstance(node, dict):
        return [prefix]
    return [leaf for key, value in node.items() for leaf in _leaves(value, f"{prefix}.{key}"[0 if
            prefix else 1 :])]  # fmt: skip


def _word(case: Case, verb: str) -> str:
    rng = case.rng
    key = rng.choice(_keys(verb))
    if rng.random() < 0.3:
        options = CommandSpec.of(verb).options(key.split("@")[0])
        text = f"{key}={rng.choice(options)}" if options else f"{key}={rng.choice(VALUES)}"
    else:
        text = f"{key}={rng.choice(VALUES)}"
    if rng.random() < 0.15:
        text = rng.choice(("+", "++", "~", "+~")) + text
    if rng.random() < 0.3:
        text = spoil.word(text, rng)
    return text


def overrides(case: Case) -> str:
    """Overrides of a Hydra verb: refused in words, or composed as Hydra itself does."""
    rng = case.rng
    verb = rng.choice(HYDRA_VERBS)
    words = [_word(case, verb) for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 5)))]
    if rng.random() < 0.25:
        words.insert(rng.randrange(len(words) + 1), rng.choice(("-m", "--multirun")))
    if rng.random() < 0.1:
        words.append(rng.choice(("--cfg", "--nosuch", "-x", "--config-dir", "--info", "--resolve",
                                 "--trust", "--package=a", "-c", "--cfg=job", "--")))  # fmt: skip
    case.tell(f"{verb} {words}")
    try:
        parsed = parser.parse_composed(verb, words)
        if parsed.hydra_help or parsed.only_shows:
            return "shown"
        plan = planning.check(verb, parsed)
    except KdrunError as error:
        _check_sentence(str(error))
        return "refused"
    if plan.sweep_dir is None and rng.random() < 0.3:
        _check_as_hydra(verb, plan)
    return "accepted"


def _check_sentence(text: str) -> None:
    if not text.strip() or len(text) > 100_000:
        raise Failed(f"an error without words, or with too many: {text[:200]!r}")


def _check_as_hydra(verb: str, plan: planning.Plan) -> None:
    """The configuration is that of Hydra's own compose."""
    words = [word for word in plan.flags.overrides if not word.startswith("hydra.")]
    with hydra_ready():
        cfg = compose(config_names()[verb], words)
        expected = typed_config(verb, cfg)
    if repr(expected) != repr(plan.configs[0]):
        raise Failed(f"Hydra composes {expected}, kdrun {plan.configs[0]}")


def verbs(case: Case) -> str:
    """Words after verbs that Hydra has no part in, and before any verb."""
    rng = case.rng
    light = [verb for verb in names() if verb not in (*HYDRA_VERBS, "search", "doctor", "new")]
    pool = [
        *names(), *spoil.HOSTILE_TEXTS, "loss", "loss/sp", "runs", "teachers", "student", "--all",
        "--json", "--help", "-h", "--config-dir", "--config-dir=.", "run=.", "run=", "top=0", "a=b",
        "top=9", "output_root=x", "pictures=best", "to=x", "bash", "zsh", "x.png", ".", "..", "/",
    ]  # fmt: skip
    first = rng.choice(light) if rng.random() < 0.9 else rng.choice(pool)
    rest = [rng.choice(pool) for _ in range(rng.randrange(4))]
    words = [spoil.word(word, rng) if rng.random() < 0.2 else word for word in (first, *rest)]
    words = [word.replace("\x00", "").encode("utf-8", "replace").decode() for word in words]
    if words[0] == "validate" and not any(word in ("--help", "-h") for word in words):
        words.append("nosuchgroup")
    if words[0] in ("doctor", "new", *HYDRA_VERBS, "search") or "--complete" in words:
        words = ["ls", *words]
    code, _ = case.kdrun(*words)
    return f"exit code {code}"


def configs(case: Case) -> str:
    """A folder of configs of the user's own, with a file that is spoilt."""
    rng = case.rng
    package = shipped_configs()
    source = rng.choice(sorted(package.glob("*/*.yaml")))
    group = source.parent.name
    target = case.folder / "my" / group / "mine.yaml"
    target.parent.mkdir(parents=True)
    raw = source.read_bytes()
    how = rng.randrange(3)
    if how == 0:
        target.write_bytes(spoil.content(raw, rng))
    elif how == 1:
        data = spoil.values(yaml.safe_load(raw), rng)
        head = "# @package _global_\n" if b"@package" in raw else ""
        target.write_text(head + yaml.safe_dump(data, allow_unicode=False))
    else:
        target.write_text(rng.choice((
            "a: &a [1]\nb: *a\n", "- 1\n", "5\n", "defaults: 5\n", "defaults:\n  - x: {y: 1}\n",
            "defaults:\n  - mine\n", "# @package " + "x." * 30 + "\na: 1\n", "? [1]\n: 2\n",
            "[" * 300 + "]" * 300, "_target_: 5\n", "_target_: os.system\nname: x\n",
            "name: !!python/object/apply:os.system ['touch marker']\n",
        )))  # fmt: skip
    case.tell(f"{group}/mine.yaml: {target.read_bytes()[:300]!r}")
    key = {"published": "dataset", "hydra": "dataset", "model": "student"}.get(group, group)
    words = ["--config-dir", str(case.folder / "my"), f"{key}=mine"]
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            planning.check("distill", parser.parse_composed("distill", words))
        ended = "accepted"
    except KdrunError as error:
        _check_sentence(str(error))
        ended = "refused"
    for verb in (("ls", group), ("show", f"{group}/mine")):
        case.kdrun(*verb, "--config-dir", str(Path("my")))
    return ended
