# A task takes a lock of asyncio twice.
# EXPECT deadlock process=python thread=1
import asyncio


async def main():
    lock = asyncio.Lock()
    async with lock:
        async with lock:  # HANGS
            pass


asyncio.run(main())
