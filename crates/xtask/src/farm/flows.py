# Forty flows of UDP, a client address each, that ask all the time until the file STOP is there. Prints "held" once all were answered; at
# the end one line of JSON: how many flows went from which node to another, and who answers as many that are begun only then.
import collections, json, os, socket, sys, time

stop = sys.argv[1]
moved, lost = collections.Counter(), 0


def flow(number):
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    s.bind(("fd00:1::a:%d" % number, 0))
    s.settimeout(0.3)
    return s


def ask(s):
    s.sendto(b"?", ("fd00:1::100", 5300))
    try:
        return s.recv(100).decode()
    except OSError:
        return None


flows = [flow(number) for number in range(1, 41)]
owners = [None] * len(flows)
told = False
while not os.path.exists(stop):
    for at, s in enumerate(flows):
        who = ask(s)
        if who is None:
            lost += 1
        elif owners[at] != who:
            if owners[at]:
                moved[owners[at]] += 1
            owners[at] = who
    if not told and all(owners):
        told = print("held", flush=True) is None
    time.sleep(0.05)
fresh = collections.Counter(ask(flow(number)) or "nobody" for number in range(1, 41))
print(json.dumps({"moved": moved, "lost": lost, "owners": collections.Counter(owners), "fresh": fresh}))
