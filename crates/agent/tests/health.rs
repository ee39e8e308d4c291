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
