from ._cpu import LifParams as LifParams
from ._cpu import binarize_backward as binarize_backward
from ._cpu import binarize_forward as binarize_forward
from ._cpu import empf_backward as empf_backward
from ._cpu import empf_forward as empf_forward
from ._cpu import empf_norm_backward as empf_norm_backward
from ._cpu import empf_norm_forward as empf_norm_forward
from ._cpu import empf_norm_sums as empf_norm_sums
from ._cpu import empf_potential as empf_potential
from ._cpu import lif_backward as lif_backward
from ._cpu import lif_forward as lif_forward
from ._cpu import mpdr_backward as mpdr_backward
from ._cpu import mpdr_forward as mpdr_forward
from ._cpu import osr_charge as osr_charge
from ._cpu import osr_forward as osr_forward
from ._cpu import osr_gradient as osr_gradient
from ._cpu import osr_lif_forward as osr_lif_forward
from ._cpu import osr_lif_reduce as osr_lif_reduce
from ._cpu import osr_reduce as osr_reduce
from ._cpu import ots_backward as ots_backward
from ._cpu import ots_charge as ots_charge
from ._cpu import ots_fire as ots_fire
from ._cpu import packed_product as packed_product
from ._cpu import standardize_backward as standardize_backward
from ._cpu import standardize_forward as standardize_forward

version: str
archs: str

def driver_version() -> int: ...
def refusal(device: int) -> str: ...
