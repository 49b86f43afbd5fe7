//! The program that is started: listens on PORT, and says in its answers when it listened and when it was asked.

use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::process::ExitCode;
use std::time::Duration;

use crate::measure::monotonic;

/// How long to wait before listening, if this process is to be the program.
pub fn asked() -> Option<Duration> {
    let mut words = std::env::args().skip(1);
    (words.next()? == "function").then(|| words.next()?.parse().ok().map(Duration::from_millis))?
}

/// Serves until it is ended.
pub fn serve(after: Duration) -> ExitCode {
    std::thread::sleep(after);
    let port = std::env::var("PORT").ok().and_then(|port| port.parse::<u16>().ok()).unwrap_or(0);
    let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) else { return ExitCode::FAILURE };
    let listened = monotonic();
    loop {
        // One that ends without a word was a look whether the port is open.
        let _ = answer(&listener, listened);
    }
}

fn answer(listener: &TcpListener, listened: u64) -> io::Result<()> {
    let (mut stream, _) = listener.accept()?;
    let mut head = [0; 4096];
    let mut length = stream.read(&mut head)?;
    let asked = monotonic();
    while length > 0 && !head[..length].ends_with(b"\r\n\r\n") {
        let more = stream.read(&mut head[length..])?;
        length = if more == 0 { 0 } else { length + more };
    }
    if length > 0 {
        let body = format!("{listened} {asked} {}", std::process::id());
        let length = body.len();
        let answer =
            format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
        stream.write_all(answer.as_bytes())?;
    }
    Ok(())
}
