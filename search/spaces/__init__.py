"""Search spaces: those of the papers, and a small one of our own."""

from .bignas import bignas as bignas
from .darts import darts as darts
from .enas import enas_macro as enas_macro
from .enas_micro import enas_micro as enas_micro
from .mobile import mobile_space as mobile_space
from .mobilenet_v3 import mobilenet_v3_like as mobilenet_v3_like
from .nasbench201 import nasbench201 as nasbench201
from .nasnet import nasnet as nasnet
from .nasrl import nasrl as nasrl
from .nasrl import nasrl_strides as nasrl_strides
from .proxylessnas import proxylessnas as proxylessnas
from .proxylessnas import proxylessnas_enlarged as proxylessnas_enlarged
from .resnet_bits import resnet_bits as resnet_bits
from .scale import PAPER as PAPER
from .scale import SMALL_IMAGES as SMALL_IMAGES
from .scale import Scale as Scale
from .shufflenet import shufflenet as shufflenet
from .shufflenet import shufflenet_channels as shufflenet_channels
from .tfnas import tfnas as tfnas
