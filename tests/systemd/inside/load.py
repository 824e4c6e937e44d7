"""load.py PLUGIN SECONDS: four clients that run it again and again, whatever happens to the daemon. Prints what they got."""

import json
import sys
import threading
import time

from plugind_client import Client
from plugind_client.errors import PlugindError

plugin, seconds = sys.argv[1], float(sys.argv[2])
end = time.monotonic() + seconds
answered, wrong, retried = [], [], []


def work(number):
    with Client() as client:
        count = 0
        while time.monotonic() < end:
            count += 1
            until = time.monotonic() + 30
            while True:
                try:
                    result = client.run(plugin, {"a": number, "b": count})
                except PlugindError as error:
                    if time.monotonic() > until:
                        wrong.append(f"{error.code}: {error!r}")
                        return
                    retried.append(error.code)
                    time.sleep(0.05)
                else:
                    break
            if result.output != {"sum": number + count}:
                wrong.append(f"{number} + {count} was {result.output}")
            answered.append(result.audit_log)


threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps({"answered": answered, "wrong": wrong, "retried": retried}))
