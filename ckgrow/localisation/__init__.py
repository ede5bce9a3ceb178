"""Where a student departs from its teacher: the layers that do so on inputs that agree."""

from ckgrow.localisation.locating import Localisation, NodeDeviation, Source, locate

__all__ = ["Localisation", "NodeDeviation", "Source", "locate"]
