# A connection that stands on the node NODE and is asked all the time. Prints "held" once it stands, and when it is answered no more one line of
# JSON: when the last question that was answered was asked (milliseconds of the wall clock), and what became of a new connection.
import json, socket, sys, time

vip, node = sys.argv[1], sys.argv[2]


def ask(s):
    s.sendall(b"GET / HTTP/1.1\r\nHost: farm\r\n\r\n")
    answer = b""
    while not answer.partition(b"\r\n\r\n")[2].endswith(b"\n"):
        part = s.recv(4096)
        if not part:
            raise OSError("closed")
        answer += part
    return answer.split()[-1].decode()


while True:
    s = socket.create_connection((vip, 80), 5)
    # Longer than a busy machine lets wait: what was dropped is never answered.
    s.settimeout(4)
    if ask(s) == node:
        break
print("held", flush=True)
last = None
try:
    while True:
        asked = int(time.time() * 1000)
        ask(s)
        last = asked
        time.sleep(0.02)
except OSError:
    pass
try:
    socket.create_connection((vip, 80), 1).close()
    new = "taken"
except OSError:
    new = "refused"
print(json.dumps({"last_ms": last, "new": new}), flush=True)
