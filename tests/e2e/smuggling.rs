//! Requests that two readers could take for different ones: whatever the bytes and however they come, the upstream
//! sees the requests that the client's framing contains, and no other.
//!
//! Each row of the corpus is sent whole, then split at every byte. `@` stands for the run's own number, `LEN` for the
//! length of the first body, which ends at `¶`, `\n` for CRLF; bare control characters are written out: `␊` LF, `␍` CR, `␀` NUL;
//! `⊕` is the sign before a host.

mod answers;
mod corpus;
mod http2;

use crate::support::recorder::Recorder;
use crate::support::secure::Dial;
use crate::support::{Origin, Proxy, Reply, Town, seconds, yaml};
use corpus::{CORPUS, Row, Wanted};
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Connections at once.
const AT_ONCE: usize = 64;
/// Between the two parts, so that they are read apart.
const BETWEEN: Duration = Duration::from_millis(2);

/// A stream, encrypted or not.
trait Duplex: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Duplex for S {}

/// One connection: a row, sent in one or two parts.
struct Run {
    row: &'static Row,
    number: usize,
    split: usize,
}

impl Run {
    fn bytes(&self) -> Vec<u8> {
        let text = self.row.bytes.replace('@', &self.name());
        let body = text.split_once("\n\n").and_then(|(_, rest)| Some(rest.split_once('¶')?.0));
        let length = body.map_or(0, |body| body.replace('\n', "\r\n").len());
        let text = text.replace("LEN", &length.to_string()).replace('¶', "").replace('\n', "\r\n");
        text.replace('⊕', "@").replace('␊', "\n").replace('␍', "\r").replace('␀', "\0").into_bytes()
    }

    fn name(&self) -> String {
        format!("{:06}", self.number)
    }

    /// What came back until the proxy closed; `tls`: how the connection is encrypted.
    async fn send(&self, front: SocketAddr, tls: Option<&TlsConnector>) -> Result<String, String> {
        let exchange = async {
            let stream = TcpStream::connect(front).await.map_err(|error| error.to_string())?;
            let _ = stream.set_nodelay(true);
            let mut stream: Box<dyn Duplex> = match tls {
                None => Box::new(stream),
                Some(tls) => {
                    let name = "shop.example".try_into().unwrap();
                    Box::new(tls.connect(name, stream).await.map_err(|error| error.to_string())?)
                }
            };
            let bytes = self.bytes();
            let (first, second) = bytes.split_at(self.split);
            // The proxy may have had enough after the first part.
            if stream.write_all(first).await.is_ok() && stream.flush().await.is_ok() && !second.is_empty() {
                tokio::time::sleep(BETWEEN).await;
                let _ = stream.write_all(second).await;
                let _ = stream.flush().await;
            }
            let mut answer = Vec::new();
            // A reset is an end, too.
            let _ = stream.read_to_end(&mut answer).await;
            Ok(String::from_utf8_lossy(&answer).into_owned())
        };
        tokio::time::timeout(seconds(20), exchange).await.map_err(|_| "the proxy did not close".to_owned())?
    }

    fn judge(&self, answer: &Result<String, String>, seen: &[String]) -> Result<(), String> {
        let wanted: Vec<String> = match self.row.wanted {
            Wanted::Refused | Wanted::Cut => Vec::new(),
            Wanted::Carried(requests) => {
                requests.iter().map(|line| line.replace('@', &self.name())).collect()
            }
        };
        let answer = answer.as_ref()?;
        let fits = match self.row.wanted {
            // An answer can be lost to the reset that follows when bytes were left unread.
            Wanted::Refused => {
                answer.is_empty() || (answer.starts_with("HTTP/1.") && answer[9..].starts_with(['4', '5']))
            }
            Wanted::Cut => !answer.contains(" 200 OK"),
            Wanted::Carried(_) => true,
        };
        match fits && seen == wanted {
            true => Ok(()),
            false => Err(format!("wanted {wanted:?}, the upstream saw {seen:?}, the client {answer:?}")),
        }
    }
}

/// All runs of the corpus, `splits` of them each.
fn runs(splits: impl Fn(usize) -> Vec<usize>) -> Vec<Run> {
    let mut runs = Vec::new();
    for row in CORPUS {
        let length = Run { row, number: 0, split: 0 }.bytes().len();
        for split in splits(length) {
            let number = runs.len();
            runs.push(Run { row, number, split });
        }
    }
    runs
}

/// Sends them all; what came back for each.
fn send_all(front: SocketAddr, tls: Option<&TlsConnector>, runs: &[Run]) -> Vec<Result<String, String>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        use futures_util::StreamExt;
        let sends = futures_util::stream::iter(runs.iter().map(|run| run.send(front, tls)));
        sends.buffered(AT_ONCE).collect().await
    })
}

/// Compares with what the upstream saw: its requests, in order, by the run's number in their path.
fn judge_all(runs: &[Run], answers: &[Result<String, String>], seen: impl Iterator<Item = (String, String)>) {
    let mut by_run: HashMap<usize, Vec<String>> = HashMap::new();
    let mut strays = Vec::new();
    for (path, line) in seen {
        let digits = path.find(|c: char| c.is_ascii_digit()).and_then(|at| path.get(at..at + 6));
        match digits.and_then(|digits| digits.parse().ok()) {
            Some(number) => by_run.entry(number).or_default().push(line),
            None => strays.push(line),
        }
    }
    // One split of each row is told.
    let mut wrong: BTreeMap<&str, (usize, String)> = BTreeMap::new();
    for (run, answer) in runs.iter().zip(answers) {
        let seen = by_run.remove(&run.number).unwrap_or_default();
        if let Err(why) = run.judge(answer, &seen) {
            wrong.entry(run.row.name).or_insert((0, format!("split at {}: {why}", run.split))).0 += 1;
        }
    }
    assert!(wrong.is_empty() && strays.is_empty(), "of {} runs: {wrong:#?} {strays:?}", runs.len());
}

#[test]
fn whatever_the_bytes_the_upstream_sees_what_the_clients_framing_contains() {
    let recorder = Recorder::start();
    let proxy = Proxy::with(yaml::all_to("HTTP", &[recorder.address()])).access_log("off").start();
    let runs = runs(|length| (1..=length).collect());
    let answers = send_all(proxy.front().address(), None, &runs);
    let brought = recorder.brought();
    assert!(brought.doubtful.is_empty(), "{:#?}", brought.doubtful);
    judge_all(&runs, &answers, brought.requests.iter().map(|r| (r.path.clone(), r.line())));
}

#[test]
fn the_same_over_http2_to_the_upstream() {
    let origin = Origin::h2c().answer(|seen| Reply::text(seen.method.as_str()));
    let proxy = Proxy::to(&origin).access_log("off").start();
    let runs = runs(|length| vec![length / 3, length]);
    let answers = send_all(proxy.front().address(), None, &runs);
    let seen = origin.seen();
    judge_all(
        &runs,
        &answers,
        seen.iter().map(|seen| {
            let path = seen.uri.path_and_query().map_or(String::new(), ToString::to_string);
            let line = format!("{} {path} {:?}", seen.method, String::from_utf8_lossy(&seen.body));
            (path, line)
        }),
    );
}

#[test]
fn the_same_over_tls() {
    let (recorder, town) = (Recorder::start(), Town::of(&[]));
    town.issue(&["shop.example"], &[]);
    let file = |name: &str| town.file(&format!("hosts/shop.example/{name}"));
    let gateway = format!(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: edge}}\nspec:\n  selector: {{a: b}}\n  \
         servers:\n  - port: {{number: 8443, name: https, protocol: HTTPS}}\n    hosts: ['*']\n    tls: {{mode: SIMPLE, \
         serverCertificate: {}, privateKey: {}}}\n---\n",
        file("tls.crt"),
        file("tls.key")
    );
    let text = gateway + &yaml::all_to("HTTP", &[recorder.address()]);
    let proxy = Proxy::with(text).access_log("off").start();
    let tls = TlsConnector::from(Dial::new(&["http/1.1"], None).config());
    let runs = runs(|length| vec![length / 3, length * 2 / 3, length]);
    let answers = send_all(proxy.gateway(8443).address(), Some(&tls), &runs);
    let brought = recorder.brought();
    assert!(brought.doubtful.is_empty(), "{:#?}", brought.doubtful);
    judge_all(&runs, &answers, brought.requests.iter().map(|r| (r.path.clone(), r.line())));
}
