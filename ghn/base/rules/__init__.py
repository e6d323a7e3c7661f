"""All rules and modifiers in their order; the files beside this one hold one each."""

from ghn.base.rule import Modifier, Rule
from ghn.base.rules.batch_norm_bias import BatchNormBias
from ghn.base.rules.classifier import Classifier
from ghn.base.rules.conv_batch_norm import ConvBatchNorm
from ghn.base.rules.fan_in import FanIn
from ghn.base.rules.fan_out import FanOut
from ghn.base.rules.input_bias import InputBias
from ghn.base.rules.known_factor import KnownFactor
from ghn.base.rules.last_norm import LastNorm
from ghn.base.rules.last_norm_bias import LastNormBias
from ghn.base.rules.mlp_mixer import MlpMixer
from ghn.base.rules.padding_row import PaddingRow
from ghn.base.rules.parameter_free_branch import ParameterFreeBranch
from ghn.base.rules.patch_classifier import PatchClassifier
from ghn.base.rules.patch_positions import PatchPositions
from ghn.base.rules.prelu_slope import PreluSlope
from ghn.base.rules.previous_token_heads import PreviousTokenHeads
from ghn.base.rules.previous_token_output import PreviousTokenOutput
from ghn.base.rules.recurrent_state import RecurrentState
from ghn.base.rules.relative_bias import RelativeBias
from ghn.base.rules.relu_maps import ReluMaps
from ghn.base.rules.residual_damping import ResidualDamping
from ghn.base.rules.sequence_table import SequenceTable
from ghn.base.rules.set_output import SetOutput
from ghn.base.rules.shared_token_vector import SharedTokenVector
from ghn.base.rules.state_space_decay import StateSpaceDecay
from ghn.base.rules.stem_bias import StemBias
from ghn.base.rules.sum_pooling import SumPooling
from ghn.base.rules.temperature import Temperature
from ghn.base.rules.tied_lookup import TiedLookup
from ghn.base.rules.token_positions import TokenPositions
from ghn.base.rules.unit_multiplier import UnitMultiplier
from ghn.base.rules.unnormalized_bias import UnnormalizedBias
from ghn.base.rules.unnormalized_chain import UnnormalizedChain
from ghn.base.rules.unnormalized_table import UnnormalizedTable
from ghn.base.rules.vector_table import VectorTable
from ghn.base.rules.weight_norm_length import WeightNormLength
from ghn.base.rules.whitened_filters import WhitenedFilters
from ghn.base.rules.wide_classifier import WideClassifier
from ghn.base.rules.word_attention import WordAttention
from ghn.base.rules.zero_shift import ZeroShift

__all__ = ["MODIFIERS", "RULES", "FanOut"]

RULES: tuple[Rule, ...] = (
    # Matrices and kernels.
    *(ConvBatchNorm(), RecurrentState(), UnnormalizedChain(), ReluMaps()),
    *(PatchClassifier(), Classifier(), MlpMixer(), FanIn()),
    # Tables.
    *(RelativeBias(), PatchPositions(), TokenPositions()),
    *(SequenceTable(), UnnormalizedTable(), VectorTable()),
    # Vectors that are added.
    *(StemBias(), InputBias(), UnnormalizedBias(), LastNormBias(), BatchNormBias(), ZeroShift()),
    # Vectors that multiply.
    *(ParameterFreeBranch(), LastNorm(), UnitMultiplier()),
    *(StateSpaceDecay(), Temperature(), PreluSlope(), WeightNormLength()),
)
"""The first one that applies to a parameter says how it starts; the last of each role applies to all of it."""

MODIFIERS: tuple[Modifier, ...] = (
    # Sizes.
    *(ResidualDamping(), WordAttention(), PreviousTokenOutput()),
    *(SetOutput(), WideClassifier(), SumPooling(), TiedLookup(), KnownFactor()),
    # What random values have beside their size; patterns are in units of it, so they come last.
    *(SharedTokenVector(), PaddingRow(), WhitenedFilters(), PreviousTokenHeads()),
)
"""They change what rules say, one after the other."""
