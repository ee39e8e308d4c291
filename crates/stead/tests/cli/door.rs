//! The API's own manners, asked over its socket as no client of ours would ask: every answer is a problem with a
//! status, and the door stays open for the next one.

use crate::fake::{Fake, full_view, node, serve};
use agent::api::bind_unix;
use model::api::ModuleView;
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// One raw request on one connection: status and body.
fn ask(socket: &Path, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let mut stream = UnixStream::connect(socket).expect("the door is open");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let head =
        format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer);
    let status =
        text.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or_else(|| panic!("no HTTP answer: {text}"));
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, body.as_bytes().to_vec())
}

#[test]
fn whatever_is_asked_the_answer_is_a_problem_with_its_status() {
    let mut here = Fake::new("node1", vec![full_view()]);
    let mut there = Fake::new("node2", vec![]);
    there.silent = vec![node("node1")];
    here.others.insert(node("node2"), Arc::new(there));
    let served = serve(here);
    let huge = vec![b' '; model::api::BODY_MAX + 1];
    for (method, path, body, status, code) in [
        ("GET", "/", &b""[..], 404, "not_found"),
        ("GET", "/v1/modulez", b"", 404, "not_found"),
        ("GET", "/v1/modules/nothere/state", b"", 404, "not_found"),
        ("GET", "/v1/modules/%2e%2e/state", b"", 400, "invalid"),
        ("GET", "/v1/modules/a%2Fb/state", b"", 400, "invalid"),
        ("GET", "/v1/modules/pg/log?lines=many", b"", 400, "invalid"),
        ("GET", "/v1/modules/pg/command", b"", 400, "invalid"),
        ("PUT", "/v1/node", b"", 400, "invalid"),
        ("POST", "/v1/modules/pg/command", b"", 400, "invalid"),
        ("POST", "/v1/modules/pg/command", b"not JSON", 400, "invalid"),
        ("POST", "/v1/modules/pg/command", b"{\"command\":\"explode\"}", 400, "invalid"),
        ("POST", "/v1/modules/pg/command", &huge, 413, "too_large"),
        ("POST", "/v1/cluster/init", b"{\"name\":\"../x\",\"addrs\":[]}", 400, "invalid"),
        ("GET", "/v1/nodes/..%2f/node", b"", 400, "invalid"),
        ("GET", "/v1/nodes/nodeX/node", b"", 404, "not_found"),
        ("GET", "/v1/nodes/node1/modulez", b"", 404, "not_found"),
        // What was passed on once is not passed on again.
        ("GET", "/v1/nodes/node2/nodes/node1/node", b"", 403, "forbidden"),
    ] {
        let (got, text) = ask(&served.socket, method, path, body);
        let problem: Value = serde_json::from_slice(&text)
            .unwrap_or_else(|e| panic!("{method} {path}: {e}: {}", String::from_utf8_lossy(&text)));
        assert_eq!((got, problem["code"].as_str()), (status, Some(code)), "{method} {path}: {problem}");
        assert!(problem["what"].as_str().is_some_and(|what| !what.is_empty()), "{method} {path}: {problem}");
    }
    assert!(served.fake.asked.lock().expect("lock").is_empty(), "nothing of this may reach the agent");
    let (status, body) = ask(&served.socket, "GET", "/v1/nodes/node1/modules/pg/state", b"");
    assert_eq!(status, 200, "this node is a node too: {}", String::from_utf8_lossy(&body));
}

#[test]
fn garbage_and_hang_ups_leave_the_door_open() {
    let served = serve(Fake::new("node1", vec![full_view()]));
    let mut kept = Vec::new();
    for noise in
        [&b""[..], b"\0\0\0\0", b"GET / HTTP/9.9\r\n\r\n", &[b'A'; 200_000], b"POST /v1/node HTTP/1.1\r\ncontent-le"]
    {
        let mut stream = UnixStream::connect(&served.socket).expect("the door is open");
        let _ = stream.write_all(noise);
        kept.push(stream);
    }
    assert_eq!(ask(&served.socket, "GET", "/v1/node", b"").0, 200, "beside open noisy connections");
    drop(kept);
    assert_eq!(ask(&served.socket, "GET", "/v1/node", b"").0, 200);
}

#[test]
fn the_socket_is_roots_and_has_one_owner() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("run/agent.sock");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let _inside = runtime.enter();
    let first = bind_unix(&socket).expect("a socket in a directory that was missing");
    let mode = |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode(&socket), mode(socket.parent().expect("a parent"))), (0o600, 0o700));
    let second = bind_unix(&socket).expect_err("an agent that listens keeps its socket");
    assert_eq!(second.kind(), std::io::ErrorKind::AddrInUse);
    drop(first);
    bind_unix(&socket).expect("a dead agent's socket is replaced");
}

/// What an older agent says has fewer fields, what a newer one says has more: both are read.
#[test]
fn neighbours_in_version_are_read() {
    let least = r#"{"module":"pg","node":"node1","state":"PRIM","status":"Ready"}"#;
    let more = r#"{"module":"pg","node":"node1","state":"PRIM","status":"Ready","mood":"calm","vips":[{"addr":"10.0.1.100","colour":1}]}"#;
    for text in [least, more] {
        let view: ModuleView = serde_json::from_str(text).expect(text);
        assert_eq!((view.state.exit_code(), view.epoch), (3, None));
    }
}
