# Forty clients with an address each ask ten times by UDP: a line for each, its address and every node that answered it.
exec python3 - <<'PYTHON'
import socket
for number in range(1, 41):
    who = set()
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    s.bind(("fd00:1::a:%d" % number, 0))
    s.settimeout(2)
    for _ in range(10):
        s.sendto(b"?", ("fd00:1::100", 5300))
        try:
            who.add(s.recv(100).decode())
        except OSError:
            who.add("nobody")
    print(number, *sorted(who))
PYTHON
