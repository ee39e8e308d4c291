//! Asks for a page over a stream that stands, and reads as much of the answer as is looked at.

use super::Look;
use model::patterns::Expression;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Of the answer no more is read.
const READ_MAX: usize = 80 * 1024;

/// `http://host:port/path`, taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Url {
    /// Over TLS.
    pub tls: bool,
    /// Address or name.
    pub host: String,
    /// Port.
    pub port: u16,
    /// With its slash, and the query.
    pub path: String,
}

impl Url {
    /// Takes a URL apart; `None`: it is none.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let (tls, rest) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return None,
        };
        let at = rest.find('/').unwrap_or(rest.len());
        let (place, path) = rest.split_at(at);
        let usual = if tls { 443 } else { 80 };
        let (host, port) = match place.strip_prefix('[') {
            Some(v6) => {
                let (host, rest) = v6.split_once(']')?;
                (host, rest.strip_prefix(':').map_or(Some(usual), |port| port.parse().ok())?)
            }
            None => match place.split_once(':') {
                Some((host, port)) => (host, port.parse().ok()?),
                None => (place, usual),
            },
        };
        let clean = |text: &str| !text.contains(|c: char| c.is_control() || c == ' ');
        let path = if path.is_empty() { "/" } else { path };
        (!host.is_empty() && clean(host) && clean(path)).then(|| Self {
            tls,
            host: host.into(),
            port,
            path: path.into(),
        })
    }
}

/// What a good answer is.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// This status; `None`: 200 to 399.
    pub status: Option<u16>,
    /// Found in what is read.
    pub body: Option<Expression>,
}

/// One question; the caller bounds its time.
pub async fn ask<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, url: &Url, wanted: &Wanted) -> Look {
    // HTTP/1.0: an answer in one piece, and the end of it is the end of the connection.
    let question = format!(
        "GET {} HTTP/1.0\r\nHost: {}:{}\r\nUser-Agent: stead\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        url.path, url.host, url.port
    );
    if let Err(error) = stream.write_all(question.as_bytes()).await {
        return Look::of(&error);
    }
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    loop {
        let head = answer.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = head {
            let status = status(&answer);
            let good = match (status, wanted.status) {
                (Some(status), Some(wanted)) => status == wanted,
                (Some(status), None) => (200..400).contains(&status),
                (None, _) => false,
            };
            if !good {
                let got = status.map_or("no HTTP".to_string(), |status| format!("status {status}"));
                return Look::Silent(got);
            }
            match &wanted.body {
                None => return Look::Well,
                Some(body) if body.is_in(&answer[end + 4..]) => return Look::Well,
                Some(_) if answer.len() >= READ_MAX => {
                    return Look::Silent("the page does not hold what it should".into());
                }
                Some(_) => {}
            }
        }
        match stream.read(&mut part).await {
            Ok(0) if head.is_some() => return Look::Silent("the page does not hold what it should".into()),
            Ok(0) => return Look::Silent("the connection ended before an answer".into()),
            Ok(_) if answer.len() >= READ_MAX => return Look::Silent("its head has no end".into()),
            Ok(read) => answer.extend_from_slice(&part[..read]),
            Err(error) => return Look::of(&error),
        }
    }
}

fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\r').next()?;
    let line = std::str::from_utf8(line).ok()?.strip_prefix("HTTP/")?;
    line.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::duplex;

    async fn answered(answer: &'static [u8], wanted: Wanted) -> Look {
        let (ours, mut theirs) = duplex(1 << 20);
        let server = tokio::spawn(async move {
            let mut question = [0; 1024];
            let read = theirs.read(&mut question).await.unwrap();
            assert!(question[..read].starts_with(b"GET /x?y HTTP/1.0\r\nHost: 10.0.1.1:80\r\n"));
            theirs.write_all(answer).await.unwrap();
        });
        let look = ask(ours, &Url::new("http://10.0.1.1/x?y").unwrap(), &wanted).await;
        server.await.unwrap();
        look
    }

    #[tokio::test]
    async fn status_and_content_decide() {
        let page = b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nall is well";
        let body = |text| Wanted { status: None, body: Expression::new(text) };
        assert_eq!(answered(page, Wanted::default()).await, Look::Well);
        assert_eq!(answered(page, body("is we..")).await, Look::Well);
        assert!(matches!(answered(page, body("unwell")).await, Look::Silent(why) if why.contains("does not hold")));
        assert!(
            matches!(answered(b"HTTP/1.1 503 no\r\n\r\n", Wanted::default()).await, Look::Silent(why) if why == "status 503")
        );
        let found = Wanted { status: Some(404), body: None };
        assert_eq!(answered(b"HTTP/1.1 404 no\r\n\r\n", found).await, Look::Well);
        assert!(matches!(answered(b"SSH-2.0\r\n\r\n", Wanted::default()).await, Look::Silent(_)));
        assert!(
            matches!(answered(b"HTTP/1.1 200", Wanted::default()).await, Look::Silent(why) if why.contains("ended"))
        );
    }

    #[test]
    fn urls() {
        let url = |text| Url::new(text).map(|u| (u.tls, u.host, u.port, u.path));
        assert_eq!(url("https://a.b/c"), Some((true, "a.b".into(), 443, "/c".into())));
        assert_eq!(url("http://[::1]:8080"), Some((false, "::1".into(), 8080, "/".into())));
        for bad in ["a", "ftp://a", "http://", "http://a:b/", "http://a/b c", "http://a/\r\nX: y"] {
            assert_eq!(url(bad), None, "{bad}");
        }
    }
}
