# Clients of a farm: connections that stand, and new ones all the time, until the file STOP is there. Prints "held" once the first
# stand, then how many new ones were answered so far; at the end one line of JSON: who answered the new ones, how many failed and for how long at a stretch, which standing ones broke.
import collections, json, os, socket, sys, threading, time

vip, stop = sys.argv[1], sys.argv[2]


def ask(s):
    s.sendall(b"GET / HTTP/1.1\r\nHost: farm\r\n\r\n")
    answer = b""
    # Head and body may come in two segments.
    while not answer.partition(b"\r\n\r\n")[2].endswith(b"\n"):
        part = s.recv(4096)
        if not part:
            raise OSError("closed")
        answer += part
    return answer.split()[-1].decode()


held = []
for _ in range(90):
    s = socket.create_connection((vip, 80), 2)
    s.settimeout(2)
    held.append((s, ask(s)))
print("held", flush=True)

answered, failed = collections.Counter(), []


def once():
    began = time.time()
    try:
        with socket.create_connection((vip, 80), 0.2) as s:
            s.settimeout(0.5)
            answered[ask(s)] += 1
            # How far they are, for who waits for it.
            print(sum(answered.values()), flush=True)
    except OSError:
        failed.append(began)


end = time.time() + 60
threads = []
while not os.path.exists(stop) and time.time() < end:
    threads.append(threading.Thread(target=once))
    threads[-1].start()
    time.sleep(0.01)
for thread in threads:
    thread.join()

kept, broken = collections.Counter(), collections.Counter()
for s, node in held:
    try:
        (kept if ask(s) == node else broken)[node] += 1
    except OSError:
        broken[node] += 1
# The longest time in which connections failed again and again: a cut is one, a single late answer on a busy machine is none.
span, first, last = 0, None, None
for at in sorted(failed):
    first = at if last is None or at - last > 0.5 else first
    last = at
    span = max(span, int((last - first) * 1000))
print(json.dumps({"answered": answered, "failed": len(failed), "span_ms": span, "kept": kept, "broken": broken}), flush=True)
