# Clients of a farm: COUNT connections that stand (for LIFE seconds each, then anew; without it, to the end), and new ones all the time, until
# the file STOP is there. Prints "held" once the first
# stand, then how many new ones were answered so far; at the end one line of JSON: who answered the new ones, how many failed and for how long at a stretch, which standing ones broke.
import collections, json, os, resource, socket, sys, threading, time

vip, stop, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
life = float(sys.argv[4]) if len(sys.argv) > 4 else None
# A descriptor each.
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


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


def stand():
    s = socket.create_connection((vip, 80), 2)
    s.settimeout(2)
    return s, ask(s), time.time()


held = [stand() for _ in range(count)]
print("held", flush=True)
kept, broken = collections.Counter(), collections.Counter()
whys, counting = [], threading.Lock()
# One that does not answer keeps no more than its own part waiting.
PARTS = 10


def check(s, node, since):
    why = None
    try:
        who = ask(s)
        if who != node:
            why = "answered by " + who
    except OSError as error:
        why = repr(error)
    with counting:
        (broken if why else kept)[node] += 1
        if why and broken[node] < 4:
            now = time.time()
            at = time.strftime("%H:%M:%S") + ("%.3f" % (now % 1))[1:]
            whys.append("%s %s, of %.3f s: %s" % (at, node, now - since, why))
    return why is None


def live(part):
    # Each connection is used all its life, and then by another one followed.
    while not os.path.exists(stop):
        for at in range(part, count, PARTS):
            if held[at] and time.time() - held[at][2] > life:
                held[at][0].close()
                held[at] = None
            try:
                held[at] = held[at] or stand()
            except OSError:
                failed.append(time.time())
                continue
            if not check(*held[at]):
                held[at][0].close()
                held[at] = None
        time.sleep(0.05)


answered, failed, last_why = collections.Counter(), [], []


def once():
    began = time.time()
    try:
        with socket.create_connection((vip, 80), 0.2) as s:
            s.settimeout(0.5)
            answered[ask(s)] += 1
            # How far they are, for who waits for it.
            # In one piece: two numbers in a line would be a third.
            os.write(1, b"%d\n" % sum(answered.values()))
    except OSError as error:
        failed.append(began)
        last_why[:] = [time.strftime("%H:%M:%S ") + repr(error)]


end = time.time() + 120
threads = []
if life:
    threads.extend(threading.Thread(target=live, args=(part,)) for part in range(PARTS))
    for thread in threads:
        thread.start()
while not os.path.exists(stop) and time.time() < end:
    threads.append(threading.Thread(target=once))
    threads[-1].start()
    time.sleep(0.01)
for thread in threads:
    thread.join()

if not life:
    for it in held:
        check(*it)
# The longest time in which connections failed again and again: a cut is one, a single late answer on a busy machine is none.
span, first, last = 0, None, None
for at in sorted(failed):
    first = at if last is None or at - last > 0.5 else first
    last = at
    span = max(span, int((last - first) * 1000))
print(json.dumps({"answered": answered, "failed": len(failed), "span_ms": span, "kept": kept, "broken": broken, "why": whys + last_why}), flush=True)
