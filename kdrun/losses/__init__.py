"""All losses as torch criteria, under the short names of their papers and their full names.

    from kdrun.losses import CRD, KD, SimilarityPreserving

    loss = KD(temperature=4.0)(student_logits, teacher_logits)

`kdrun.losses.criterion` says what each takes; the class docstrings hold formula, shapes and source.
`__all__` is the public part of this package.
"""

# ruff: noqa: N814, N817 - short names are those of the papers
import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdrun.losses.ab import ActivationBoundaries as AB
    from kdrun.losses.ab import ActivationBoundaries as ActivationBoundaries
    from kdrun.losses.abkd import AlphaBetaDivergence as ABKD
    from kdrun.losses.abkd import AlphaBetaDivergence as AlphaBetaDivergence
    from kdrun.losses.at import AttentionTransfer as AT
    from kdrun.losses.at import AttentionTransfer as AttentionTransfer
    from kdrun.losses.base import DistillationLoss as DistillationLoss
    from kdrun.losses.cat_kd import ClassAttention as CATKD
    from kdrun.losses.cat_kd import ClassAttention as ClassAttention
    from kdrun.losses.cc import CorrelationCongruence as CC
    from kdrun.losses.cc import CorrelationCongruence as CorrelationCongruence
    from kdrun.losses.ce import CrossEntropy as CE
    from kdrun.losses.ce import CrossEntropy as CrossEntropy
    from kdrun.losses.crd import ContrastiveDistillation as CRD
    from kdrun.losses.crd import ContrastiveDistillation as ContrastiveDistillation
    from kdrun.losses.crld import CrossViewConsistency as CRLD
    from kdrun.losses.crld import CrossViewConsistency as CrossViewConsistency
    from kdrun.losses.ctkd import CurriculumTemperature as CTKD
    from kdrun.losses.ctkd import CurriculumTemperature as CurriculumTemperature
    from kdrun.losses.deit_hard import DeitHard as DeiTHard
    from kdrun.losses.deit_hard import DeitHard as DeitHard
    from kdrun.losses.deit_soft import DeitSoft as DeiTSoft
    from kdrun.losses.deit_soft import DeitSoft as DeitSoft
    from kdrun.losses.dist import CorrelationDistillation as CorrelationDistillation
    from kdrun.losses.dist import CorrelationDistillation as DIST
    from kdrun.losses.dkd import DecoupledDistillation as DKD
    from kdrun.losses.dkd import DecoupledDistillation as DecoupledDistillation
    from kdrun.losses.fitnet import FitNet as FitNet
    from kdrun.losses.fsp import SolutionFlow as FSP
    from kdrun.losses.fsp import SolutionFlow as SolutionFlow
    from kdrun.losses.ft import FactorTransfer as FT
    from kdrun.losses.ft import FactorTransfer as FactorTransfer
    from kdrun.losses.itrd import InformationTheoretic as ITRD
    from kdrun.losses.itrd import InformationTheoretic as InformationTheoretic
    from kdrun.losses.kd import SoftTargets as KD
    from kdrun.losses.kd import SoftTargets as SoftTargets
    from kdrun.losses.kdsvd import SingularVectors as KDSVD
    from kdrun.losses.kdsvd import SingularVectors as SingularVectors
    from kdrun.losses.logit_std import LogitStandardisation as LSKD
    from kdrun.losses.logit_std import LogitStandardisation as LogitStandardisation
    from kdrun.losses.logits import LogitRegression as LogitRegression
    from kdrun.losses.mlkd import MultiLevelLogits as MLKD
    from kdrun.losses.mlkd import MultiLevelLogits as MultiLevelLogits
    from kdrun.losses.nd import NormAndDirection as ND
    from kdrun.losses.nd import NormAndDirection as NormAndDirection
    from kdrun.losses.nkd import NormalisedDistillation as NKD
    from kdrun.losses.nkd import NormalisedDistillation as NormalisedDistillation
    from kdrun.losses.nst import NeuronSelectivity as NST
    from kdrun.losses.nst import NeuronSelectivity as NeuronSelectivity
    from kdrun.losses.ofa import OneForAll as OFA
    from kdrun.losses.ofa import OneForAll as OneForAll
    from kdrun.losses.ofd import FeatureOverhaul as FeatureOverhaul
    from kdrun.losses.ofd import FeatureOverhaul as OFD
    from kdrun.losses.pkt import ProbabilisticTransfer as PKT
    from kdrun.losses.pkt import ProbabilisticTransfer as ProbabilisticTransfer
    from kdrun.losses.reviewkd import KnowledgeReview as KnowledgeReview
    from kdrun.losses.reviewkd import KnowledgeReview as ReviewKD
    from kdrun.losses.rkd import RelationalDistillation as RKD
    from kdrun.losses.rkd import RelationalDistillation as RelationalDistillation
    from kdrun.losses.rld import RefinedLogits as RLD
    from kdrun.losses.rld import RefinedLogits as RefinedLogits
    from kdrun.losses.semckd import SemanticCalibration as SemCKD
    from kdrun.losses.semckd import SemanticCalibration as SemanticCalibration
    from kdrun.losses.simkd import ReusedTeacherClassifier as ReusedTeacherClassifier
    from kdrun.losses.simkd import ReusedTeacherClassifier as SimKD
    from kdrun.losses.skd import Streamlined as SKD
    from kdrun.losses.skd import Streamlined as Streamlined
    from kdrun.losses.sp import SimilarityPreserving as SP
    from kdrun.losses.sp import SimilarityPreserving as SimilarityPreserving
    from kdrun.losses.srd import SimpleRecipe as SRD
    from kdrun.losses.srd import SimpleRecipe as SimpleRecipe
    from kdrun.losses.srrl import SoftmaxRegression as SRRL
    from kdrun.losses.srrl import SoftmaxRegression as SoftmaxRegression
    from kdrun.losses.ttm import TransformedTeacherMatching as TTM
    from kdrun.losses.ttm import TransformedTeacherMatching as TransformedTeacherMatching
    from kdrun.losses.vid import VariationalInformation as VID
    from kdrun.losses.vid import VariationalInformation as VariationalInformation
    from kdrun.losses.wkd_f import WassersteinFeatures as WKDF
    from kdrun.losses.wkd_f import WassersteinFeatures as WassersteinFeatures
    from kdrun.losses.wkd_l import WassersteinLogits as WKDL
    from kdrun.losses.wkd_l import WassersteinLogits as WassersteinLogits
    from kdrun.losses.wsld import WeightedSoftLabels as WSLD
    from kdrun.losses.wsld import WeightedSoftLabels as WeightedSoftLabels
    from kdrun.losses.wttm import WeightedTeacherMatching as WTTM
    from kdrun.losses.wttm import WeightedTeacherMatching as WeightedTeacherMatching

# Name in the paper → (module, class).
NAMES = {
    "AB": ("ab", "ActivationBoundaries"),
    "ABKD": ("abkd", "AlphaBetaDivergence"),
    "AT": ("at", "AttentionTransfer"),
    "CATKD": ("cat_kd", "ClassAttention"),
    "CC": ("cc", "CorrelationCongruence"),
    "CE": ("ce", "CrossEntropy"),
    "CRD": ("crd", "ContrastiveDistillation"),
    "CRLD": ("crld", "CrossViewConsistency"),
    "CTKD": ("ctkd", "CurriculumTemperature"),
    "DIST": ("dist", "CorrelationDistillation"),
    "DKD": ("dkd", "DecoupledDistillation"),
    "DeiTHard": ("deit_hard", "DeitHard"),
    "DeiTSoft": ("deit_soft", "DeitSoft"),
    "FSP": ("fsp", "SolutionFlow"),
    "FT": ("ft", "FactorTransfer"),
    "FitNet": ("fitnet", "FitNet"),
    "ITRD": ("itrd", "InformationTheoretic"),
    "KD": ("kd", "SoftTargets"),
    "KDSVD": ("kdsvd", "SingularVectors"),
    "LSKD": ("logit_std", "LogitStandardisation"),
    "LogitRegression": ("logits", "LogitRegression"),
    "MLKD": ("mlkd", "MultiLevelLogits"),
    "ND": ("nd", "NormAndDirection"),
    "NKD": ("nkd", "NormalisedDistillation"),
    "NST": ("nst", "NeuronSelectivity"),
    "OFA": ("ofa", "OneForAll"),
    "OFD": ("ofd", "FeatureOverhaul"),
    "PKT": ("pkt", "ProbabilisticTransfer"),
    "RKD": ("rkd", "RelationalDistillation"),
    "RLD": ("rld", "RefinedLogits"),
    "ReviewKD": ("reviewkd", "KnowledgeReview"),
    "SKD": ("skd", "Streamlined"),
    "SP": ("sp", "SimilarityPreserving"),
    "SRD": ("srd", "SimpleRecipe"),
    "SRRL": ("srrl", "SoftmaxRegression"),
    "SemCKD": ("semckd", "SemanticCalibration"),
    "SimKD": ("simkd", "ReusedTeacherClassifier"),
    "TTM": ("ttm", "TransformedTeacherMatching"),
    "VID": ("vid", "VariationalInformation"),
    "WKDF": ("wkd_f", "WassersteinFeatures"),
    "WKDL": ("wkd_l", "WassersteinLogits"),
    "WSLD": ("wsld", "WeightedSoftLabels"),
    "WTTM": ("wttm", "WeightedTeacherMatching"),
}
CLASSES = {name: module for module, name in NAMES.values()} | {"DistillationLoss": "base"}

__all__ = [
    "AB",
    "ABKD",
    "AT",
    "CATKD",
    "CC",
    "CE",
    "CRD",
    "CRLD",
    "CTKD",
    "DIST",
    "DKD",
    "FSP",
    "FT",
    "ITRD",
    "KD",
    "KDSVD",
    "LSKD",
    "MLKD",
    "ND",
    "NKD",
    "NST",
    "OFA",
    "OFD",
    "PKT",
    "RKD",
    "RLD",
    "SKD",
    "SP",
    "SRD",
    "SRRL",
    "TTM",
    "VID",
    "WKDF",
    "WKDL",
    "WSLD",
    "WTTM",
    "ActivationBoundaries",
    "AlphaBetaDivergence",
    "AttentionTransfer",
    "ClassAttention",
    "ContrastiveDistillation",
    "CorrelationCongruence",
    "CorrelationDistillation",
    "CrossEntropy",
    "CrossViewConsistency",
    "CurriculumTemperature",
    "DecoupledDistillation",
    "DeiTHard",
    "DeiTSoft",
    "DeitHard",
    "DeitSoft",
    "DistillationLoss",
    "FactorTransfer",
    "FeatureOverhaul",
    "FitNet",
    "InformationTheoretic",
    "KnowledgeReview",
    "LogitRegression",
    "LogitStandardisation",
    "MultiLevelLogits",
    "NeuronSelectivity",
    "NormAndDirection",
    "NormalisedDistillation",
    "OneForAll",
    "ProbabilisticTransfer",
    "RefinedLogits",
    "RelationalDistillation",
    "ReusedTeacherClassifier",
    "ReviewKD",
    "SemCKD",
    "SemanticCalibration",
    "SimKD",
    "SimilarityPreserving",
    "SimpleRecipe",
    "SingularVectors",
    "SoftTargets",
    "SoftmaxRegression",
    "SolutionFlow",
    "Streamlined",
    "TransformedTeacherMatching",
    "VariationalInformation",
    "WassersteinFeatures",
    "WassersteinLogits",
    "WeightedSoftLabels",
    "WeightedTeacherMatching",
]


def __getattr__(name: str) -> Any:
    """A loss by either name; its module, which imports torch, is loaded when asked for."""
    module, attribute = NAMES.get(name, (CLASSES.get(name), name))
    if module is None:
        raise AttributeError(f"module 'kdrun.losses' has no attribute '{name}'")
    return getattr(importlib.import_module(f"kdrun.losses.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
