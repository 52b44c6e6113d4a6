"""What has to be computed: a model, a phase, and the operators they unfold into. Knows no hardware.

from smesim.workload import Phase, build_graph, catalog

graph = build_graph(catalog.load("llama-3.2-3b"), Phase.parse("prefill:128"))
print(graph.total_flop(), graph.total_read_bytes())
"""

from smesim.workload.config import Llama3RopeScaling, ModelConfig
from smesim.workload.dtypes import DType
from smesim.workload.graph import OperatorGraph, build_graph
from smesim.workload.operators import Operator
from smesim.workload.phase import Phase
from smesim.workload.tensors import DTypes, Role, TensorSpec

__all__ = [
    "DType",
    "DTypes",
    "Llama3RopeScaling",
    "ModelConfig",
    "Operator",
    "OperatorGraph",
    "Phase",
    "Role",
    "TensorSpec",
    "build_graph",
]
