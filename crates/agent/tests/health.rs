//! The health URL over real sockets.

mod rig;

use agent::health::{HEALTH_PORT, HealthServer};
use rig::eventually;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

async fn get(request: &str) -> String {
    let mut stream = TcpStream::connect(("10.65.1.1", HEALTH_PORT)).await.expect("the port accepts");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_string(&mut answer)).await;
    read.expect("it closes").unwrap_or_default();
    answer
}

#[test]
fn it_says_one_bit_and_nothing_else() {
    rig::in_network(async {
        // Somebody has the port at first.
        let holder = tokio::net::TcpListener::bind(("0.0.0.0", HEALTH_PORT)).await.unwrap();
        let ready = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&ready);
        let server = HealthServer::start(Arc::new(move |module| module == "am" && asked.load(Ordering::SeqCst)));
        drop(holder);
        eventually("the port", async || TcpStream::connect(("10.65.1.1", HEALTH_PORT)).await.is_ok()).await;

        let path = "GET /var/modules/am/ready.txt HTTP/1.1\r\nHost: x\r\n\r\n";
        assert!(get(path).await.starts_with("HTTP/1.1 404"));
        ready.store(true, Ordering::SeqCst);
        assert!(get(path).await.starts_with("HTTP/1.1 200"));
        for other in [
            "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /var/modules/other/ready.txt HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /var/modules/..%2Fam/ready.txt HTTP/1.1\r\nHost: x\r\n\r\n",
            "POST /var/modules/am/ready.txt HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
        ] {
            let answer = get(other).await;
            assert!(answer.starts_with("HTTP/1.1 404"), "{other}: {answer}");
        }
        assert!(!get("garbage\r\n\r\n").await.contains("200"));

        // A crowd that says nothing leaves after two seconds, and the next one is heard.
        let mut crowd = Vec::new();
        for _ in 0..40 {
            crowd.push(TcpStream::connect(("10.65.1.1", HEALTH_PORT)).await.unwrap());
        }
        eventually("an answer beside the crowd", async || get(path).await.starts_with("HTTP/1.1 200")).await;
        drop(server);
    });
}

#[test]
fn one_machine_that_says_nothing_keeps_no_load_balancer_out() {
    rig::in_network(async {
        let server = HealthServer::start(Arc::new(|module| module == "am"));
        eventually("the port", async || TcpStream::connect(("10.65.1.1", HEALTH_PORT)).await.is_ok()).await;
        let from = async |own: &str| {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind(format!("{own}:0").parse().unwrap()).unwrap();
            socket.connect(format!("10.65.1.1:{HEALTH_PORT}").parse().unwrap()).await
        };
        // Renewed for longer than a silent connection is kept.
        let begun = tokio::time::Instant::now();
        let mut silent = std::collections::VecDeque::new();
        let (mut asked, mut answered) = (0, 0);
        while begun.elapsed() < Duration::from_secs(4) {
            for _ in 0..10 {
                silent.push_back(from("10.65.1.66").await.expect("the port accepts"));
            }
            silent.drain(..silent.len().saturating_sub(200));
            let mut stream = from("10.65.1.7").await.expect("the port accepts");
            let mut answer = String::new();
            let path = b"GET /var/modules/am/ready.txt HTTP/1.1\r\nHost: x\r\n\r\n";
            if stream.write_all(path).await.is_ok() {
                let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_string(&mut answer)).await;
            }
            asked += 1;
            answered += usize::from(answer.starts_with("HTTP/1.1 200"));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(asked > 10 && answered == asked, "{answered} of {asked}");
        drop(server);
    });
}
