# A coroutine sleeps without giving the loop a chance.
# EXPECT culprit process=python thread=1 function=handler
import asyncio
import time


async def handler():
    time.sleep(100000)  # HANGS


async def main():
    await asyncio.gather(handler(), asyncio.sleep(1))


asyncio.run(main())
