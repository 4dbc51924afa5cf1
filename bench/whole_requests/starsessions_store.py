"""What starsessions lacks: a store in memcached, with one get for a read and one set for a write."""

from __future__ import annotations

from aiomcache import Client
from starsessions.stores import SessionStore

N_CONNECTIONS = 4


class MemcachedStore(SessionStore):
    """Sessions over aiomcache."""

    def __init__(self, host: str, port: int) -> None:
        self._client = Client(host, port, pool_size=N_CONNECTIONS)

    async def read(self, session_id: str, lifetime: int) -> bytes:
        return await self._client.get(session_id.encode()) or b""

    async def write(self, session_id: str, data: bytes, lifetime: int, ttl: int) -> str:
        await self._client.set(session_id.encode(), data, exptime=ttl)
        return session_id

    async def remove(self, session_id: str) -> None:
        await self._client.delete(session_id.encode())
