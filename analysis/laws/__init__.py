"""Laws: parametric maps from a recipe to an expected task value, each a small frozen value."""

from mixlaw.analysis.laws.base import Curve as Curve
from mixlaw.analysis.laws.base import FittedLaw as FittedLaw
from mixlaw.analysis.laws.base import Form as Form
from mixlaw.analysis.laws.base import Law as Law
from mixlaw.analysis.laws.base import Parameter as Parameter
from mixlaw.analysis.laws.bimix import BiMix as BiMix
from mixlaw.analysis.laws.capacity_competition import CapacityCompetition as CapacityCompetition
from mixlaw.analysis.laws.chinchilla import BESIROGLU_2024 as BESIROGLU_2024
from mixlaw.analysis.laws.chinchilla import HOFFMANN_2022 as HOFFMANN_2022
from mixlaw.analysis.laws.chinchilla import Chinchilla as Chinchilla
from mixlaw.analysis.laws.d_cpt import DCPT as DCPT
from mixlaw.analysis.laws.data_constrained import MUENNIGHOFF_2023 as MUENNIGHOFF_2023
from mixlaw.analysis.laws.data_constrained import DataConstrained as DataConstrained
from mixlaw.analysis.laws.exposure import Exposure as Exposure
from mixlaw.analysis.laws.log_linear import DataMixing as DataMixing
from mixlaw.analysis.laws.log_linear import LogLinear as LogLinear
from mixlaw.analysis.laws.own import ParametricLaw as ParametricLaw
from mixlaw.analysis.laws.own import by_domain as by_domain
from mixlaw.analysis.laws.own import exponent as exponent
from mixlaw.analysis.laws.own import loss_term as loss_term
from mixlaw.analysis.laws.phasewise import Phasewise as Phasewise
from mixlaw.analysis.laws.saturating import Saturating as Saturating
from mixlaw.analysis.laws.shukor import Additive as Additive
from mixlaw.analysis.laws.shukor import Joint as Joint

#: Every law by its name.
LAWS: dict[str, type[Law]] = {
    law.__name__: law
    for law in (
        *(Chinchilla, DataConstrained, DataMixing, LogLinear, BiMix, DCPT),
        *(Additive, Joint, CapacityCompetition, Saturating, Exposure, Phasewise),
    )
}
