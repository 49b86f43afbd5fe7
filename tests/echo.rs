//! `pilotlight echo` as a process: its flags, its environment, how it starts and how it ends.
//!
//! What it answers is tested beside its source; this is what only a process of its own can show.

#![allow(clippy::unwrap_used)] // A test that cannot go on ends by panicking.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(20);

/// A running echo; killed when dropped.
struct Echo {
    child: Child,
    address: SocketAddr,
}

impl Echo {
    fn start(flags: &[&str], variables: &[(&str, &str)]) -> Echo {
        let mut child = command(flags, variables).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address =
            line.trim().strip_prefix("echo listening on http://").expect("it says where it listens");
        Echo { address: address.parse().unwrap(), child }
    }

    /// The status line and the body.
    fn get(&self, target: &str) -> (String, String) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        write!(stream, "GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
        (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.child.id().cast_signed()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    fn ended(mut self) -> ExitStatus {
        let started = now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(started.elapsed() < DEADLINE, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Only what a test gives is in its environment.
fn command(flags: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pilotlight"));
    command.arg("echo").args(flags).env_clear().envs(variables.iter().copied());
    command
}

#[allow(clippy::disallowed_methods)]
fn now() -> Instant {
    Instant::now()
}

#[test]
fn a_function_tells_its_service_and_revision_and_listens_where_port_says() {
    let echo = Echo::start(&[], &[("PORT", "0"), ("K_SERVICE", "hello"), ("K_REVISION", "hello-00001")]);
    assert!(echo.address.ip().is_loopback());
    let (status, body) = echo.get("/smoke");
    assert_eq!(status, "HTTP/1.1 200 OK");
    for part in
        ["\"name\":\"hello\"", "\"service\":\"hello\"", "\"revision\":\"hello-00001\"", "\"path\":\"/smoke\""]
    {
        assert!(body.contains(part), "{part} in {body}");
    }
}

#[test]
fn sigterm_ends_it_with_0_and_lets_an_answer_under_way_finish() {
    let echo = Echo::start(&["--listen", "127.0.0.1:0", "--workers", "2"], &[]);
    let idle = TcpStream::connect(echo.address).unwrap();
    let address = echo.address;
    let slow = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET /?slow=400ms&size=10 HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let mut first = [0; 1];
        stream.read_exact(&mut first).unwrap();
        (stream, first)
    });
    let (mut stream, _) = slow.join().unwrap();
    echo.signal(rustix::process::Signal::TERM);
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with("\r\n\r\nxxxxxxxxxx"), "{rest}");
    assert_eq!(echo.ended().code(), Some(0));
    drop(idle);
}

#[test]
fn it_ends_after_its_answers_with_the_code_it_was_given() {
    let flags = ["--listen", "127.0.0.1:0", "--exit-after", "2", "--exit-code", "7"];
    let echo = Echo::start(&flags, &[]);
    for _ in 0..2 {
        assert_eq!(echo.get("/?size=0").0, "HTTP/1.1 200 OK");
    }
    assert_eq!(echo.ended().code(), Some(7));
}

#[test]
fn nothing_listens_before_the_start_delay_is_over() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let started = now();
    let echo = Echo::start(&["--start-delay", "300ms"], &[("PORT", &port)]);
    assert!(started.elapsed() >= Duration::from_millis(300));
    assert_eq!(echo.get("/").0, "HTTP/1.1 200 OK");
}

#[test]
fn a_taken_address_is_refused_with_its_name_and_what_to_do() {
    let echo = Echo::start(&["--listen", "127.0.0.1:0"], &[]);
    let address = echo.address.to_string();
    let output = command(&["--listen", &address], &[]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains(&address) && error.contains("in use") && error.contains("--listen"), "{error}");
}

#[test]
fn curl_is_answered_in_every_protocol_it_speaks() {
    let found = Command::new("curl").arg("--version").output();
    let Ok(version) = found else {
        eprintln!("skipped: curl is not installed");
        return;
    };
    let echo = Echo::start(&["--listen", "127.0.0.1:0"], &[]);
    let mut rows = vec![("--http1.0", "HTTP/1.0"), ("--http1.1", "HTTP/1.1")];
    if String::from_utf8_lossy(&version.stdout).contains("HTTP2") {
        rows.push(("--http2-prior-knowledge", "HTTP/2"));
    }
    for (flag, protocol) in rows {
        let url = format!("http://{}/a?b=c", echo.address);
        let mut curl = Command::new("curl");
        curl.args(["-q", "-sS", "--noproxy", "*", "--max-time", "20", flag, "-d", "hello", &url]);
        let output = curl.output().unwrap();
        let body: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&body["protocol"], &body["body_bytes"]), (&protocol.into(), &5.into()), "{flag}");
    }
}
