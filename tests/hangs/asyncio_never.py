# An event that nobody sets.
# EXPECT deadlock process=python thread=1
import asyncio


async def main():
    ready = asyncio.Event()
    await ready.wait()  # HANGS


asyncio.run(main())
