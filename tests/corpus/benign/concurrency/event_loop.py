"""Simulates a queue of jobs.

[corpus]
habit = "asyncio with tasks, timeouts, a subprocess-free executor and cancellation"
inputs = [{jobs = [0.01, 0.02, 5]}]
outputs = [{done = 2, late = 1}]
runs = 3
"""

import asyncio


async def job(seconds):
    async with asyncio.timeout(0.3):
        await asyncio.sleep(seconds)


async def simulate(jobs):
    ended = await asyncio.gather(*map(job, jobs), return_exceptions=True)
    await asyncio.to_thread(sum, [1, 2])
    late = sum(isinstance(each, TimeoutError) for each in ended)
    return {"done": len(ended) - late, "late": late}


def run(payload, context):
    return asyncio.run(simulate(payload["jobs"]))
