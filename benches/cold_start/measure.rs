//! Times and CPU, and a client of one request.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Nanoseconds of the monotonic clock, which all processes of a machine share.
pub fn monotonic() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    (now.tv_sec as u64) * 1_000_000_000 + now.tv_nsec as u64
}

/// What became of one request.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// The program that answered.
    pub pid: u32,
    /// When the request was sent.
    pub sent: u64,
    /// When the program listened.
    pub listened: u64,
    /// When the request was at the program.
    pub arrived: u64,
    /// When the answer was here.
    pub answered: u64,
}

/// Sends a request over a connection and reads the answer.
pub fn ask(mut stream: TcpStream, host: &str) -> io::Result<Asked> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let sent = monotonic();
    let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    while text.is_empty() || !complete(&text) {
        match stream.read(&mut buffer)? {
            0 => break,
            length => text.extend_from_slice(&buffer[..length]),
        }
    }
    let answered = monotonic();
    let text = String::from_utf8_lossy(&text);
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let numbers: Vec<u64> = body.split(' ').filter_map(|number| number.parse().ok()).collect();
    match numbers[..] {
        [listened, arrived, pid] if text.starts_with("HTTP/1.1 200") => {
            Ok(Asked { pid: pid as u32, sent, listened, arrived, answered })
        }
        _ => Err(io::Error::other(format!("not the answer of the program: {text}"))),
    }
}

fn complete(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.to_ascii_lowercase();
    let length = length.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
    length.is_some_and(|length: usize| body.len() >= length)
}

/// A connection to the proxy.
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    TcpStream::connect(address)
}

/// CPU time of all threads of a process, of user and kernel together; zero when it is gone.
pub fn cpu(pid: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let texts = tasks.filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok());
    Duration::from_nanos(texts.filter_map(|text| text.split(' ').next()?.parse::<u64>().ok()).sum())
}

/// What was measured of one kind of start, in the order of starts.
#[derive(Debug, Default)]
pub struct Taken {
    /// From listen() to the request at the program, in microseconds.
    pub arrival: Vec<f64>,
    /// From listen() to the answer at the client, in microseconds.
    pub answer: Vec<f64>,
    /// CPU of who starts, all starts together.
    pub starter: Duration,
    /// CPU of the programs, all together.
    pub programs: Duration,
}

impl Taken {
    /// One more start.
    pub fn saw(&mut self, asked: &Asked) {
        let since = |at: u64| at.saturating_sub(asked.listened) as f64 / 1e3;
        self.arrival.push(since(asked.arrived));
        self.answer.push(since(asked.answered));
    }

    /// What was measured at another time.
    pub fn add(&mut self, other: Taken) {
        self.arrival.extend(other.arrival);
        self.answer.extend(other.answer);
        self.starter += other.starter;
        self.programs += other.programs;
    }

    /// CPU of one start in microseconds: of who starts, and of the program.
    pub fn cpu(&self) -> (f64, f64) {
        let each = |all: Duration| all.as_secs_f64() * 1e6 / self.answer.len().max(1) as f64;
        (each(self.starter), each(self.programs))
    }
}

/// The value that so many percent do not exceed.
pub fn percentile(values: &[f64], percent: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len() as f64 * percent / 100.0).ceil() as usize;
    sorted.get(at.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
}
