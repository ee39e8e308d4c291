//! Nobody, garbage, silence and floods on the socket: a clear error within the deadline, never a hang or a panic.

use crate::support::stead;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

/// A server that does something wrong with every connection.
fn serve(wrong: impl Fn(UnixStream) + Send + 'static) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("agent.sock");
    let listener = UnixListener::bind(&socket).expect("a socket");
    // Ends with the test program.
    std::thread::spawn(move || listener.incoming().flatten().for_each(&wrong));
    (dir, socket)
}

fn request_of(stream: &mut UnixStream) {
    let mut buffer = [0; 4096];
    let _ = stream.read(&mut buffer);
}

#[test]
fn without_an_agent_the_exit_code_is_100() {
    let nowhere = PathBuf::from("/nowhere/agent.sock");
    stead(&nowhere, &["state"]).is("no-agent.txt");
    for arguments in [
        &["state", "-lq"][..],
        &["why"],
        &["start", "-m", "pg"],
        &["cluster", "state"],
        &["level", "-H", "*"],
        &["log", "-f"],
    ] {
        assert_eq!(stead(&nowhere, arguments).code, 100, "{arguments:?}");
    }
    let ran = stead(&nowhere, &["state", "--json"]);
    assert_eq!((ran.code, ran.json()["error"]["code"].as_str(), ran.err.as_str()), (100, Some("no_agent"), ""));
}

#[test]
fn a_dead_agents_socket_counts_as_no_agent() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("agent.sock");
    drop(UnixListener::bind(&socket).expect("a socket"));
    assert_eq!(stead(&socket, &["state"]).code, 100);
}

#[test]
fn an_agent_that_never_answers_is_given_up_at_the_deadline() {
    let (_dir, socket) = serve(|mut stream| {
        request_of(&mut stream);
        std::mem::forget(stream);
    });
    for arguments in [&["state"][..], &["why", "-m", "pg"], &["stop", "-m", "pg"], &["state", "-lq"]] {
        let mut all = vec!["--deadline", "1"];
        all.extend(arguments);
        let ran = stead(&socket, &all);
        assert!(ran.err.contains("did not answer") && ran.err.contains("within 1 s"), "{ran:?}");
        assert_eq!(ran.code, if arguments.contains(&"-lq") { 101 } else { 1 });
        assert!(ran.took < Duration::from_secs(5), "{ran:?}");
    }
}

#[test]
fn an_answer_that_trickles_is_given_up_too() {
    let (_dir, socket) = serve(|mut stream| {
        request_of(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"modules\"");
        std::mem::forget(stream);
    });
    let ran = stead(&socket, &["--deadline", "1", "state"]);
    assert!(ran.code == 1 && ran.took < Duration::from_secs(5), "{ran:?}");
}

#[test]
fn garbage_is_named_as_such() {
    let answers: &[&[u8]] = &[
        b"\0\0\0\0\xff\xff\xff\xff",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{",
        b"HTTP/1.1 500 Oops\r\ncontent-length: 4\r\n\r\noops",
        b"HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n",
    ];
    for answer in answers {
        let (_dir, socket) = serve(|mut stream| {
            request_of(&mut stream);
            let _ = stream.write_all(answer);
        });
        let ran = stead(&socket, &["state", "--deadline", "5"]);
        assert!(
            ran.code == 1 && ran.err.contains("does not speak the API of stead") && ran.err.contains("help: "),
            "{answer:?}: {ran:?}"
        );
    }
}

#[test]
fn an_agent_that_dies_while_it_is_asked_may_have_done_it() {
    let (_dir, socket) = serve(|mut stream| request_of(&mut stream));
    let ran = stead(&socket, &["stop", "-m", "pg"]);
    assert!(ran.code == 1 && ran.err.contains("the agent ended before it answered"), "{ran:?}");
    let ran = stead(&socket, &["module", "uninstall", "pg"]);
    assert!(
        ran.code == 1 && ran.err.contains("may have been done, or not") && ran.err.contains("stead state"),
        "{ran:?}"
    );
    assert!(!ran.err.contains("version"), "{ran:?}");
}

#[test]
fn an_endless_answer_is_cut_off() {
    let (_dir, socket) = serve(|mut stream| {
        request_of(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n[");
        while stream.write_all(&[b' '; 65536]).is_ok() {}
    });
    let ran = stead(&socket, &["state", "--deadline", "20"]);
    assert!(ran.code == 1 && ran.err.contains("does not speak the API"), "{ran:?}");
}

#[test]
fn a_problem_from_a_newer_agent_is_shown_although_its_code_is_unknown() {
    let body = r#"{"what":"cannot do it","why":"new reasons","help":"stead new","code":"from_the_future","more":1}"#;
    let answer = format!("HTTP/1.1 418 Teapot\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let (_dir, socket) = serve(move |mut stream| {
        request_of(&mut stream);
        let _ = stream.write_all(answer.as_bytes());
    });
    let ran = stead(&socket, &["state"]);
    assert_eq!((ran.code, ran.err.as_str()), (1, "stead: cannot do it: new reasons\n  help: stead new\n"));
}

#[test]
fn a_configuration_is_checked_and_its_language_printed_without_an_agent() {
    let (nowhere, dir) = (PathBuf::from("/nowhere/agent.sock"), tempfile::tempdir().expect("a directory"));
    let module = dir.path().join("app");
    std::fs::create_dir_all(module.join("conf")).expect("made");
    let file = module.join("conf/userconfig.xml");
    let write = |service: &str| {
        std::fs::write(&file, format!("<!-- c -->\r\n<!DOCTYPE safe>\r\n<safe>\r\n{service}</safe>\r\n"))
            .expect("written");
    };
    let path = |path: &std::path::Path| path.to_string_lossy().into_owned();
    write("<service mode=\"light\"><user/></service>");
    for path in [path(&module), path(&file)] {
        let ran = stead(&nowhere, &["confcheck", &path]);
        assert!(ran.code == 0 && ran.out.contains("right, 0 notes"), "{ran:?}");
    }
    write("<service mode=\"miror\" maxlop=\"3\"/>");
    let ran = stead(&nowhere, &["confcheck", &path(&module), "--json"]);
    assert_eq!((ran.code, ran.json()["errors"].as_u64()), (1, Some(2)), "{ran:?}");
    assert_eq!(stead(&nowhere, &["confcheck", "/nowhere.safe"]).code, 1);

    let form = stead(&nowhere, &["module", "schema", "--json"]).json();
    assert_eq!((form["element"].as_str(), form["children"][1]["element"].as_str()), (Some("safe"), Some("service")));
    let xsd = stead(&nowhere, &["module", "schema", "cluster", "--xsd"]).out;
    assert!(xsd.starts_with("<?xml") && xsd.contains("name=\"lans\""), "{xsd}");
    assert!(stead(&nowhere, &["module", "schema"]).out.contains("## `safe/service/rfs`"));
}
