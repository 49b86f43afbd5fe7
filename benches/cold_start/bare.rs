//! The bare loop: fork, exec, connect, one request; the least that a start can cost.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use crate::measure::{self, Asked, Taken};

/// Between two tries to connect.
const PAUSE: Duration = Duration::from_micros(300);

/// Runs the loop in a process of its own, so that its memory is small and its CPU is all of it.
pub fn measure(after: u64, count: u32) -> io::Result<Taken> {
    let mut command = Command::new(std::env::current_exe()?);
    let output = command.args(["bare", &after.to_string(), &count.to_string()]).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut taken = Taken::default();
    for line in text.lines() {
        let numbers: Vec<u64> = line.split(' ').filter_map(|number| number.parse().ok()).collect();
        match numbers[..] {
            [listened, arrived, answered] => {
                taken.saw(&Asked { pid: 0, sent: 0, listened, arrived, answered });
            }
            [starter, programs] => {
                taken.starter = Duration::from_nanos(starter);
                taken.programs = Duration::from_nanos(programs);
            }
            _ => return Err(io::Error::other(format!("the bare loop said: {line}"))),
        }
    }
    if output.status.success() { Ok(taken) } else { Err(io::Error::other("the bare loop failed")) }
}

/// The loop itself.
pub fn run(after: Duration, count: u32) -> ExitCode {
    match starts(after, count) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bare: {error}");
            ExitCode::FAILURE
        }
    }
}

fn starts(after: Duration, count: u32) -> io::Result<()> {
    let mut programs = Duration::ZERO;
    let mut seen = Vec::new();
    let before = measure::cpu(std::process::id());
    for _ in 0..count {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["function", &after.as_millis().to_string()]).env_clear();
        command.env("PORT", address.port().to_string()).process_group(0);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        seen.push(measure::ask(until_connected(address), "function")?);
        programs += measure::cpu(child.id());
        child.kill()?;
        child.wait()?;
    }
    let starter = measure::cpu(std::process::id()).saturating_sub(before);
    let mut out = io::stdout().lock();
    for asked in seen {
        writeln!(out, "{} {} {}", asked.listened, asked.arrived, asked.answered)?;
    }
    writeln!(out, "{} {}", starter.as_nanos(), programs.as_nanos())
}

fn until_connected(address: SocketAddr) -> TcpStream {
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => return stream,
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}
