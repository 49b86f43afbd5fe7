//! Many clients on few threads: each sends one request on a connection of its own, and reads or leaves.

use super::seconds;
use std::future::Future;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What became of one request.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// 0: no answer.
    pub status: u16,
    /// Head and body.
    pub text: String,
    pub took: Duration,
}

/// Sends `request` and reads until the connection ends, but not for longer than `patience`.
pub async fn ask(address: SocketAddr, request: String, patience: Duration) -> Outcome {
    let started = Instant::now();
    let mut read = Vec::new();
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request.replace('\n', "\r\n").as_bytes()).await?;
        stream.read_to_end(&mut read).await
    };
    // Who has no patience left goes; what was read until then is what it has.
    let _ = tokio::time::timeout(patience, exchange).await;
    let text = String::from_utf8_lossy(&read).into_owned();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Outcome { status, text, took: started.elapsed() }
}

/// Begins `act` so often a second for so long, whether or not the earlier ones have ended, and waits for all.
pub fn open_loop<F>(rate: u32, length: Duration, act: impl Fn(u32) -> F) -> Vec<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    run(async move {
        let begin = tokio::time::Instant::now();
        let mut tasks = Vec::new();
        for number in 0..(f64::from(rate) * length.as_secs_f64()) as u32 {
            tokio::time::sleep_until(begin + seconds(1) * number / rate).await;
            tasks.push(tokio::spawn(act(number)));
        }
        let mut outcomes = Vec::new();
        for task in tasks {
            outcomes.push(task.await.expect("no client panics"));
        }
        outcomes
    })
}

/// Runs `act` so often at the same time.
pub fn at_once<F>(count: u32, act: impl Fn(u32) -> F) -> Vec<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    open_loop(1_000_000, Duration::from_micros(count.into()), act)
}

/// On a runtime of its own.
pub fn run<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(future)
}

/// The value below which so many in a hundred are.
pub fn percentile(mut values: Vec<Duration>, percent: usize) -> Duration {
    values.sort_unstable();
    values
        .get((values.len() * percent / 100).min(values.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}
