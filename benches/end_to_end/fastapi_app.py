"""The same server with FastAPI, in one of three ways: `MODE` is bare, async or sync."""

import itertools
import os

from fastapi import BackgroundTasks, FastAPI
from fastapi.responses import PlainTextResponse

app = FastAPI()
ran = itertools.count()
asked = itertools.count()


def count():
    next(ran)  # in one step, whatever the thread


async def async_count():
    count()


async def bare():
    return PlainTextResponse("hello")


async def async_task(tasks: BackgroundTasks):
    tasks.add_task(async_count)
    return PlainTextResponse("hello")


async def sync_task(tasks: BackgroundTasks):
    tasks.add_task(count)
    return PlainTextResponse("hello")


handler = {"bare": bare, "async": async_task, "sync": sync_task}[os.environ["MODE"]]
app.get("/")(handler)


@app.get("/ran")
async def tasks_ran():
    """How many tasks have run. Asking counts one, too: what was asked is taken off."""
    return PlainTextResponse(str(next(ran) - next(asked)))
