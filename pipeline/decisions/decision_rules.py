"""What a person asks of the decisions, in a config's section `decisions` or by an option."""

from dataclasses import dataclass, field

from pneumo.pipeline.decisions.policies import Policy
from pneumo.serving.contracts.errors import InputError

DEFAULT_LEVEL = 0.9
DEFAULT_OUTLIER_QUANTILE = 0.99


@dataclass(frozen=True)
class DecisionRules:
    """How decisions are to be fitted on validation.

    Attributes:
        policy: Rule for the threshold.
        level: Wanted coverage of the conformal sets, in (0, 1).
        outlier_quantile: Share of validation images that pass the out-of-distribution limit, in (0, 1).
    """

    policy: Policy = field(default_factory=Policy)
    level: float = DEFAULT_LEVEL
    outlier_quantile: float = DEFAULT_OUTLIER_QUANTILE

    def __post_init__(self) -> None:
        for name, value in (("coverage", self.level), ("outliers", self.outlier_quantile)):
            if not 0 < value < 1:
                raise InputError(f"decisions.{name} is {value:g}; it must lie between 0 and 1, such as 0.9")
