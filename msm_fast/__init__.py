"""HTTP sessions in memcached that outlive their worker, their node and their cluster."""

from importlib.metadata import version as _version

try:
    from msm_fast._core.attributes import AttributeMap
except ModuleNotFoundError as error:
    if error.name != "msm_fast._core.attributes":
        raise
    raise ImportError(
        f"msm_fast is not built for this Python in {__path__[0]}: run `pip install -e .` in the folder above, "
        "or start Python in another one to use the msm_fast that is installed"
    ) from error
from msm_fast._core.codec import register_type
from msm_fast._core.near_cache import NearCache
from msm_fast._core.placement import RendezvousHash
from msm_fast._core.session_id import SessionId
from msm_fast.async_manager import AsyncSessionManager
from msm_fast.engine.events import Event
from msm_fast.errors import (
    ApplicationStopped,
    ConfigurationError,
    ConflictError,
    CorruptRecord,
    InvalidSessionId,
    LockTimeout,
    MsmError,
    NodeTimeout,
    NodeUnavailable,
    SerializationError,
    SessionTooLarge,
    SessionUnavailable,
    UnknownFormat,
    WrongEventLoop,
)
from msm_fast.manager import SessionManager
from msm_fast.node import Node
from msm_fast.policies import (
    Breaker,
    DistributionState,
    NearCacheSettings,
    Reconnect,
    Retry,
    SaveResult,
    Timeouts,
    Tls,
)
from msm_fast.session import Session
from msm_fast.settings import Settings
from msm_fast.statistics import NodeStatus, Statistics

__version__ = _version("msm-fast")

__all__ = [
    "ApplicationStopped",
    "AsyncSessionManager",
    "AttributeMap",
    "Breaker",
    "ConfigurationError",
    "ConflictError",
    "CorruptRecord",
    "DistributionState",
    "Event",
    "InvalidSessionId",
    "LockTimeout",
    "MsmError",
    "NearCache",
    "NearCacheSettings",
    "Node",
    "NodeStatus",
    "NodeTimeout",
    "NodeUnavailable",
    "Reconnect",
    "RendezvousHash",
    "Retry",
    "SaveResult",
    "SerializationError",
    "Session",
    "SessionId",
    "SessionManager",
    "SessionTooLarge",
    "SessionUnavailable",
    "Settings",
    "Statistics",
    "Timeouts",
    "Tls",
    "UnknownFormat",
    "WrongEventLoop",
    "__version__",
    "register_type",
]
