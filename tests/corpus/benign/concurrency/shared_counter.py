"""Counts votes of several threads and processes.

[corpus]
habit = "multiprocessing values in shared memory, and a pair of sockets between parent and child"
inputs = [{votes = 3}]
outputs = [6]
runs = 3
"""

import multiprocessing
import socket


def vote(counter, link):
    with counter.get_lock():
        counter.value += 1
    link.send(b"x")


def run(payload, context):
    fork = multiprocessing.get_context("fork")
    counter = fork.Value("i", 0)
    ours, theirs = socket.socketpair()
    children = [fork.Process(target=vote, args=(counter, theirs)) for _ in range(payload["votes"])]
    for child in children:
        child.start()
    for child in children:
        child.join()
    return counter.value + len(ours.recv(100))
